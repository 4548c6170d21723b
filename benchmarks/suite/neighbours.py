"""How far raw pixels alone go: the nearest training image, with every label known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from suite.collectors.picture import Picture

SIDE = 16


def nearest_neighbour_accuracy(pool: Sequence[Picture], test: Sequence[Picture]) -> float | None:
    """Share of test images whose nearest pool image is of their class; None without images. Rounded to 3 digits.

    Images are reduced to 16 x 16 and compared by the correlation of their colours.
    """
    if not pool or not test:
        return None
    nearest = (_standardised(_stacked(test)) @ _standardised(_stacked(pool)).T).argmax(axis=1)
    return round(
        float(np.mean([picture.label == pool[row].label for picture, row in zip(test, nearest, strict=True)])), 3
    )


def grey_pixels(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Grey images of 16 x 16 `(N, 256)`, mean 0 and length 1: the scalar product of two is their correlation."""
    return _standardised(images.mean(axis=3, keepdims=True))


def share_with_a_twin(some: Sequence[Picture], others: Sequence[Picture], *, correlation: float) -> float | None:
    """Share of images that another part has nearly, by the correlation of colours at 16 x 16; None without images.

    The mean of every colour is taken out first: two plain textures of one tone are not the same.
    """
    if not some or not others:
        return None
    parts = [
        _standardised(images - images.mean(axis=(1, 2), keepdims=True)) for images in map(_stacked, (some, others))
    ]
    best = (parts[0] @ parts[1].T).max(axis=1)
    return round(float((best >= correlation).mean()), 4)


def _stacked(pictures: Sequence[Picture]) -> npt.NDArray[np.uint8]:
    return np.stack([picture.pixels for picture in pictures])


def _standardised(images: npt.NDArray[np.number]) -> npt.NDArray[np.float32]:
    count, side, _, channels = images.shape
    factor = side // SIDE
    small = images.astype(np.float32).reshape(count, SIDE, factor, SIDE, factor, channels).mean(axis=(2, 4))
    rows = small.reshape(count, -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), dtype=np.float32)
