"""Pure draws over images: which of them are held out, keep their label, or share a fold.

Every draw sorts images by a hash of (purpose, seed, image id), so it depends on neither the order of the files nor the
machine. A unit is a set of images that must stay on one side: those of one group, and exact copies.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from potstill.data.hashing import order_key
from potstill.errors import UsageError


def join_units(image_ids: Iterable[str], groups: Mapping[str, str], digests: Mapping[str, str]) -> dict[str, str]:
    """Map every image to its unit, named by the smallest image id in it.

    Images of the same group or with the same content share a unit, directly or through others.

    >>> join_units(["a", "b", "c"], {"b": "g", "c": "g"}, {})
    {'a': 'a', 'b': 'b', 'c': 'b'}
    """
    leader: dict[str, str] = {}

    def find(image_id: str) -> str:
        while leader[image_id] != image_id:
            leader[image_id] = image_id = leader[leader[image_id]]
        return image_id

    first: dict[tuple[str, str], str] = {}
    ordered = sorted(image_ids)
    for image_id in ordered:
        leader[image_id] = image_id
        for kind, known in (("group", groups), ("content", digests)):
            if image_id in known:
                other = find(first.setdefault((kind, known[image_id]), image_id))
                here = find(image_id)
                leader[max(here, other)] = min(here, other)
    return {image_id: find(image_id) for image_id in ordered}


@dataclass(frozen=True)
class Unit:
    """Images that stay together, their number by class, and the position of the unit in the draw."""

    image_ids: tuple[str, ...]
    counts: Counter[int]
    key: int


def labeled_units(labels: Mapping[str, int], unit_of: Mapping[str, str], purpose: str, seed: int) -> list[Unit]:
    """The units of labeled images in drawn order."""
    members: defaultdict[str, list[str]] = defaultdict(list)
    for image_id in sorted(labels):
        members[unit_of.get(image_id, image_id)].append(image_id)
    units = [
        Unit(tuple(ids), Counter(labels[image_id] for image_id in ids), order_key(purpose, seed, name))
        for name, ids in members.items()
    ]
    return sorted(units, key=lambda unit: (unit.key, unit.image_ids))


def draw_part(
    labels: Mapping[str, int], unit_of: Mapping[str, str], *, fraction: float, purpose: str, seed: int
) -> frozenset[str]:
    """Draw about `fraction` of every class, in whole units, leaving at least one image of every class behind.

    labels: image id -> class id. unit_of: image id -> unit, as from `join_units`.

    Without units of several images the draw is exact: the nearest whole number of images of each class, at least one
    where a class has two. Units win over stratification: one is taken when it fits into what its classes still need,
    then when it brings the draw nearer to it.
    """
    totals = Counter(labels.values())
    need = {c: min(max(1, math.floor(fraction * n + 0.5)), n - 1) if fraction > 0 else 0 for c, n in totals.items()}
    remaining = Counter(totals)
    taken: list[str] = []
    waiting = labeled_units(labels, unit_of, purpose, seed)
    for must_fit in (True, False):
        left = []
        for unit in waiting:
            fits = all(need[c] >= n for c, n in unit.counts.items())
            nearer = sum(abs(need[c] - n) - abs(need[c]) for c, n in unit.counts.items()) < 0
            leaves_some = all(remaining[c] > n for c, n in unit.counts.items())
            if leaves_some and (fits if must_fit else nearer):
                taken += unit.image_ids
                for c, n in unit.counts.items():
                    need[c] -= n
                remaining.subtract(unit.counts)
            else:
                left.append(unit)
        waiting = left
    return frozenset(taken)


def choose_labeled(
    labels: Mapping[str, int], *, seed: int, label_fraction: float | None = None, labels_per_class: int | None = None
) -> frozenset[str]:
    """The images whose labels stay visible; all of them when neither number is given.

    label_fraction: in (0, 1], of every class, rounded up. labels_per_class: at least 1; a smaller class keeps all. With
    the same seed a smaller number chooses a subset. Raises UsageError for both numbers at once or one out of range.
    """
    _check_label_numbers(label_fraction, labels_per_class)
    members: defaultdict[int, list[str]] = defaultdict(list)
    for image_id in sorted(labels, key=lambda image_id: (order_key("labels", seed, image_id), image_id)):
        members[labels[image_id]].append(image_id)
    chosen: set[str] = set()
    for ids in members.values():
        if labels_per_class is not None:
            keep = labels_per_class
        elif label_fraction is not None:
            keep = math.ceil(label_fraction * len(ids) - 1e-9)  # 0.1 * 30 is a little more than 3
        else:
            keep = len(ids)
        chosen.update(ids[: max(1, keep)])
    return frozenset(chosen)


def _check_label_numbers(label_fraction: float | None, labels_per_class: int | None) -> None:
    if label_fraction is not None and labels_per_class is not None:
        raise UsageError("label_fraction and labels_per_class exclude each other; give one of them.")
    if label_fraction is not None and not 0 < label_fraction <= 1:
        raise UsageError(f"label_fraction must be greater than 0 and at most 1, got {label_fraction}.")
    if labels_per_class is not None and labels_per_class < 1:
        raise UsageError(f"labels_per_class must be at least 1, got {labels_per_class}.")


def assign_folds(labels: Mapping[str, int], units: Sequence[Unit], folds: int) -> list[frozenset[str]]:
    """Spread the units over folds so that every class is as even as units allow; large units first."""
    totals = Counter(labels.values())
    counts: list[Counter[int]] = [Counter() for _ in range(folds)]
    members: list[list[Unit]] = [[] for _ in range(folds)]
    for unit in sorted(units, key=lambda unit: -len(unit.image_ids)):  # stable: equal sizes stay in drawn order
        load = [sum(n * counts[f][c] / totals[c] for c, n in unit.counts.items()) for f in range(folds)]
        best = min(range(folds), key=lambda f: (load[f], counts[f].total(), f))
        counts[best].update(unit.counts)
        members[best].append(unit)
    parts = []
    for fold in members:
        remaining, part = Counter(totals), set[str]()
        for unit in fold:
            if all(remaining[c] > n for c, n in unit.counts.items()):
                remaining.subtract(unit.counts)
                part.update(unit.image_ids)
        parts.append(frozenset(part))
    return parts
