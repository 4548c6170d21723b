"""A *part* is one data set of the mini zoo: small pictures with labels and groups, in one compressed file.

Every group has a side, and the rule is the same for all data of the project: sources train on the source side only
and report their accuracy on the test side; the pool side is left to the project's benchmarks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Side = Literal["source", "pool", "test"]
SIZE = 32  # pixels of a stored picture
GLYPH_BOX = 28  # pixels of the longer side of the ink


@dataclass(frozen=True)
class Part:
    """`images` uint8 `(N, 32, 32)` (ink on nothing) or `(N, 32, 32, 4)` (RGBA); `labels` `(N,)`; `groups` `(N,)`."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    classes: tuple[str, ...]

    def on_side(self, side: Side) -> Part:
        """The pictures whose group lies on that side."""
        keep = np.array([side_of(group) == side for group in self.groups])
        return Part(self.images[keep], self.labels[keep], self.groups[keep], self.classes)


def side_of(group: str) -> Side:
    """Side of a group: 40 % source, 30 % pool, 30 % test, by a hash of its name."""
    bucket = int(hashlib.blake2b(group.encode(), digest_size=8).hexdigest(), 16) % 10
    return "source" if bucket < 4 else "pool" if bucket < 7 else "test"


def fit_ink(ink: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """Crop to the ink, scale its longer side to 28 pixels, centre it in 32 x 32; None where there is no ink."""
    rows, columns = np.nonzero(ink.max(axis=1) > 40)[0], np.nonzero(ink.max(axis=0) > 40)[0]
    if len(rows) == 0 or len(columns) == 0:
        return None
    crop = Image.fromarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = GLYPH_BOX / max(crop.size)
    small = crop.resize((max(1, round(crop.width * scale)), max(1, round(crop.height * scale))), Image.Resampling.BOX)
    canvas = Image.new("L", (SIZE, SIZE))
    canvas.paste(small, ((SIZE - small.width) // 2, (SIZE - small.height) // 2))
    return np.asarray(canvas)


def fit_picture(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Scale the longer side of a picture to 32 pixels and centre it on a transparent square, uint8 `(32, 32, 4)`."""
    picture = picture.convert("RGBA")
    box = picture.getchannel("A").getbbox()
    picture = picture.crop(box) if box else picture
    picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    canvas = Image.new("RGBA", (SIZE, SIZE))
    canvas.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    return np.asarray(canvas)


def make_part(rows: list[tuple[npt.NDArray[np.uint8], int, str]], classes: tuple[str, ...]) -> Part:
    """Part from (image, label, group) rows. Of equal pictures one is kept: that of the source side if there is one."""
    order = {"source": 0, "pool": 1, "test": 2}
    seen: set[bytes] = set()
    kept = []
    for image, label, group in sorted(rows, key=lambda row: (order[side_of(row[2])], row[2], row[1])):
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            kept.append((image, label, group))
    images, labels, groups = zip(*kept, strict=True)
    return Part(np.stack(images), np.array(labels, dtype=np.int64), np.array(groups), classes)


def save_part(part: Part, path: Path) -> None:
    """Write a part; the file appears only when it is complete."""
    unfinished = path.with_suffix(".unfinished.npz")
    np.savez_compressed(
        unfinished, images=part.images, labels=part.labels, groups=part.groups, classes=np.array(part.classes)
    )
    unfinished.replace(path)


def load_part(path: Path) -> Part:
    """Read what `save_part` wrote."""
    with np.load(path) as arrays:
        classes = tuple(str(name) for name in arrays["classes"])
        return Part(arrays["images"], arrays["labels"], arrays["groups"], classes)
