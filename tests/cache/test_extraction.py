"""Extraction: one pass, kept by content; what is cached is never computed again and never silently wrong."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from potstill.cache import (
    ImageReader,
    cache_summary,
    default_cache_dir,
    drift,
    extract_outputs,
    extract_source,
    extraction,
    filling,
    plan,
    repair_cache,
    verify_cache,
)
from potstill.data.images import read_image
from potstill.data.preprocessing import fit_square, normalise
from potstill.errors import CacheError, DataError, OutputError, SourceError, UsageError
from potstill.sources import open_source
from potstill.types import Zoo


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Several shards for twenty images."""
    monkeypatch.setattr(plan, "SHARD_ROWS", 8)
    monkeypatch.setattr(plan, "PART_ROWS", 8)


def zoo_of(*specs):
    return Zoo(name="test", sources={spec.name: spec for spec in specs})


def contents(cache_dir):
    """Relative path -> bytes of every file of the entries of a cache, the lock apart."""
    return {
        str(path.relative_to(cache_dir)): path.read_bytes()
        for path in sorted((cache_dir / "outputs").rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def test_rows_are_the_outputs_of_the_model(target, spec, tmp_path):
    ids = list(target.files)[::-1]
    outputs = extract_source(spec, target, ids, cache_dir=tmp_path / "cache", batch_size=4)
    source = open_source(spec)
    prepared = source.preprocessing
    pixels = [
        fit_square(read_image(target.files[one]), 32, interpolation=prepared.interpolation, crop=prepared.crop)
        for one in ids
    ]
    features, logits = source.outputs(normalise(np.stack(pixels), prepared.mean, prepared.std))
    rows = np.arange(len(ids))
    np.testing.assert_allclose(outputs.features[rows], features, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(outputs.logits.probs(rows), torch.softmax(logits, dim=1), atol=2e-3)
    assert outputs.features[rows].dtype == np.float16
    assert outputs.image_ids == tuple(ids)
    assert outputs.cost.forwards == 20
    assert outputs.cost.params == source.params
    assert (outputs.label_space, outputs.logits.num_classes) == ("source", 5)


def test_a_second_extraction_never_opens_the_source(target, spec, tmp_path, monkeypatch):
    ids = list(target.files)
    first = extract_source(spec, target, ids, cache_dir=tmp_path / "cache")
    before = contents(tmp_path / "cache")
    monkeypatch.setattr(extraction, "open_source", lambda *_, **__: pytest.fail("the source was opened"))
    again = dataclasses.replace(spec, name="renamed", license="MIT")
    second = extract_source(again, target, ids, cache_dir=tmp_path / "cache", batch_size=3)
    assert second.cost.forwards == 0
    assert second.cost.params == first.cost.params
    np.testing.assert_array_equal(np.asarray(first.features), np.asarray(second.features))
    assert contents(tmp_path / "cache") == before


def test_new_images_cost_only_themselves(thirty, spec, tmp_path):
    ids = list(thirty.files)
    extract_source(spec, thirty, ids[:20], cache_dir=tmp_path / "cache")
    grown = extract_source(spec, thirty, ids, cache_dir=tmp_path / "cache")
    assert grown.cost.forwards == 10
    fresh = extract_source(spec, thirty, ids, cache_dir=tmp_path / "fresh")
    np.testing.assert_allclose(np.asarray(grown.features), np.asarray(fresh.features), rtol=1e-2, atol=1e-3)


def test_identical_files_are_computed_once_and_may_move(target, spec, tmp_path):
    ids = list(target.files)
    shutil.copy(target.files[ids[0]], tmp_path / "copy.png")
    copied = dataclasses.replace(
        target,
        files={**target.files, "elsewhere/copy.png": tmp_path / "copy.png"},
        digests={**target.digests, "elsewhere/copy.png": target.digests[ids[0]]},
    )
    outputs = extract_source(spec, copied, list(copied.files), cache_dir=tmp_path / "cache")
    assert outputs.cost.forwards == 20
    first, last = outputs.features[np.array([0, 20])]
    np.testing.assert_array_equal(first, last)


def test_files_do_not_depend_on_workers_or_order(target, spec, tmp_path):
    ids = list(target.files)
    extract_source(spec, target, ids, cache_dir=tmp_path / "a", batch_size=3)
    for workers in (1, 2, 3, 5):
        extract_source(spec, target, ids[::-1], cache_dir=tmp_path / str(workers), batch_size=3, workers=workers)
        assert contents(tmp_path / "a") == contents(tmp_path / str(workers))


def test_headless_source(target, headless, tmp_path):
    outputs = extract_source(headless, target, list(target.files), cache_dir=tmp_path / "cache")
    assert outputs.logits is None
    assert outputs.label_space == "clusters"
    assert outputs.features.shape[0] == 20


def test_one_bad_source_does_not_stop_the_others(target, spec, tmp_path):
    state = load_file(spec.weights)
    state["fc.bias"][0] = float("inf")
    save_file(state, tmp_path / "bad.safetensors")
    bad = dataclasses.replace(spec, name="bad", weights=tmp_path / "bad.safetensors")
    absent = dataclasses.replace(spec, name="absent", weights=tmp_path / "none.safetensors")
    unfinished = dataclasses.replace(spec, name="unfinished", model="onnx")
    misfit = dataclasses.replace(spec, name="misfit", num_classes=9)
    zoo = zoo_of(bad, absent, spec, unfinished, misfit)
    outputs, errors = extract_outputs(target, zoo, list(target.files), cache_dir=tmp_path / "cache")
    assert list(outputs) == ["five"]
    assert list(errors) == ["bad", "absent", "unfinished", "misfit"]
    assert "'bad' gives logits that are not finite" in errors["bad"]
    assert "fc.weight" in errors["misfit"]
    with pytest.raises(
        SourceError, match=r"No source of the zoo 'test' gave outputs:\n  - absent: [\s\S]*- unfinished: "
    ):
        extract_outputs(target, zoo_of(absent, unfinished), list(target.files), cache_dir=tmp_path / "cache")


def test_an_image_is_decoded_once_for_all_sources(target, spec, headless, tmp_path):
    larger = dataclasses.replace(spec, name="larger", image_size=48)
    other_normalisation = dataclasses.replace(spec, name="other", mean=(0.4, 0.5, 0.6))
    zoo = zoo_of(spec, headless, larger, other_normalisation)
    reader = ImageReader(target.files)
    ids = list(target.files)
    outputs, errors = extract_outputs(target, zoo, ids, cache_dir=tmp_path / "a", reader=reader, workers=2, views=1)
    assert errors == {}
    assert reader.decoded == 20
    for one in zoo:  # as if each had been alone
        alone = extract_source(one, target, ids, cache_dir=tmp_path / "b", views=1)
        np.testing.assert_array_equal(np.asarray(outputs[one.name].features), np.asarray(alone.features))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_sources_that_do_not_fit_into_memory_together_take_turns(target, spec, headless, tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "MOST_PARAMS", 1)
    reader = ImageReader(target.files)
    extract_outputs(target, zoo_of(spec, headless), list(target.files), cache_dir=tmp_path / "a", reader=reader)
    assert reader.decoded == 40


def test_two_names_of_one_source_are_asked_once(target, spec, tmp_path):
    twin = dataclasses.replace(spec, name="twin")
    outputs, _ = extract_outputs(target, zoo_of(spec, twin), list(target.files), cache_dir=tmp_path / "a")
    assert {name: one.cost.forwards for name, one in outputs.items()} == {"five": 20, "twin": 0}
    np.testing.assert_array_equal(np.asarray(outputs["five"].features), np.asarray(outputs["twin"].features))


def test_damage_in_every_file_is_noticed_named_and_repairable(target, spec, tmp_path):
    cache_dir = tmp_path / "cache"
    ids = list(target.files)
    extract_source(spec, target, ids, cache_dir=cache_dir)
    intact = contents(cache_dir)
    assert len(intact) == 7  # a manifest and three shards with their records
    assert verify_cache(cache_dir) == ()
    for name, content in intact.items():
        for changed in (content[:-1], content[:40] + bytes([content[40] ^ 4]) + content[41:]):
            (cache_dir / name).write_bytes(changed)
            with pytest.raises(CacheError, match=Path(name).stem):
                extract_source(spec, target, ids, cache_dir=cache_dir)
            assert len(verify_cache(cache_dir)) == 1
        (cache_dir / name).write_bytes(content)
    # Deleting a shard, as the message says, repairs the cache to the same bytes.
    for path in cache_dir.rglob("shard-000001.*"):
        path.unlink()
    assert extract_source(spec, target, ids, cache_dir=cache_dir).cost.forwards == 8
    assert contents(cache_dir) == intact


def test_repair_removes_what_is_damaged_and_nothing_else(target, spec, headless, tmp_path):
    cache_dir = tmp_path / "cache"
    ids = list(target.files)
    extract_source(headless, target, ids, cache_dir=cache_dir)
    (manifest,) = cache_dir.rglob("manifest.json")
    key = extract_source(spec, target, ids, cache_dir=cache_dir).key
    intact = contents(cache_dir)
    assert repair_cache(cache_dir) == ()
    manifest.write_bytes(b"{}")
    shard = cache_dir / "outputs" / key / "shard-000000.safetensors"
    shard.write_bytes(b"")
    assert {one.path for one in repair_cache(cache_dir)} == {manifest, shard.with_suffix(".json")}
    assert extract_source(spec, target, ids, cache_dir=cache_dir).cost.forwards == 8
    assert extract_source(headless, target, ids, cache_dir=cache_dir).cost.forwards == 20
    assert contents(cache_dir) == intact


def test_a_shard_without_its_record_does_not_count(target, spec, tmp_path):
    ids = list(target.files)
    extract_source(spec, target, ids, cache_dir=tmp_path / "cache")
    intact = contents(tmp_path / "cache")
    (record,) = (tmp_path / "cache").rglob("shard-000002.json")
    record.unlink()
    record.with_suffix(".safetensors").write_bytes(b"half")
    (record.parent / ".shard-000002.safetensors.99.tmp").write_bytes(b"remnant")
    assert extract_source(spec, target, ids, cache_dir=tmp_path / "cache").cost.forwards == 4
    assert contents(tmp_path / "cache") == intact


EXTRACTION = """
import sys, time
from pathlib import Path
tests, root, pause = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
sys.path.insert(0, tests)
from conftest import make_source, make_target
from potstill.cache import extract_source, plan
plan.SHARD_ROWS = plan.PART_ROWS = 8
def progress(task, done, total):
    print(done, flush=True)
    if done == 12:  # the first shard is on disk, half of the second is computed
        time.sleep(pause)
target = make_target(root / "images", 20)
source = make_source(root, "five", num_classes=5, seed=0)
extract_source(source, target, list(target.files), cache_dir=root / "shared", batch_size=4, progress=progress)
"""


def start_extraction(root, *, pause):
    """Another process that extracts the same images with the same source and rests after twelve images."""
    arguments = [sys.executable, "-c", EXTRACTION, str(Path(__file__).parent), str(root), str(pause)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    while process.stdout.readline() != "12\n":
        assert process.poll() is None
    return process


def test_killed_extraction_resumes_to_the_same_bytes(target, spec, tmp_path):
    with start_extraction(tmp_path, pause=600) as process:
        process.kill()
    resumed = extract_source(spec, target, list(target.files), cache_dir=tmp_path / "shared", batch_size=4)
    assert resumed.cost.forwards == 12
    extract_source(spec, target, list(target.files), cache_dir=tmp_path / "whole", batch_size=4)
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")


def test_an_interruption_keeps_finished_shards(target, spec, tmp_path):
    def interrupt(task, done, total):
        if done == 12:
            raise KeyboardInterrupt

    arguments = {"cache_dir": tmp_path / "cache", "batch_size": 4, "workers": 2}
    with pytest.raises(KeyboardInterrupt):
        extract_source(spec, target, list(target.files), progress=interrupt, **arguments)
    assert extract_source(spec, target, list(target.files), **arguments).cost.forwards == 12


def test_two_processes_share_one_cache(target, spec, tmp_path):
    with start_extraction(tmp_path, pause=0.5) as process:  # it holds the lock now
        mine = extract_source(spec, target, list(target.files), cache_dir=tmp_path / "shared", batch_size=4)
        process.stdout.read()
    assert process.returncode == 0
    assert mine.cost.forwards == 0


def test_other_library_versions_are_compared_once(target, spec, tmp_path, monkeypatch):
    ids = list(target.files)
    arguments = {"cache_dir": tmp_path / "cache", "batch_size": 4}
    extract_source(spec, target, ids, **arguments)
    monkeypatch.setattr(drift, "library_versions", lambda _: {"timm": "9", "torch": "9"})
    monkeypatch.setattr(drift, "COMPARED_ROWS", 6)
    assert extract_source(spec, target, ids, **arguments).cost.forwards == 6
    assert extract_source(spec, target, ids, **arguments).cost.forwards == 0


def test_rows_that_other_versions_contradict_are_refused(target, spec, new_source, tmp_path, monkeypatch):
    ids = list(target.files)
    extract_source(spec, target, ids, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(drift, "library_versions", lambda _: {"timm": "9", "torch": "9"})
    other = new_source("other", seed=5)
    monkeypatch.setattr(extraction, "open_source", lambda *_, **__: open_source(other))
    with pytest.raises(CacheError, match="cached outputs differ by"):
        extract_source(spec, target, ids, cache_dir=tmp_path / "cache")


def test_summary(target, spec, headless, tmp_path):
    assert cache_summary(tmp_path / "nothing") == ()
    for one in (spec, headless):
        extract_source(one, target, list(target.files), cache_dir=tmp_path / "cache")
    five, bare = cache_summary(tmp_path / "cache")
    assert (five.source, five.rows, five.num_classes, five.architecture) == ("five", 20, 5, "test_resnet")
    assert (bare.source, bare.rows, bare.num_classes) == ("headless", 20, 0)
    assert five.size > bare.size > 0


def test_misuse_and_bad_data(target, spec, tmp_path):
    with pytest.raises(DataError, match="the list of image ids is empty"):
        extract_source(spec, target, [], cache_dir=tmp_path / "cache")
    with pytest.raises(DataError, match=r"1 image ids are not readable images of 'noise', first: 'none\.png'"):
        extract_source(spec, target, ["none.png"], cache_dir=tmp_path / "cache")
    with pytest.raises(UsageError, match="batch_size"):
        extract_source(spec, target, list(target.files), cache_dir=tmp_path / "cache", batch_size=0)
    target.files["003.png"].write_bytes(b"no image any more")
    with pytest.raises(DataError, match=r"003\.png"):
        extract_outputs(target, zoo_of(spec), list(target.files), cache_dir=tmp_path / "cache", workers=2)


def test_a_cache_that_cannot_be_written_is_an_output_error(target, spec, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file, not a folder")
    with pytest.raises(OutputError, match="--cache-dir"):
        extract_source(spec, target, list(target.files), cache_dir=tmp_path / "cache")


def test_a_disk_without_room_is_noticed_before_anything_is_computed(target, spec, headless, tmp_path, monkeypatch):
    """Room for the rows of two sources, one of which has no classes, and for those of the larger once more."""
    ids = list(target.files)
    widths = [open_source(each).feature_dim for each in (spec, headless)]
    sizes = [(32 + 2 * widths[0] + 2 * 5 + 8) * 20, (32 + 2 * widths[1]) * 20]
    needed = sum(sizes) + max(sizes)
    disk = shutil.disk_usage(tmp_path)

    def extract(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: disk._replace(free=free))
        reader = ImageReader(target.files)
        try:
            extract_outputs(target, zoo_of(spec, headless), ids, cache_dir=tmp_path / "cache", reader=reader)
        finally:
            decoded.append(reader.decoded)

    decoded = []
    with pytest.raises(OutputError, match="--cache-dir"):
        extract(needed - 1)
    assert decoded == [0]
    extract(needed)
    assert decoded == [0, 20]


def test_default_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("POTSTILL_CACHE_DIR", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("POTSTILL_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "potstill"
