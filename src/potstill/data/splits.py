"""What becomes of a target's parts: other visible labels, folds, the scoring set; and the record of who is where."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from potstill.data.draws import assign_folds, choose_labeled, join_units, labeled_units
from potstill.data.hashing import order_key
from potstill.data.wording import count_of, name_some
from potstill.errors import UsageError
from potstill.files import write_bytes
from potstill.types import Split, Target

LABEL_NOTE = "labels: "


def label_notes(
    shown: Mapping[str, int], available: int, classes: Sequence[str], test_labels: Mapping[str, int]
) -> list[str]:
    """What a person should know about the visible labels; each note begins with `LABEL_NOTE`."""
    counts = Counter(shown.values())
    notes = [f"{LABEL_NOTE}{count_of(len(shown), 'training label')} visible of {available:,}"]
    single = [name for class_id, name in enumerate(classes) if counts[class_id] == 1]
    if single:
        notes.append(
            f"{LABEL_NOTE}{count_of(len(single), 'class')} with one labeled image, "
            f"expect little of them: {name_some(single)}"
        )
    tested = set(test_labels.values())
    untested = [name for class_id, name in enumerate(classes) if class_id not in tested]
    if untested and test_labels:
        notes.append(f"{LABEL_NOTE}{count_of(len(untested), 'class')} without a test image: {name_some(untested)}")
    return notes


def redraw_labels(
    target: Target, seed: int, *, label_fraction: float | None = None, labels_per_class: int | None = None
) -> Target:
    """The same pool, val and test part with other visible training labels, as `seed` draws them.

    Raises UsageError as `choose_labeled` does.
    """
    pool = target.split.pool
    known = {i: target.labels[i] for i in target.split.labeled}
    known |= {i: target.hidden_labels[i] for i in pool if i in target.hidden_labels}
    visible = choose_labeled(known, seed=seed, label_fraction=label_fraction, labels_per_class=labels_per_class)
    shown = {i: label for i, label in known.items() if i in visible}
    fixed = {i: target.labels[i] for part in (target.split.val, target.split.test) for i in part}
    test_labels = {i: target.labels[i] for i in target.split.test}
    notes = [note for note in target.notes if not note.startswith(LABEL_NOTE)]
    return replace(
        target,
        labels={**shown, **fixed},
        hidden_labels={i: label for i, label in known.items() if i not in visible},
        split=replace(
            target.split,
            labeled=tuple(sorted(shown)),
            unlabeled=tuple(sorted(i for i in pool if i not in visible)),
            seed=seed,
        ),
        notes=(*notes, *label_notes(shown, len(known), target.classes, test_labels)),
    )


def cross_validation_folds(target: Target, folds: int, seed: int) -> list[Target]:
    """Cut the labeled images into folds: targets whose test part is one fold and whose labeled part is the others.

    Stratified; units (groups, exact copies) stay whole. The images of a fold are in no other part of its target, nor
    are unlabeled images of the same unit; the original val and test images are in none. A unit stays in training where
    a class would lose its last labeled image, so a class with a single unit is never tested.

    Raises UsageError unless 2 <= folds <= number of units.
    """
    labels = {i: target.labels[i] for i in target.split.labeled}
    unit_of = join_units(target.split.pool, target.groups, target.digests)
    units = labeled_units(labels, unit_of, "folds", seed)
    if not 2 <= folds <= len(units):
        raise UsageError(f"folds must be from 2 to {len(units)} (groups of labeled images), got {folds}.")
    return [_fold_target(target, fold, unit_of) for fold in assign_folds(labels, units, folds)]


def _fold_target(target: Target, fold: frozenset[str], unit_of: Mapping[str, str]) -> Target:
    away = {unit_of[i] for i in fold}
    unlabeled = tuple(i for i in target.split.unlabeled if unit_of[i] not in away)
    split = Split(
        labeled=tuple(i for i in target.split.labeled if i not in fold),
        unlabeled=unlabeled,
        val=(),
        test=tuple(sorted(fold)),
        split_seed=target.split.split_seed,
        seed=target.split.seed,
    )
    return replace(
        target,
        labels={i: target.labels[i] for i in target.split.labeled},
        hidden_labels={i: target.hidden_labels[i] for i in unlabeled if i in target.hidden_labels},
        split=split,
    )


def scoring_ids(target: Target, limit: int = 500, seed: int = 0) -> tuple[str, ...]:
    """The scoring set: at most `limit` labeled training images, sorted by id.

    Stratified: two images of every class first, as far as the limit goes, then in proportion to the size of the class.
    Raises UsageError for a limit below 1.
    """
    if limit < 1:
        raise UsageError(f"The number of scoring images must be at least 1, got {limit}.")
    rank: Counter[int] = Counter()
    sizes = Counter(target.labels[i] for i in target.split.labeled)
    places: list[tuple[float, str]] = []
    drawn = sorted(target.split.labeled, key=lambda image_id: (order_key("scoring", seed, image_id), image_id))
    for image_id in drawn:
        label = target.labels[image_id]
        place = rank[label] - 2 if rank[label] < 2 else (rank[label] + 0.5) / sizes[label]
        rank[label] += 1
        places.append((place, image_id))
    places.sort(key=lambda pair: pair[0])  # stable: equal places stay in drawn order
    return tuple(sorted(image_id for _, image_id in places[:limit]))


def write_splits(target: Target, path: str | Path) -> None:
    """Write who is where: `image_id,split,label,group,labeled`, one row for each image of a part, sorted by id.

    split: train, val, test, or unlabeled for pool images that never had a label. label: the name of the class, hidden
    ones included (the file is the record of the split); labeled: 1 where a method may see the label, else 0.
    """
    write_bytes(Path(path), _split_table(target))


def split_digest(target: Target) -> str:
    """sha256 (hexadecimal) of what `write_splits` writes."""
    return hashlib.sha256(_split_table(target)).hexdigest()


def target_fingerprint(target: Target) -> str:
    """sha256 (hexadecimal) over ids and contents of the readable images: the same data however it is split."""
    digest = hashlib.sha256()
    for image_id in sorted(target.digests):
        digest.update(f"{image_id}\0{target.digests[image_id]}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _split_table(target: Target) -> bytes:
    rows = []
    for part, ids in (
        ("train", target.split.labeled),
        ("train", target.split.unlabeled),
        ("val", target.split.val),
        ("test", target.split.test),
    ):
        for image_id in ids:
            visible = target.labels.get(image_id)
            label = target.hidden_labels.get(image_id) if visible is None else visible
            name = "" if label is None else target.classes[label]
            split = "unlabeled" if label is None else part
            rows.append((image_id, split, name, target.groups.get(image_id, ""), int(visible is not None)))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("image_id", "split", "label", "group", "labeled"))
    writer.writerows(sorted(rows))
    return table.getvalue().encode("utf-8", "surrogateescape")
