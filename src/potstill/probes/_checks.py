"""Inputs of probes: checked and cast in one place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from potstill.errors import DataError

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


def check_labeled(
    features: npt.ArrayLike, labels: npt.ArrayLike, num_classes: int, *, name: str = "features"
) -> tuple[Float64s, Int64s]:
    matrix, index = check_features(features, name=name), np.asarray(labels)
    if index.shape != (len(matrix),) or index.dtype.kind not in "iu":
        raise DataError(f"Expected {len(matrix)} integer labels, got {index.dtype} of shape {index.shape}.")
    low, high = index.min(), index.max()
    if num_classes < 2 or low < 0 or high >= num_classes:
        raise DataError(f"Expected at least 2 classes and labels in 0..{num_classes - 1}, got {low}..{high}.")
    return matrix, index.astype(np.int64)


def check_features(features: npt.ArrayLike, *, name: str = "features") -> Float64s:
    matrix = np.asarray(features, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise DataError(f"Expected {name} of shape (images, dimensions), both at least 1, got {matrix.shape}.")
    bad_rows = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad_rows):
        raise DataError(f"{len(bad_rows)} of {len(matrix)} rows of {name} are not finite, first row {bad_rows[0]}.")
    return matrix


def groups_of(groups: npt.ArrayLike | None, count: int) -> Int64s:
    """Group number of each image; without groups every image is its own."""
    array = np.arange(count) if groups is None else np.asarray(groups)
    if array.shape != (count,):
        raise DataError(f"Expected one group for each of {count} images, got shape {array.shape}.")
    return np.unique(array, return_inverse=True)[1].astype(np.int64)
