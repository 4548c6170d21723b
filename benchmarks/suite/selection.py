"""From everything that was collected to what a task keeps: sides, near-duplicates, classes, sizes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from material.sides import Side, side_of
from suite.backbones import backbone_features
from suite.collectors.picture import Picture
from suite.near_duplicates import Closeness, clusters_of, kept_on_one_side, near_pairs, perceptual_hash
from suite.neighbours import grey_pixels

SIDES: tuple[Side, ...] = ("source", "pool", "test")
MOST = {"source": 3000, "pool": 1200, "test": 1000}  # images of a task
# Images of one group and class in pool and test: poses of a unit, pieces of a texture, faces of a family.
MOST_ALIKE = 4
LEAST = {"source": 10, "pool": 8, "test": 4}  # images of a class
CONSIDERED = 2.0  # times MOST: how many are looked at for near-duplicates


@dataclass(frozen=True)
class Parts:
    """What a task keeps, and how many images were dropped because they are nearly on another side, too.

    Classes of the source side are its own: a source may know more or fewer than the target has.
    """

    source: tuple[Picture, ...]
    pool: tuple[Picture, ...]
    test: tuple[Picture, ...]
    near_duplicates: int


def select_parts(collected: Mapping[str, Iterable[Picture]]) -> dict[str, Parts]:
    """The parts of every task; tasks that are given together share no near-duplicate between their sides."""
    considered = {name: _considered(pictures) for name, pictures in collected.items()}
    every = [picture for pictures in considered.values() for picture in pictures]
    keep = _without_near_duplicates(every)
    parts, start = {}, 0
    for name, pictures in considered.items():
        kept = [picture for picture, stays in zip(pictures, keep[start : start + len(pictures)], strict=True) if stays]
        start += len(pictures)
        by_side = {side: [picture for picture in kept if side_of(picture.group) == side] for side in SIDES}
        pool, test = _shared_classes(_few_alike(by_side["pool"]), _few_alike(by_side["test"]))
        parts[name] = Parts(
            source=_evenly(_learnable_classes(by_side["source"]), MOST["source"]),
            pool=_evenly(pool, MOST["pool"]),
            test=_evenly(test, MOST["test"]),
            near_duplicates=len(pictures) - len(kept),
        )
    return parts


def _considered(pictures: Iterable[Picture]) -> list[Picture]:
    """Exact copies once, sizes near those that are kept; in an order that depends on origins alone."""
    by_side: dict[Side, list[Picture]] = {side: [] for side in SIDES}
    seen: set[tuple[Side, bytes]] = set()
    for picture in sorted(pictures, key=lambda picture: picture.origin):
        side = side_of(picture.group)
        key = (side, picture.pixels.tobytes())
        if key not in seen:
            seen.add(key)
            by_side[side].append(picture)
    return [picture for side in SIDES for picture in _evenly(by_side[side], int(CONSIDERED * MOST[side]))]


def _without_near_duplicates(pictures: list[Picture]) -> np.ndarray:
    images = np.stack([picture.pixels for picture in pictures])
    pairs = near_pairs(grey_pixels(images), perceptual_hash(images), backbone_features(images), Closeness())
    sides = np.array([side_of(picture.group) for picture in pictures])
    return kept_on_one_side(clusters_of(pairs, len(pictures)), sides)


def _large_classes(pictures: list[Picture], least: int) -> list[Picture]:
    counts = Counter(picture.label for picture in pictures)
    return [picture for picture in pictures if counts[picture.label] >= least]


def is_held_out(group: str) -> bool:
    """Whether a source does not train on this group of its side, but is measured on it: one in ten.

    >>> [number for number in range(20) if is_held_out(f"group {number}")]
    [15]
    """
    return int(hashlib.blake2b(f"held out/{group}".encode(), digest_size=8).hexdigest(), 16) % 10 == 0


def _learnable_classes(pictures: list[Picture]) -> list[Picture]:
    """The pictures of classes that have enough of them besides those that are held out."""
    trained = Counter(picture.label for picture in pictures if not is_held_out(picture.group))
    return [picture for picture in pictures if trained[picture.label] >= LEAST["source"]]


def _shared_classes(pool: list[Picture], test: list[Picture]) -> tuple[list[Picture], list[Picture]]:
    """The pictures of classes that have enough of them in both."""
    large = [_large_classes(part, LEAST[side]) for part, side in ((pool, "pool"), (test, "test"))]
    classes = {picture.label for picture in large[0]} & {picture.label for picture in large[1]}
    return tuple([picture for picture in part if picture.label in classes] for part in large)  # type: ignore[return-value]


def _few_alike(pictures: list[Picture]) -> list[Picture]:
    """At most `MOST_ALIKE` of a group in each class: with more, unlabeled images are nearly the labeled ones."""
    taken: Counter[tuple[str, str]] = Counter()
    kept = []
    for picture in sorted(pictures, key=_shuffling):
        taken[picture.group, picture.label] += 1
        if taken[picture.group, picture.label] <= MOST_ALIKE:
            kept.append(picture)
    return kept


def _shuffling(picture: Picture) -> bytes:
    """A key that sorts pictures in an order that looks random and depends on nothing but their origin."""
    return hashlib.blake2b(picture.origin.encode()).digest()


def _evenly(pictures: list[Picture], most: int) -> tuple[Picture, ...]:
    """At most about `most` pictures: every class is cut to the same size, none that is smaller loses any."""
    sizes = Counter(picture.label for picture in pictures)
    quota = max(sizes.values(), default=0)
    while quota > 1 and sum(min(size, quota) for size in sizes.values()) > most:
        quota -= 1
    taken: Counter[str] = Counter()
    kept = []
    for picture in sorted(pictures, key=_shuffling):
        if taken[picture.label] < quota:
            taken[picture.label] += 1
            kept.append(picture)
    return tuple(sorted(kept, key=lambda picture: picture.origin))
