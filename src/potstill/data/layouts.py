"""The three ways in which image data comes: folders by part, folders by class, or a manifest.

A scan lists what is there and what the folder names say. It reads no image and decides no split.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from potstill.data.files import Listing, images_directly_in, list_folders, list_images
from potstill.data.wording import count_of, name_some, near_name
from potstill.errors import DataError

Part = Literal["train", "val", "test", "unlabeled"]

PART_NAMES: Mapping[str, Part] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "unlabeled": "unlabeled",
}


@dataclass(frozen=True)
class FoundImage:
    """One image file and what its place says. `label` and `group` are names, or None where there is none."""

    image_id: str
    path: Path
    part: Part
    label: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Scan:
    """All image files of the data, before any of them is read; `notes` say in words what was detected and left out."""

    root: Path
    layout: str
    images: tuple[FoundImage, ...]
    notes: tuple[str, ...]


def relative_id(path: Path, root: Path) -> str:
    """The image id: the POSIX path relative to the data folder. Images outside it get `../` in front.

    >>> relative_id(Path("data/train/cat/1.png"), Path("data"))
    'train/cat/1.png'
    """
    return Path(os.path.relpath(path, root)).as_posix()


def detect_layout(root: Path, *, unlabeled: Path | None = None) -> str:
    """Say whether a folder holds parts (`train/<class>/...`) or classes (`<class>/...`).

    `unlabeled`, where given, is a folder that is neither. Raises DataError where the names of the folders leave doubt.
    """
    names = [folder.name for folder in _folders_but(root, unlabeled)]
    if "train" in names:
        train = root / "train"
        loose = images_directly_in(train)
        if loose or not list_folders(train):
            raise DataError(
                f"{root}: expected only class folders in train/, found {count_of(len(loose), 'image')} directly in it "
                f"and {count_of(len(list_folders(train)), 'folder')}. Put every training image into train/<class>/, "
                "list the images in a manifest, or force the layout 'classes' if 'train' is the name of a class."
            )
        return "parts"
    doubtful = [name for name in names if name.lower() in PART_NAMES]
    if doubtful:
        raise DataError(
            f"{root}: there is no folder train/, but {name_some(doubtful)} is the name of a part, not of a class. "
            "Add train/<class>/ folders, give an unlabeled folder as such (--unlabeled), or force the layout 'classes' "
            "if these are class names."
        )
    return "classes"


def scan_folder(root: Path, *, layout: str, unlabeled: Path | None) -> Scan:
    """Scan a data folder of the layout "parts" or "classes", and a folder of unlabeled images where one is given.

    Images below `unlabeled` are unlabeled even if that folder lies inside the data folder.
    """
    scan = _scan_parts(root, skip=unlabeled) if layout == "parts" else _scan_classes(root, skip=unlabeled)
    return scan if unlabeled is None else add_unlabeled(scan, unlabeled)


def add_unlabeled(scan: Scan, folder: Path) -> Scan:
    """Add all images below a folder to a scan, as unlabeled ones. Raises DataError if there are none."""
    if not folder.is_dir():
        raise DataError(f"The folder of unlabeled images, {folder}, does not exist. Check the path given as unlabeled.")
    listing = list_images(folder)
    if not listing.images:
        raise DataError(
            f"The folder of unlabeled images, {folder}, holds no image file{_others(listing.other)}. "
            "Check the path given as unlabeled."
        )
    added = {
        image_id: FoundImage(image_id, path, "unlabeled")
        for path in listing.images
        for image_id in [relative_id(path, scan.root)]
    }
    kept = [image for image in scan.images if image.image_id not in added]
    name = folder.name
    note = f"unlabeled folder {name}/: {count_of(len(added), 'image')}{_others(listing.other)}"
    return Scan(scan.root, scan.layout, (*kept, *added.values()), (*scan.notes, note))


def _scan_parts(root: Path, *, skip: Path | None) -> Scan:
    part_folders = _part_folders(root, skip)
    images: list[FoundImage] = []
    notes = ["layout 'parts': " + ", ".join(f"{folder.name}/" for folder in part_folders.values())]
    other: Counter[str] = Counter()
    for part, folder in part_folders.items():
        listing = list_images(folder)
        other.update(listing.other)
        if part == "unlabeled":
            images += [FoundImage(relative_id(path, root), path, part) for path in listing.images]
        else:
            found, found_notes = _by_class(listing, folder, root, part)
            images += found
            notes += found_notes
    notes += _loose_note(root, "")
    return Scan(root, "parts", tuple(images), (*notes, *_other_note(other)))


def _folders_but(root: Path, skip: Path | None) -> list[Path]:
    return [folder for folder in list_folders(root) if skip is None or folder.resolve() != skip.resolve()]


def _part_folders(root: Path, skip: Path | None) -> dict[Part, Path]:
    """The part of every top folder. Raises DataError for a folder that is no part and for two folders of one part."""
    found: dict[Part, Path] = {}
    for folder in _folders_but(root, skip):
        part = PART_NAMES.get(folder.name)
        if part is None:
            near = near_name(folder.name, list(PART_NAMES))
            hint = f" Did you mean '{near}'?" if near else ""
            raise DataError(
                f"{root}: beside train/ expected only val/ (or valid/, validation/), test/ and unlabeled/, found "
                f"'{folder.name}/'.{hint} Rename it, move it, or give it as the unlabeled folder."
            )
        if part in found:
            raise DataError(f"{root}: '{found[part].name}/' and '{folder.name}/' are the same part; keep one of them.")
        found[part] = folder
    if "train" not in found:
        raise DataError(
            f"{root}: layout 'parts' expects a folder train/ with one folder for each class; there is none."
        )
    return found


def _scan_classes(root: Path, *, skip: Path | None) -> Scan:
    images: list[FoundImage] = []
    other: Counter[str] = Counter()
    empty: list[str] = []
    names: list[str] = []
    for folder in _folders_but(root, skip):
        listing = list_images(folder)
        other.update(listing.other)
        images += [FoundImage(relative_id(path, root), path, "train", folder.name) for path in listing.images]
        (names if listing.images else empty).append(folder.name)
    notes = [f"layout 'classes': every folder is a class, {count_of(len(names), 'class')}"]
    if empty:
        notes.append(f"folders without an image are no classes: {name_some(empty)}")
    if len(names) == 1 and len(list_folders(root / names[0])) > 1:
        notes.append(f"'{names[0]}/' is the only folder and holds folders itself: perhaps it is the data folder")
    return Scan(root, "classes", tuple(images), (*notes, *_loose_note(root, ""), *_other_note(other)))


def _by_class(listing: Listing, folder: Path, root: Path, part: Part) -> tuple[list[FoundImage], list[str]]:
    """The images of a part, labeled by the first folder below the part, and notes on what that leaves out."""
    images: list[FoundImage] = []
    for path in listing.images:
        inside = path.relative_to(folder).parts
        if len(inside) > 1:
            images.append(FoundImage(relative_id(path, root), path, part, inside[0]))
    used = {image.label for image in images}
    empty = [child.name for child in list_folders(folder) if child.name not in used]
    notes = [f"{folder.name}/: folders without an image are no classes: {name_some(empty)}"] if empty else []
    return images, [*notes, *_loose_note(folder, f"{folder.name}/")]


def _loose_note(folder: Path, name: str) -> list[str]:
    loose = len(images_directly_in(folder))
    where = f"directly in {name}" if name else "directly in the data folder"
    return [f"{count_of(loose, 'image')} {where}, in no class folder: left out"] if loose else []


def _other_note(other: Mapping[str, int]) -> list[str]:
    return [f"not images, ignored: {_counts(other)}"] if other else []


def _others(other: Mapping[str, int]) -> str:
    return f" (other files: {_counts(other)})" if other else ""


def _counts(other: Mapping[str, int]) -> str:
    return ", ".join(
        f"{number:,} {suffix}" for suffix, number in sorted(other.items(), key=lambda item: (-item[1], item[0]))
    )
