"""The arithmetic of benchmarks/peers, and that its variants are those of its scripts; no peer is needed."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tables import differing_tables

PEERS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers"
Load = Callable[[str], ModuleType]
MODULES = ("measure", "install", "workload", "ours")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a script of the folder by name, as if it ran there."""
    monkeypatch.syspath_prepend(str(PEERS))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def measure(load: Load) -> ModuleType:
    return load("measure")


def process(seconds: float, forward: float | None = None) -> dict[str, float | None]:
    return {"median_seconds": seconds, "source_forward": forward}


def test_the_record_is_the_last_line(measure: ModuleType) -> None:
    assert measure.last_record('Create optimizer\n{"not": "this"}\n\n{"median_seconds": 0.5}\n') == {
        "median_seconds": 0.5
    }
    with pytest.raises(ValueError, match="JSON at the end"):
        measure.last_record("")
    with pytest.raises(ValueError, match="killed"):
        measure.last_record('{"median_seconds": 0.5}\nkilled')


def test_ratios_compare_medians_and_the_rounds_one_by_one(measure: ModuleType) -> None:
    records = {
        "potstill supervised": [process(1.0), process(2.0), process(4.0)],
        "timm supervised": [process(3.0), process(5.0), process(6.0)],
        "usb fixmatch": [process(1.0)] * 3,  # ours was not measured
    }
    found = measure.over_ours(records)
    assert set(found) == {"timm supervised"}
    assert found["timm supervised"]["ratio"] == 5.0 / 2.0
    assert found["timm supervised"]["ratio_of_each_round"] == [3.0, 2.5, 1.5]


def test_28_sources_are_one_step_and_27_forward_passes(measure: ModuleType) -> None:
    records = {
        "potstill 28 sources": [process(0.25)],
        "torchdistill 1 light source": [process(1.0, 0.5)],
        "torchdistill 28 light sources": [process(16.0)],
        "timm 1 heavy source": [process(2.0, 1.0)],
    }
    found = measure.computed(records)
    light = found["torchdistill 28 light sources, computed"]
    assert light["peer_seconds"] == 1.0 + 27 * 0.5
    assert light["ratio"] == 14.5 / 0.25
    assert light["computed_over_measured"] == 14.5 / 16
    assert found["timm 28 heavy sources, computed"]["peer_seconds"] == 29.0
    assert "computed_over_measured" not in found["timm 28 heavy sources, computed"]


def test_every_variant_is_one_that_its_script_knows(measure: ModuleType) -> None:
    known = {}
    for script in {each.script for each in measure.VARIANTS.values()}:
        tree = ast.parse((PEERS / script).read_text(encoding="utf-8"))
        values = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "VARIANTS"]
        known[script] = set(ast.literal_eval(values[0]))
    for name, each in measure.VARIANTS.items():
        assert each.variant in known[each.script], name
        assert each.beside is None or each.beside in measure.VARIANTS, name


def test_pictures_are_the_same_everywhere_and_not_flat(load: Load) -> None:
    workload = load("workload")
    images = workload.pictures(2)
    assert images.dtype == torch.uint8
    assert images.shape == (2, 3, workload.IMAGE_SIZE, workload.IMAGE_SIZE)
    assert torch.equal(images, workload.pictures(2))
    assert images.float().std() > 30


@pytest.mark.parametrize("variant", ["supervised", "sources-28", "fixmatch"])
def test_our_step_runs_and_every_step_is_timed(load: Load, monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    workload, ours = load("workload"), load("ours")
    monkeypatch.setattr(workload, "IMAGE_SIZE", 32)
    clock = ours.Clock()
    ours._train(workload.Arguments(variant, steps=2, warmup=1, threads=1), ours.ComputeChoice(), clock)
    assert len(clock.ends) == 2 + 1 + 3
    assert clock.ends == sorted(clock.ends)


def test_the_table_of_the_page_is_that_of_the_record(measure: ModuleType) -> None:
    record = json.loads(measure.RESULTS.read_text(encoding="utf-8"))
    tables = measure.tables_of(record)
    assert differing_tables(measure.PAGE, tables) == []
    assert not record["measured"]["commit"].endswith("+")
    assert record["measured"]["rounds"] >= 7
    assert {**record["computed"], **record["over_ours"]} == {
        **measure.computed(record["processes"]),
        **measure.over_ours(record["processes"]),
    }
