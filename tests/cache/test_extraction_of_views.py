"""Extraction of stored views and of sources with many classes: what is kept, what it costs, what the key covers."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch

from potstill.cache import (
    ImageReader,
    cache_summary,
    drift,
    encoding,
    extract_outputs,
    extract_source,
    plan,
)
from potstill.cache.key import cache_key, key_fields
from potstill.cache.records import read_record, write_record
from potstill.data.images import read_image
from potstill.data.preprocessing import fit_square, normalise
from potstill.data.stored_views import render_view, view_numbers
from potstill.errors import CacheError, UsageError
from potstill.sources import open_source
from potstill.types import DenseLogits, TopKLogits, Zoo

ROWS = np.arange(20)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Several shards for twenty images."""
    monkeypatch.setattr(plan, "SHARD_ROWS", 8)
    monkeypatch.setattr(plan, "PART_ROWS", 8)


def contents(cache_dir):
    """Relative path -> bytes of every file of the entries of a cache, the lock apart."""
    files = (path for path in sorted((cache_dir / "outputs").rglob("*")) if path.is_file() and path.name != "lock")
    return {str(path.relative_to(cache_dir)): path.read_bytes() for path in files}


@pytest.mark.parametrize(("flip", "crop"), [(False, 1.0), (True, 0.875)])
def test_views_are_the_outputs_of_the_model_on_the_rendered_pictures(target, spec, tmp_path, flip, crop):
    spec = dataclasses.replace(spec, crop=crop)
    ids = list(target.files)[::-1]
    outputs = extract_source(spec, target, ids, cache_dir=tmp_path / "cache", batch_size=4, views=2, flip=flip)
    source = open_source(spec)
    prepared = source.preprocessing
    whole = [fit_square(read_image(target.files[one]), 32, interpolation=prepared.interpolation) for one in ids]
    assert len(outputs.views) == 2
    assert outputs.view_features == ()
    for view, logits in enumerate(outputs.views, start=1):
        numbers = view_numbers([target.digests[one] for one in ids], view)
        pixels = render_view(torch.from_numpy(np.stack(whole)), numbers, size=32, flip=flip)
        _, expected = source.outputs(normalise(pixels, prepared.mean, prepared.std))
        np.testing.assert_allclose(logits.probs(ROWS), torch.softmax(expected, dim=1), atol=2e-3)
        assert np.abs(logits.logits(ROWS) - outputs.logits.logits(ROWS)).max(axis=1).min() > 1e-3
    plain = extract_source(spec, target, ids, cache_dir=tmp_path / "plain", batch_size=4)
    np.testing.assert_array_equal(np.asarray(plain.features), np.asarray(outputs.features))
    assert (plain.key, plain.views) == (outputs.key, ())


def test_views_cost_only_what_is_new_and_one_decode(target, spec, tmp_path):
    arguments = {"cache_dir": tmp_path / "cache", "batch_size": 4}
    ids = list(target.files)
    assert extract_source(spec, target, ids, **arguments).cost.forwards == 20
    reader = ImageReader(target.files)
    grown = extract_source(spec, target, ids, views=3, reader=reader, **arguments)
    assert (grown.cost.forwards, reader.decoded) == (60, 20)
    assert extract_source(spec, target, ids, views=3, **arguments).cost.forwards == 0
    assert extract_source(spec, target, ids, views=1, **arguments).cost.forwards == 0
    assert extract_source(spec, target, ids, views=4, **arguments).cost.forwards == 20
    assert extract_source(spec, target, ids, views=3, flip=True, **arguments).cost.forwards == 60
    assert [entry.view for entry in cache_summary(tmp_path / "cache")] == [0, 1, 1, 2, 2, 3, 3, 4]


def test_one_decode_serves_the_plain_view_and_all_others(target, spec, tmp_path):
    reader = ImageReader(target.files)
    cropped = dataclasses.replace(spec, crop=0.875)
    extract_source(cropped, target, list(target.files), cache_dir=tmp_path / "cache", views=2, reader=reader)
    assert reader.decoded == 20


def test_views_do_not_depend_on_workers_order_or_names(target, spec, tmp_path):
    ids = list(target.files)
    extract_source(spec, target, ids, cache_dir=tmp_path / "a", batch_size=3, views=2, flip=True)
    renamed = dataclasses.replace(
        target,
        files={f"x/{one}": path for one, path in target.files.items()},
        digests={f"x/{one}": digest for one, digest in target.digests.items()},
    )
    others = list(renamed.files)[::-1]
    extract_source(spec, renamed, others, cache_dir=tmp_path / "b", batch_size=3, views=2, flip=True, workers=3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_entries_that_lack_different_images_are_filled_to_the_same(thirty, spec, tmp_path):
    ids = list(thirty.files)
    arguments = {"cache_dir": tmp_path / "cache", "batch_size": 4}
    extract_source(spec, thirty, ids[:20], **arguments)
    extract_source(spec, thirty, ids[:10], views=1, **arguments)
    seen = []
    grown = extract_source(spec, thirty, ids, views=2, progress=lambda *step: seen.append(step), **arguments)
    assert grown.cost.forwards == 10 + 20 + 30
    assert [seen[0], seen[-1]] == [("extract five", 0, 60), ("extract five", 60, 60)]
    fresh = extract_source(spec, thirty, ids, cache_dir=tmp_path / "fresh", views=2)
    for mine, other in zip(grown.views, fresh.views, strict=True):
        np.testing.assert_allclose(mine.probs(np.arange(30)), other.probs(np.arange(30)), atol=2e-3)


def test_an_interruption_keeps_finished_shards_of_all_views(target, spec, tmp_path):
    def interrupt(task, done, total):
        if done == 3 * 12:
            raise KeyboardInterrupt

    arguments = {"cache_dir": tmp_path / "cache", "batch_size": 4, "views": 2}
    with pytest.raises(KeyboardInterrupt):
        extract_source(spec, target, list(target.files), progress=interrupt, **arguments)
    assert extract_source(spec, target, list(target.files), **arguments).cost.forwards == 3 * 12
    extract_source(spec, target, list(target.files), **{**arguments, "cache_dir": tmp_path / "whole"})
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


def test_a_source_without_classes_keeps_the_features_of_its_views(target, headless, spec, tmp_path):
    zoo = Zoo(name="test", sources={one.name: one for one in (headless, spec)})
    outputs, errors = extract_outputs(target, zoo, list(target.files), cache_dir=tmp_path / "cache", views=2)
    assert errors == {}
    bare = outputs["headless"]
    assert (bare.logits, bare.views, len(bare.view_features)) == (None, (), 2)
    assert bare.view_features[0].shape == bare.features.shape
    assert (np.asarray(bare.view_features[0]) != np.asarray(bare.view_features[1])).any()
    assert len(outputs["five"].views) == 2


def test_the_key_of_the_plain_view_is_that_of_version_0_1_and_every_view_has_its_own():
    identity = {"kind": "timm", "architecture": "a"}
    fields = key_fields(identity, flip=True)
    decoder = fields["decoder"]
    assert fields == {"source": identity, "decoder": decoder, "dtype": "float32", "view": 0, "format": 1}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert cache_key(fields) == hashlib.sha256(text.encode()).hexdigest()
    keys = {cache_key(key_fields(identity, view=view, flip=flip)) for view in (0, 1, 2) for flip in (False, True)}
    assert len(keys) == 5
    assert key_fields(identity, view=2, flip=True)["view"] == {"number": 2, "flip": True, "version": 1}


def test_many_classes_are_kept_as_the_likeliest(target, new_source, tmp_path):
    source = new_source("many", num_classes=2100)
    ids = list(target.files)
    outputs = extract_source(source, target, ids, cache_dir=tmp_path / "cache", batch_size=4, views=1)
    opened = open_source(source)
    prepared = opened.preprocessing
    pixels = [fit_square(read_image(target.files[one]), 32, interpolation=prepared.interpolation) for one in ids]
    _, expected = opened.outputs(normalise(np.stack(pixels), prepared.mean, prepared.std))
    assert isinstance(outputs.logits, TopKLogits)
    assert isinstance(outputs.views[0], TopKLogits)
    assert (outputs.logits.num_classes, outputs.logits.indices.shape) == (2100, (20, 10))
    for temperature in (1.0, 2.0, 4.0):
        indices, probs = outputs.logits.probs(ROWS, temperature)
        dense = torch.softmax(expected.double() / temperature, dim=1).gather(1, torch.from_numpy(indices))
        np.testing.assert_allclose(probs, dense, atol=1e-3, rtol=1e-2)
    again = extract_source(source, target, ids, cache_dir=tmp_path / "cache", views=1)
    assert again.cost.forwards == 0


def forget_kept_classes(cache_dir):
    """Make manifests look as version 0.1 wrote them."""
    for path in cache_dir.rglob("manifest.json"):
        manifest = read_record(path)
        del manifest["choices"]["kept_classes"]
        write_record(path, manifest)


def test_dense_entries_of_version_0_1_stay_readable_and_grow_as_they_are(thirty, new_source, tmp_path, monkeypatch):
    source, ids, cache_dir = new_source("many", num_classes=2100), list(thirty.files), tmp_path / "cache"
    with monkeypatch.context() as before:
        before.setattr(encoding, "MOST_DENSE_CLASSES", 10_000)
        extract_source(source, thirty, ids[:20], cache_dir=cache_dir, batch_size=4)
    forget_kept_classes(cache_dir)
    read = extract_source(source, thirty, ids[:20], cache_dir=cache_dir)
    assert isinstance(read.logits, DenseLogits)
    assert read.cost.forwards == 0
    grown = extract_source(source, thirty, ids, cache_dir=cache_dir)
    assert grown.logits.probs(np.arange(30)).shape == (30, 2100)
    assert grown.cost.forwards == 10


@pytest.mark.parametrize("num_classes", [5, 2100])
def test_views_are_compared_under_other_library_versions(target, new_source, tmp_path, monkeypatch, num_classes):
    source, ids = new_source("source", num_classes=num_classes), list(target.files)
    arguments = {"cache_dir": tmp_path / "cache", "batch_size": 4, "views": 1}
    extract_source(source, target, ids, **arguments)
    monkeypatch.setattr(drift, "library_versions", lambda _: {"timm": "9", "torch": "9"})
    monkeypatch.setattr(drift, "COMPARED_ROWS", 6)
    assert extract_source(source, target, ids, **arguments).cost.forwards == 12
    assert extract_source(source, target, ids, **arguments).cost.forwards == 0


def test_views_that_other_versions_contradict_are_refused(target, spec, tmp_path, monkeypatch):
    ids = list(target.files)
    extract_source(spec, target, ids, cache_dir=tmp_path / "cache", views=1)
    monkeypatch.setattr(drift, "library_versions", lambda _: {"timm": "9", "torch": "9"})
    monkeypatch.setattr("potstill.cache.rows.render_view", lambda pixels, *_, **__: 255 - pixels)
    with pytest.raises(CacheError, match="cached outputs differ by"):
        extract_source(spec, target, ids, cache_dir=tmp_path / "cache", views=1)


def test_a_negative_number_of_views_is_refused(target, spec, tmp_path):
    with pytest.raises(UsageError, match="views at least 0"):
        extract_source(spec, target, list(target.files), cache_dir=tmp_path / "cache", views=-1)
