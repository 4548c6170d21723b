"""The target: its images, labels and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Split:
    """Which image belongs to which part. Image ids are POSIX paths relative to the data folder.

    `labeled` and `unlabeled` together are the pool; `test` is never read by ranking, selection or training.
    """

    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    split_seed: int
    seed: int

    @property
    def pool(self) -> tuple[str, ...]:
        """All training images, labeled first."""
        return self.labeled + self.unlabeled


@dataclass(frozen=True)
class BadImage:
    """An image file that cannot be read, and why. It takes part in nothing."""

    image_id: str
    reason: str


@dataclass(frozen=True)
class Target:
    """The task that the student must learn: readable images, their known labels and the split.

    `labels` holds the labels that the user lets us see: those of the labeled, val and test parts.
    `hidden_labels` holds the training labels that `label_fraction` or `labels_per_class` hid; only the `ceiling`
    baseline may read them.
    """

    name: str
    root: Path
    layout: str
    classes: tuple[str, ...]
    files: Mapping[str, Path]
    digests: Mapping[str, str]
    labels: Mapping[str, int]
    hidden_labels: Mapping[str, int]
    groups: Mapping[str, str]
    split: Split
    bad_images: tuple[BadImage, ...] = ()
    notes: tuple[str, ...] = ()
    test_drawn: bool = False
    """Whether the test part was drawn by us; False for one that came with the data."""

    def labels_of(self, image_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Known labels, int64 `(N,)`. Raises KeyError for an image whose label is absent or hidden."""
        return np.array([self.labels[image_id] for image_id in image_ids], dtype=np.int64)
