"""A *part* is one data set of the mini zoo: small pictures with labels and groups, in one compressed file.

Every group has a side, and the rule is the same for all data of the project: sources train on the source side only
and report their accuracy on the test side; the pool side is left to the project's benchmarks.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from material.sides import Side, side_of

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
