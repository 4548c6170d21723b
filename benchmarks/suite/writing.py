"""A task on disk: images with `target.csv`, the manifest of the target, and `source.csv`, that of its source.

`description.json` holds counts and checksums and is written last.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from suite.collectors.picture import Picture
from suite.neighbours import nearest_neighbour_accuracy, share_with_a_twin
from suite.selection import SIDES, Parts, is_held_out

DESCRIPTION = "description.json"
JPEG_QUALITY = 92
TWIN = 0.99  # correlation of colours from which a test image counts as a residual near-duplicate


def write_task(folder: Path, parts: Parts, *, photographs: bool) -> None:
    """Write a task's folder; it appears only when it is complete."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.mkdir(parents=True)
    suffix = "jpg" if photographs else "png"
    pool = [("train", picture) for picture in parts.pool]
    _write_manifest(unfinished / "target.csv", [*pool, *(("test", picture) for picture in parts.test)], suffix)
    source = [("test" if is_held_out(picture.group) else "train", picture) for picture in parts.source]
    _write_manifest(unfinished / "source.csv", source, suffix)
    (unfinished / DESCRIPTION).write_text(json.dumps(_describe(parts), indent=1) + "\n", encoding="utf-8")
    unfinished.rename(folder)


def read_description(folder: Path) -> dict[str, Any] | None:
    """What `write_task` says of a complete task, None where there is none."""
    path = folder / DESCRIPTION
    description: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return description


def described(folder: Path) -> dict[str, Any]:
    """`read_description` of a task that must be there."""
    description = read_description(folder)
    if description is None:
        raise FileNotFoundError(f"there is no complete task in {folder}")
    return description


def _describe(parts: Parts) -> dict[str, Any]:
    by_side = {"source": parts.source, "pool": parts.pool, "test": parts.test}
    return {
        "classes": len({picture.label for picture in parts.pool}),
        "images": {side: len(by_side[side]) for side in SIDES},
        "groups": {side: len({picture.group for picture in by_side[side]}) for side in SIDES},
        "smallest_class": {
            side: min(Counter(picture.label for picture in by_side[side]).values(), default=0) for side in SIDES
        },
        "source_classes": len({picture.label for picture in parts.source}),
        "near_duplicates": parts.near_duplicates,
        "residual": {
            side: share_with_a_twin(parts.test, by_side[side], correlation=TWIN) for side in ("source", "pool")
        },
        "nearest_neighbour": nearest_neighbour_accuracy(parts.pool, parts.test),
        "sha256": {side: _digest(by_side[side]) for side in SIDES},
    }


def _digest(pictures: tuple[Picture, ...]) -> str:
    """Of pixels, labels and groups in their order, before images are encoded."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.origin}\0{picture.label}\0{picture.group}\0".encode())
        digest.update(picture.pixels.tobytes())
    return digest.hexdigest()


def _write_manifest(path: Path, pictures: list[tuple[str, Picture]], suffix: str) -> None:
    """The manifest and, in a folder of its name, the images."""
    folder = path.with_suffix("")
    folder.mkdir()
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("path", "label", "split", "group"))
        for number, (split, picture) in enumerate(pictures):
            name = f"{folder.name}/{split}-{number:05d}.{suffix}"
            _write_image(path.parent / name, picture)
            rows.writerow((name, picture.label, split, picture.group))


def _write_image(path: Path, picture: Picture) -> None:
    image = Image.fromarray(picture.pixels)
    if path.suffix == ".jpg":
        image.save(path, quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(path)
