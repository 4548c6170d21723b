"""How far raw pixels alone go: the nearest training image, with every label known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from suite.collectors.picture import Picture

SIDE = 16


def nearest_neighbour_accuracy(pool: Sequence[Picture], test: Sequence[Picture]) -> float | None:
    """Share of test images whose nearest pool image is of their class; None without images. Rounded to 3 digits.

    Images are reduced to 16 x 16 and compared by correlation.
    """
    if not pool or not test:
        return None
    nearest = (standardised_pixels(test) @ standardised_pixels(pool).T).argmax(axis=1)
    return round(
        float(np.mean([picture.label == pool[row].label for picture, row in zip(test, nearest, strict=True)])), 3
    )


def standardised_pixels(pictures: Sequence[Picture]) -> npt.NDArray[np.float32]:
    """Rows of mean 0 and length 1 `(N, 768)`: the scalar product of two is their images' correlation."""
    images = np.stack([picture.pixels for picture in pictures]).astype(np.float32)
    factor = images.shape[1] // SIDE
    small = images.reshape(len(images), SIDE, factor, SIDE, factor, 3).mean(axis=(2, 4)).reshape(len(images), -1)
    small -= small.mean(axis=1, keepdims=True)
    return np.asarray(small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-9), dtype=np.float32)
