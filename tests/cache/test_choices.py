"""How sources are asked: measured where that pays, kept for an entry, and of no effect but in the last bits."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from potstill.cache import ImageReader, choices, extract_outputs, extract_source, filling
from potstill.cache.choices import Choices, choose
from potstill.errors import SourceError
from potstill.sources import open_source
from potstill.types import Zoo


def manifest_of(cache_dir, key):
    return json.loads((cache_dir / "outputs" / key / "manifest.json").read_text())["body"]


@pytest.fixture
def timed(monkeypatch):
    """Seconds an image by memory order and batch size in place of a clock; what is not there fails."""
    table = {}

    def seconds(source, batch_size):
        found = table.get((source.layout, batch_size), SourceError("no such batch"))
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(choices, "_seconds_an_image", seconds)
    return table


def test_few_rows_are_not_worth_a_measurement(spec, timed):
    assert choose(open_source(spec), 9_999) == Choices(16, fused=True)
    assert choose(open_source(spec), 10**6, 48) == Choices(48, fused=True)


def test_the_fastest_is_chosen(spec, timed):
    timed |= {
        ("channels_last", 16): 0.03,
        ("contiguous", 16): 0.02,
        ("contiguous", 4): 0.015,
        ("contiguous", 64): 0.04,
        ("channels_last", 4): 0.001,  # the order is settled in the usual batch size
    }
    chosen = choose(open_source(spec), 10_000)
    assert (chosen.batch_size, chosen.layout) == (4, "contiguous")
    assert chosen.measured["seconds_an_image"] == {
        "channels_last 16": 0.03,
        "contiguous 16": 0.02,
        "contiguous 4": 0.015,
        "contiguous 64": 0.04,
    }


@pytest.mark.parametrize("failure", [SourceError("fails on noise"), torch.OutOfMemoryError("too large")])
def test_what_fails_is_not_chosen(spec, timed, failure):
    timed |= {("channels_last", 16): 0.03, ("channels_last", 64): failure}
    chosen = choose(open_source(spec), 10_000)
    assert (chosen.batch_size, chosen.layout) == (16, "channels_last")
    timed.clear()
    assert choose(open_source(spec), 10_000) == Choices(16, fused=True)


@pytest.mark.parametrize(("fits", "chosen"), [(64, 64), (63, 32), (5, 4), (0, 1)])
def test_a_batch_is_halved_until_it_fits_into_a_graphics_card(spec, monkeypatch, fits, chosen):
    source = dataclasses.replace(open_source(spec), device="cuda")

    def outputs(self, images):
        if len(images) > fits:
            raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(type(source), "outputs", outputs)
    monkeypatch.setattr(choices, "_images", lambda _, batch_size: range(batch_size))  # on no device
    assert choose(source, 100) == Choices(chosen, fused=True)


def test_a_measurement_is_written_down_and_kept(target, spec, tmp_path, monkeypatch):
    monkeypatch.setattr(choices, "CPU_FROM", 20)
    ids = list(target.files)
    outputs = extract_source(spec, target, ids[:12], cache_dir=tmp_path / "cache")
    assert manifest_of(tmp_path / "cache", outputs.key)["choices"] == {
        "batch_size": 16, "dtype": "float32", "layout": "channels_last", "fused": True, "kept_classes": None,
    }  # fmt: skip
    outputs = extract_source(spec, target, ids, cache_dir=tmp_path / "measured")
    noted = manifest_of(tmp_path / "measured", outputs.key)["choices"]
    assert Choices.of({"choices": noted}).record() == {key: noted[key] for key in noted if key != "kept_classes"}
    seconds = noted["measured"]["seconds_an_image"]
    assert len(seconds) == 4
    assert min(seconds, key=seconds.get) == f"{noted['layout']} {noted['batch_size']}"

    monkeypatch.setattr(choices, "_seconds_an_image", lambda *_: pytest.fail("measured again"))
    more = dataclasses.replace(spec, name="the same under another name")
    assert extract_source(more, target, ids, cache_dir=tmp_path / "measured").cost.forwards == 0


def test_all_views_of_a_source_are_asked_alike(target, spec, tmp_path, monkeypatch):
    ids = list(target.files)
    first = Choices(8, "contiguous", fused=False)
    monkeypatch.setattr(filling, "choose", lambda *_: first)
    extract_source(spec, target, ids[:5], cache_dir=tmp_path)
    monkeypatch.setattr(filling, "choose", lambda *_: pytest.fail("chosen again"))
    extract_source(spec, target, ids, cache_dir=tmp_path, views=1)
    extract_source(spec, target, ids, cache_dir=tmp_path, views=2, batch_size=4)
    noted = [Choices.of(json.loads(path.read_text())["body"]) for path in tmp_path.glob("outputs/*/manifest.json")]
    assert sorted(noted, key=lambda one: one.batch_size) == [dataclasses.replace(first, batch_size=4), first, first]


def test_neither_batch_nor_order_moves_more_than_rounding(spec):
    images = torch.randn(8, 3, 32, 32)
    source = open_source(spec)
    features, logits = source.outputs(images)
    for layout in ("contiguous", "channels_last"):
        source = source.arranged(layout)
        assert source.layout == layout
        rows = [source.outputs(batch) for batch in images.split(3)]
        torch.testing.assert_close(torch.cat([row[0] for row in rows]), features, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.cat([row[1] for row in rows]), logits, rtol=1e-5, atol=1e-5)


def test_sources_of_different_batches_share_a_decoding(target, spec, new_source, tmp_path):
    """An entry keeps its batch size; others that are asked with it have theirs, and rows are those of each alone."""
    other = new_source("other", num_classes=7, seed=3)
    zoo, ids = Zoo("two", {spec.name: spec, other.name: other}), list(target.files)
    for cache in ("together", "alone"):
        extract_source(spec, target, ids[:5], cache_dir=tmp_path / cache, batch_size=4)
    extract_source(spec, target, ids, cache_dir=tmp_path / "alone")
    extract_source(other, target, ids, cache_dir=tmp_path / "alone", batch_size=3)
    reader = ImageReader(target.files)
    arguments = {"cache_dir": tmp_path / "together", "batch_size": 3, "reader": reader}
    extract_source(other, target, ids[:5], **arguments)
    reader.decoded = 0
    outputs, errors = extract_outputs(target, zoo, ids, **arguments)
    assert (reader.decoded, errors) == (15, {})
    for name, kept in (("five", 4), ("other", 3)):
        assert manifest_of(tmp_path / "together", outputs[name].key)["choices"]["batch_size"] == kept
    alone, _ = extract_outputs(target, zoo, ids, cache_dir=tmp_path / "alone")
    rows = np.arange(20)
    np.testing.assert_array_equal(outputs["five"].features[rows], alone["five"].features[rows])
    np.testing.assert_allclose(outputs["other"].features[rows], alone["other"].features[rows], rtol=2e-3, atol=2e-3)
