"""Open a target: find the images, read each once, fix the classes, and decide who is labeled, hidden, val and test."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from potstill.data.draws import choose_labeled, draw_part, join_units
from potstill.data.files import FileCheck, inspect_files, list_images
from potstill.data.layouts import FoundImage, Part, Scan, add_unlabeled, detect_layout, scan_folder
from potstill.data.manifest import MANIFEST_SUFFIXES, scan_manifest
from potstill.data.splits import redraw_labels
from potstill.data.wording import count_of, name_some, near_name
from potstill.errors import DataError, UsageError, unknown_name
from potstill.types import BadImage, Progress, Split, Target, no_progress

LAYOUTS = ("parts", "classes", "manifest")


def open_target(
    data: str | os.PathLike[str],
    *,
    layout: str | None = None,
    unlabeled: str | os.PathLike[str] | None = None,
    split_seed: int = 0,
    test_fraction: float = 0.3,
    label_fraction: float | None = None,
    labels_per_class: int | None = None,
    seed: int = 0,
    max_bad: float = 0.01,
    aliases: Mapping[str, str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int = 0,
    progress: Progress = no_progress,
) -> Target:
    """Open the images of a task.

    data: a folder `train/<class>/**` (with optional val/, test/, unlabeled/), a folder `<class>/**`, or a manifest
    `.csv`, `.parquet` or `.jsonl`. layout: "parts", "classes" or "manifest" instead of detecting it.
    unlabeled: a folder of further, unlabeled images. aliases: class name -> class name, joins names.

    Where the data has no test part, `test_fraction` (0..1) of the labeled images become one, as `split_seed` draws
    them; groups and exact copies stay on one side. `label_fraction` or `labels_per_class` hide training labels, as
    `seed` draws them. Images that cannot be read are listed in `Target.bad_images` and take part in nothing.

    The order of the class ids is that of the sorted class names of the training labels. `Target.notes` says in words
    what was detected, drawn and left out.

    cache_dir: remembers which files were read, so that the next call is fast. workers: threads that read files.

    Raises DataError if the data cannot be used: nothing found, fewer than two classes, a class of val or test that
    training lacks, a class without a readable image, or more than `max_bad` (0..1) of the images unreadable. Raises
    UsageError for arguments out of range.
    """
    _check_fractions(test_fraction, max_bad)
    choose_labeled({}, seed=seed, label_fraction=label_fraction, labels_per_class=labels_per_class)  # before slow work
    source = Path(data)
    scan = _scan(source, layout, None if unlabeled is None else Path(unlabeled))
    scan = _join_names(scan, aliases or {})
    classes = _fix_classes(scan, source)
    checks = inspect_files([i.path for i in scan.images], cache_dir=cache_dir, workers=workers, progress=progress)
    images, bad = _set_bad_aside(scan.images, checks, max_bad)
    _check_no_class_is_empty(classes, images, bad)

    digests = {image.image_id: checks[image.path].digest for image in images}
    given_test = any(image.part == "test" for image in images)
    images, split_notes = _hold_out_test(images, digests, fraction=test_fraction, split_seed=split_seed)
    class_ids = {name: class_id for class_id, name in enumerate(classes)}
    notes = [*scan.notes, *([f"unreadable, left out: {_reasons(bad)}"] if bad else []), *split_notes]
    target = Target(
        name=source.resolve().name if source.is_dir() else source.stem,
        root=scan.root,
        layout=scan.layout,
        classes=classes,
        files={image.image_id: image.path for image in images},
        digests={image.image_id: digests[image.image_id] for image in images},
        labels={i.image_id: class_ids[i.label] for i in images if i.label is not None},
        hidden_labels={},
        groups={image.image_id: image.group for image in images if image.group is not None},
        split=_split(images, split_seed, seed),
        bad_images=bad,
        notes=(*notes, *_copies_notes(images, digests), _sizes_note(images)),
        test_drawn=not given_test and any(image.part == "test" for image in images),
    )
    return redraw_labels(target, seed, label_fraction=label_fraction, labels_per_class=labels_per_class)


def _split(images: Sequence[FoundImage], split_seed: int, seed: int) -> Split:
    """All training labels visible."""
    ids = {part: tuple(sorted(i.image_id for i in images if i.part == part)) for part in get_args(Part)}
    return Split(
        labeled=ids["train"],
        unlabeled=ids["unlabeled"],
        val=ids["val"],
        test=ids["test"],
        split_seed=split_seed,
        seed=seed,
    )


def _sizes_note(images: Iterable[FoundImage]) -> str:
    sizes = Counter(image.part for image in images)
    return "images: " + ", ".join(f"{sizes[part]:,} {part}" for part in get_args(Part))


def _check_fractions(test_fraction: float, max_bad: float) -> None:
    if not 0 <= test_fraction < 1:
        raise UsageError(f"test_fraction must be at least 0 and less than 1, got {test_fraction}.")
    if not 0 <= max_bad <= 1:
        raise UsageError(f"max_bad is a share and must be from 0 to 1, got {max_bad}.")


def _scan(source: Path, layout: str | None, unlabeled: Path | None) -> Scan:
    """List the images by the layout that was asked for or that the data shows."""
    if layout is not None and layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if not source.exists():
        raise DataError(
            f"{source} does not exist. Expected a folder of images or a manifest ({', '.join(MANIFEST_SUFFIXES)})."
        )
    if source.is_dir():
        if layout == "manifest":
            raise UsageError(
                f"The layout 'manifest' needs a file ({', '.join(MANIFEST_SUFFIXES)}), but {source} is a folder."
            )
        return scan_folder(source, layout=layout or detect_layout(source, unlabeled=unlabeled), unlabeled=unlabeled)
    if layout not in (None, "manifest"):
        raise UsageError(f"The layout '{layout}' needs a folder, but {source} is a file.")
    if source.suffix.lower() not in MANIFEST_SUFFIXES:
        raise DataError(
            f"{source} is no folder and no manifest. Expected a folder of images or a file "
            f"{', '.join(MANIFEST_SUFFIXES)}."
        )
    scan = scan_manifest(source)
    return scan if unlabeled is None else add_unlabeled(scan, unlabeled)


def _join_names(scan: Scan, aliases: Mapping[str, str]) -> Scan:
    if not aliases:
        return scan
    found = {image.label for image in scan.images}
    unused = sorted(name for name in aliases if name not in found)
    notes = [f"aliases that match no class: {name_some(unused)}"] if unused else []
    images = tuple(
        image if image.label is None else replace(image, label=aliases.get(image.label, image.label))
        for image in scan.images
    )
    return replace(scan, images=images, notes=(*scan.notes, *notes))


def _fix_classes(scan: Scan, source: Path) -> tuple[str, ...]:
    """The sorted class names of the training labels; every label of val and test must be one of them."""
    if not scan.images:
        other = list_images(source).other if source.is_dir() else {}
        found = ", ".join(f"{number:,} {suffix}" for suffix, number in other.items()) or "no file at all"
        raise DataError(f"{source}: no image found in a place that is read ({found}). " + " ".join(scan.notes))
    classes = sorted({i.label for i in scan.images if i.part == "train" and i.label is not None})
    if not classes:
        raise DataError(f"{source}: no labeled training image. At least two classes need at least one each.")
    for part in ("val", "test"):
        for name in sorted({i.label for i in scan.images if i.part == part and i.label is not None} - set(classes)):
            near = near_name(name, classes)
            hint = f" Did you mean '{near}'?" if near else ""
            raise DataError(
                f"{source}: the {part} part has the class '{name}', which no training label has.{hint} Training "
                f"classes: {name_some(classes, limit=20)}. Rename it, or join the names with an alias, "
                f"{{'{name}': '{near or classes[0]}'}}."
            )
    if len(classes) == 1:
        raise DataError(
            f"{source}: only one class, '{classes[0]}'; a classifier needs at least two. " + "; ".join(scan.notes)
        )
    return tuple(classes)


def _set_bad_aside(
    images: Sequence[FoundImage], checks: Mapping[Path, FileCheck], max_bad: float
) -> tuple[list[FoundImage], tuple[BadImage, ...]]:
    bad = tuple(
        BadImage(image.image_id, reason)
        for image in sorted(images, key=lambda image: image.image_id)
        if (reason := checks[image.path].reason) is not None
    )
    if len(bad) > max_bad * len(images):
        raise DataError(
            f"{count_of(len(bad), 'image')} of {len(images):,} cannot be read, more than max_bad allows "
            f"({max_bad:.2%}): {_reasons(bad)}. Repair or remove them, or raise max_bad."
        )
    return [image for image in images if checks[image.path].reason is None], bad


def _reasons(bad: Sequence[BadImage]) -> str:
    shown = "; ".join(f"{image.image_id}: {image.reason}" for image in bad[:5])
    return f"{shown}; and {len(bad) - 5} more" if len(bad) > 5 else shown


def _check_no_class_is_empty(classes: Sequence[str], images: Iterable[FoundImage], bad: Sequence[BadImage]) -> None:
    left = {image.label for image in images if image.part == "train"}
    empty = [name for name in classes if name not in left]
    if empty:
        raise DataError(
            f"No training image of {name_some(empty)} can be read: {_reasons(bad)}. Repair them or remove the class."
        )


def _hold_out_test(
    images: list[FoundImage], digests: Mapping[str, str], *, fraction: float, split_seed: int
) -> tuple[list[FoundImage], list[str]]:
    """Move labeled training images to test where there is no test part; say in words what was done."""
    if any(image.part == "test" for image in images):
        return images, _straddling_note(images)
    if fraction == 0:
        return images, ["no test part, and none drawn (test_fraction 0)", *_straddling_note(images)]
    names = {i.image_id: i.label for i in images if i.part == "train" and i.label is not None}
    class_ids = {name: class_id for class_id, name in enumerate(sorted(set(names.values())))}
    labels = {image_id: class_ids[name] for image_id, name in names.items()}
    groups = {i.image_id: i.group for i in images if i.group is not None}
    unit_of = join_units((i.image_id for i in images if i.part in ("train", "unlabeled")), groups, digests)
    test = draw_part(labels, unit_of, fraction=fraction, purpose="test", seed=split_seed)
    if not test:
        raise DataError(
            "No test part can be drawn: every image (or group) is the only one of its class. Add images, give a test "
            "part, or set test_fraction to 0."
        )
    away = {unit_of[image_id] for image_id in test}
    moved: list[FoundImage] = []
    dropped = 0
    for image in images:
        if image.image_id in test:
            moved.append(replace(image, part="test"))
        elif image.part == "unlabeled" and unit_of[image.image_id] in away:
            dropped += 1
        else:
            moved.append(image)
    notes = [_drawn_note(names, test, fraction, split_seed)]
    if dropped:
        notes.append(
            f"{count_of(dropped, 'unlabeled image')} of the same group as, or equal to, a test image: left out"
        )
    return moved, [*notes, *_straddling_note(moved)]


def _drawn_note(names: Mapping[str, str], test: frozenset[str], fraction: float, split_seed: int) -> str:
    """How many test images were drawn, and the class that is farthest from its share if that is more than one image."""
    totals = Counter(names.values())
    drawn = Counter(names[image_id] for image_id in test)
    note = (
        f"no test part: {len(test):,} of {count_of(len(names), 'labeled image')} drawn as test "
        f"({len(test) / len(names):.1%}, asked {fraction:.1%}, split seed {split_seed})"
    )
    worst = max(sorted(totals), key=lambda name: abs(drawn[name] - fraction * totals[name]))
    if abs(drawn[worst] - fraction * totals[worst]) > 1:
        note += f"; groups win over shares: class '{worst}' has {drawn[worst]} of {totals[worst]} in test"
    return note


def _straddling_note(images: Iterable[FoundImage]) -> list[str]:
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for image in images:
        if image.group is not None:
            parts[image.group].add("train" if image.part == "unlabeled" else image.part)
    straddling = sorted(group for group, where in parts.items() if "test" in where and len(where) > 1)
    if not straddling:
        return []
    return [
        f"{count_of(len(straddling), 'group')} in test and in another part, so test figures may be too good: "
        f"{name_some(straddling)}"
    ]


def _copies_notes(images: Iterable[FoundImage], digests: Mapping[str, str]) -> list[str]:
    """Exact copies that matter: of test images elsewhere, and with two labels."""
    by_content: defaultdict[str, list[FoundImage]] = defaultdict(list)
    for image in images:
        by_content[digests[image.image_id]].append(image)
    copies = [same for same in by_content.values() if len(same) > 1]
    notes = []
    for part in ("train", "unlabeled", "val"):
        both = sum({"test", part} <= {image.part for image in same} for same in copies)
        if both:
            notes.append(
                f"{count_of(both, 'image')} of test also in {part} (exact copies), so test figures may be too good"
            )
    two_labels = sum(len({image.label for image in same if image.label is not None}) > 1 for same in copies)
    if two_labels:
        notes.append(f"{count_of(two_labels, 'image')} with exact copies under another label")
    return notes
