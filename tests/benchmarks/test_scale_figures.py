"""The tables of docs/scale.md are those of the committed results, and the cost model predicts what was measured."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from potstill.cache.encoding import ShardDraft, kept_classes
from potstill.data.pixels import packed_bytes
from potstill.training.checkpoint import Checkpoint, save_checkpoint
from tables import UNMEASURED, differing_tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "scale.json"


@pytest.fixture(scope="module")
def model() -> Iterator[ModuleType]:
    path = ROOT / "benchmarks" / "scale" / "model.py"
    spec = importlib.util.spec_from_file_location("scale_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale_model"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scale_model"]


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return content


def test_tables_are_those_of_the_record(model: ModuleType, record: dict[str, Any]) -> None:
    tables = model.tables_of(record)
    assert differing_tables(ROOT / "docs" / "scale.md", tables) == []
    assert UNMEASURED not in tables.values()


def test_the_model_predicts_the_largest_measurement(model: ModuleType, record: dict[str, Any]) -> None:
    for name, predicted, measured, unit in model.comparison(record):
        # Bytes are exact but for file headers and memory pages; times were taken on a machine that others use.
        slack = {"MB": 0.1, "s": 0.6}[unit]
        assert predicted == pytest.approx(measured, rel=slack), name


def test_live_batch_statistics_of_parts_do_no_harm(record: dict[str, Any]) -> None:
    found = record["seeds"]["results"]
    for method in ("transfer", "weighted"):
        assert abs(found[method]["mean_difference"]) <= found[method]["sd_of_seeds"]


@pytest.mark.parametrize("classes", [1000, 2048, 21841])
def test_bytes_of_a_row_are_those_of_the_cache(model: ModuleType, classes: int) -> None:
    draft = ShardDraft(kept_classes(classes), with_features=True)
    draft.add(torch.randn(3, 40), torch.randn(3, classes))
    stored = sum(array.nbytes for array in draft.arrays(["00" * 32] * 3).values())
    assert stored == 3 * model.output_bytes(40, classes, top_k=classes > 2048)


def test_bytes_of_squares_and_checkpoints_are_those_of_the_files(model: ModuleType, tmp_path: Path) -> None:
    assert packed_bytes(7, 146) == 7 * model.packed_bytes(146)
    params, features, classes = 90_000, 20, 300
    heads = (features + 1) * classes
    tensors = {
        **{f"{part}.model": torch.zeros(params) for part in ("student", "average", "optimizer")},
        **{f"{part}.heads": torch.zeros(heads) for part in ("student", "optimizer")},
    }
    for _ in range(2):
        save_checkpoint(tmp_path / "last.safetensors", Checkpoint(1, 2, 0.0, (0, 0.0), [], tensors), fingerprint="a")
    stored = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert stored == pytest.approx(model.checkpoint_bytes(params, features, classes), rel=0.01)
