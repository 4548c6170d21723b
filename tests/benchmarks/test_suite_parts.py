"""What the suite keeps of its material: sides, near-duplicates, classes, sizes; and the built tasks where they are."""

from __future__ import annotations

import csv
import doctest
import importlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from material.sides import side_of
from suite import build, selection
from suite.collectors.picture import Picture
from suite.near_duplicates import Closeness, clusters_of, kept_on_one_side, near_pairs, perceptual_hash
from suite.neighbours import grey_pixels, nearest_neighbour_accuracy, share_with_a_twin
from suite.selection import select_parts
from suite.writing import read_description, write_task

TASKS = Path(__file__).resolve().parents[2] / ".build-data" / "suite" / "tasks"


def smooth_image(seed: int, side: int = 48) -> np.ndarray:
    """A random picture with large shapes, as perceptual hashes are made for."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def bits_apart(one: np.ndarray, other: np.ndarray) -> int:
    hashes = perceptual_hash(np.stack([one, other]))
    return int(np.bitwise_count(hashes[0] ^ hashes[1]).sum())


def test_the_hash_survives_noise_and_tone_and_tells_pictures_apart() -> None:
    image = smooth_image(0)
    noisy = np.clip(image + np.random.default_rng(1).normal(0, 2, image.shape), 0, 255).astype(np.uint8)
    assert bits_apart(image, noisy) <= 4
    assert bits_apart(image, (image * 0.7 + 30).astype(np.uint8)) <= 4
    assert min(bits_apart(image, smooth_image(seed)) for seed in range(1, 30)) > 8


def test_near_pairs_have_the_same_pixels_or_are_confirmed_by_both_backbones() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 16)).astype(np.float32)
    features[1] = features[0] + 0.01  # the same for both backbones
    features[3] = features[2] + 0.05 * rng.normal(size=16)
    other = rng.normal(size=(40, 8)).astype(np.float32)
    other[1] = other[0]
    images = np.stack([smooth_image(seed) for seed in range(40)])
    images[5] = 255 - images[4]  # another picture
    images[7] = images[6]  # equal pixels, whatever the backbones say
    pairs = near_pairs(grey_pixels(images), perceptual_hash(images), [features, other], Closeness())
    assert sorted(pairs.tolist()) == [[0, 1], [6, 7]]


def test_pairs_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(30, 3)).astype(np.float32) for _ in range(2)]
    images = np.stack([smooth_image(seed) for seed in range(30)])
    pixels, hashes = grey_pixels(images), perceptual_hash(images)
    loose = Closeness(pixels=0.4, bits=63, alike=0.3, same=0.5)
    whole = near_pairs(pixels, hashes, features, loose)
    monkeypatch.setattr("suite.near_duplicates.BLOCK", 7)
    cut = near_pairs(pixels, hashes, features, loose)
    assert len(whole) > 5
    assert {tuple(pair) for pair in whole.tolist()} == {tuple(pair) for pair in cut.tolist()}


def test_a_cluster_stays_on_the_side_where_it_has_most() -> None:
    clusters = clusters_of(np.array([[0, 1], [1, 2], [4, 5]]), 7)
    sides = np.array(["pool", "test", "pool", "source", "source", "test", "source"])
    kept = kept_on_one_side(clusters, sides)
    assert kept.tolist() == [True, False, True, True, False, True, True]  # of equal ones the test side


def groups_on(side: str, count: int) -> list[str]:
    return [name for name in (f"group {number}" for number in range(1000)) if side_of(name) == side][:count]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> selection.Parts:
    """Three classes, one of them too small for the test part; a picture of the test side is a copy of a pool's."""
    monkeypatch.setattr(selection, "LEAST", {"source": 2, "pool": 2, "test": 2})
    monkeypatch.setattr(selection, "MOST", {"source": 100, "pool": 12, "test": 100})
    monkeypatch.setattr(selection, "CONSIDERED", 100)
    monkeypatch.setattr(
        selection,
        "backbone_features",
        lambda images: [images.reshape(len(images), -1).astype(np.float32)[:, ::5] for _ in range(2)],
    )
    pictures = []
    for side, count in (("source", 6), ("pool", 20), ("test", 6)):
        for number, group in enumerate(groups_on(side, count)):
            for label in ("a", "b", "rare"):
                if label == "rare" and (side == "test" and number > 0):
                    continue
                seed = len(pictures) + 1
                pictures.append(Picture(smooth_image(seed), label, group, f"{side}/{label}/{number}"))
    copied = next(picture for picture in pictures if picture.origin == "pool/a/3")
    pictures.append(Picture(copied.pixels, "a", groups_on("test", 1)[0], "test/copy"))
    return select_parts({"task": pictures})["task"]


def test_no_group_and_no_near_duplicate_lies_on_two_sides(parts: selection.Parts) -> None:
    sides = {"source": parts.source, "pool": parts.pool, "test": parts.test}
    for side, pictures in sides.items():
        assert pictures
        assert {side_of(picture.group) for picture in pictures} == {side}
    assert parts.near_duplicates == 1
    pool, test = ({picture.pixels.tobytes() for picture in part} for part in (parts.pool, parts.test))
    assert not pool & test


def test_classes_are_those_of_pool_and_test_and_are_cut_to_one_size(parts: selection.Parts) -> None:
    counts = Counter(picture.label for picture in parts.pool)
    assert set(counts) == {"a", "b"} == {picture.label for picture in parts.test}
    assert {picture.label for picture in parts.source} == {"a", "b", "rare"}  # a source has classes of its own
    assert set(counts.values()) == {6}


def test_what_is_kept_depends_on_the_pictures_alone(parts: selection.Parts, tmp_path: Path) -> None:
    write_task(tmp_path / "one", parts, photographs=False)
    write_task(tmp_path / "two", parts, photographs=True)
    one, two = (read_description(tmp_path / name) for name in ("one", "two"))
    assert one == two is not None
    with (tmp_path / "one" / "target.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["split"] for row in rows) == {"train": len(parts.pool), "test": len(parts.test)}
    assert all((tmp_path / "one" / row["path"]).is_file() for row in rows)
    assert read_description(tmp_path / "three") is None


def test_nearest_neighbours_by_hand() -> None:
    flat, ramp = np.zeros((16, 16, 3), np.uint8), np.tile(np.arange(16, dtype=np.uint8)[:, None, None], (1, 16, 3))
    pool = [Picture(ramp, "down", "g", "1"), Picture(ramp[::-1], "up", "g", "2")]
    test = [Picture(3 * ramp + 7, "down", "h", "3"), Picture(ramp[::-1], "down", "h", "4")]
    assert nearest_neighbour_accuracy(pool, test) == 0.5
    assert nearest_neighbour_accuracy(pool, [Picture(flat, "up", "h", "5")]) in (0.0, 1.0)  # no correlation, no crash
    assert nearest_neighbour_accuracy([], test) is None
    assert share_with_a_twin(test, pool, correlation=0.99) == 1.0
    assert share_with_a_twin(pool, [Picture(ramp.transpose(1, 0, 2), "x", "i", "6")], correlation=0.99) == 0.0


@pytest.mark.skipif(not TASKS.exists(), reason="the suite is not built here")
def test_built_tasks_keep_groups_on_their_sides() -> None:
    sides: dict[str, set[str]] = {"source": set(), "pool": set(), "test": set()}
    for folder in sorted(TASKS.iterdir()):
        if read_description(folder) is None:
            continue
        for manifest, of_split in (
            ("source.csv", {"train": "source", "test": "source"}),
            ("target.csv", {"train": "pool", "test": "test"}),
        ):
            with (folder / manifest).open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    sides[of_split[row["split"]]].add(row["group"])
    assert all(sides.values())
    for side, groups in sides.items():
        assert {side_of(group) for group in groups} == {side}


def test_what_is_built_is_neither_fetched_nor_built_again(
    parts: selection.Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_task(tmp_path / "tasks" / "units", parts, photographs=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(build, "fetch", lambda data: pytest.fail("nothing is to be fetched"))
    found = build.build(tmp_path, ["units"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert build.differences(found, found) == []
    other = {"units": {**found["units"], "classes": 99}}
    assert build.differences(found, other) == ["units: other classes than in checksums.json"]
    assert build.differences(found, {}) == ["units: not described in checksums.json"]


def test_near_duplicates_are_looked_for_where_tasks_may_share_them() -> None:
    scopes = build.scopes(["lower-case", "greek", "ground", "mnist", "materials"])
    assert scopes == [["lower-case"], ["greek"], ["ground", "materials"], ["mnist"]]


@pytest.mark.parametrize(
    "module",
    [
        "material.sides",
        "suite.near_duplicates",
        "suite.selection",
        "suite.collectors.game_art",
        "suite.collectors.surfaces",
    ],
)
def test_examples_in_docstrings(module: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(module))
    assert (failed, attempted > 0) == (0, True)
