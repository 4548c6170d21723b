"""The one place where inputs of the metrics are checked and cast.

Every metric takes numpy arrays or torch tensors of any floating dtype on any device and works in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from potstill.errors import SimilarityError

if TYPE_CHECKING:
    import torch

    Array = npt.ArrayLike | torch.Tensor

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

_SHARED_DTYPES = ("torch.float16", "torch.float32", "torch.float64")  # those that numpy has too
ROW_SUM_TOLERANCE = 1e-2  # float16 probs over a thousand classes miss 1 by less; logits miss it by far

TargetForm = Literal["classes", "multi-label", "regression"]


@dataclass(frozen=True)
class Targets:
    """What a metric is to explain, in the form that dtype and shape of the labels decide."""

    form: TargetForm
    columns: Float64s
    """`(N, K)`: one-hot classes, 0/1 labels or real values."""
    index: Int64s
    """Class index of each image `(N,)`; empty unless the form is classes."""
    scale: float = 1.0
    """The power of two by which the values of a regression were multiplied to bring them into [-1, 1]."""


def check_features(
    features: Array, labels: Array, *, metric: str, min_images: int = 2, scaled: bool = True
) -> tuple[Float64s, Int64s, Int64s]:
    """Features as float64 `(N, D)`, scaled; class index of each row `(N,)`; images of each class `(C,)`.

    Most feature metrics ignore a common scale, so features are divided by a power of two (which is exact) that
    brings them into [-1, 1]: squares then neither overflow nor vanish. `scaled` False leaves them in their unit.
    """
    index, counts = check_labels(labels, metric=metric, min_images=min_images)
    matrix = check_matrix(features, len(index), metric=metric, name="features", scaled=scaled)
    return matrix, index, counts


def check_matrix(features: Array, num_images: int | None, *, metric: str, name: str, scaled: bool = True) -> Float64s:
    """Features alone: float64 `(N, D)`, scaled as in `check_features`, not all rows equal."""
    matrix, largest, smallest = _as_float64(features, metric=metric, name=name)
    if num_images is not None and len(matrix) != num_images:
        raise SimilarityError(f"{metric}: {len(matrix)} rows of {name} but {num_images} labels; give one row an image.")
    if not (largest > smallest).any():
        raise SimilarityError(f"{metric}: all {len(matrix)} rows of {name} are equal, so there is nothing to compare.")
    if scaled:
        matrix *= _unit_scale(largest, smallest)  # in place: it is our own copy
    return matrix


def check_probs(probs: Array, labels: Array, *, metric: str) -> tuple[Float64s, Int64s, Int64s]:
    """Probs as float64 `(N, Z)` whose rows sum to one exactly; class index `(N,)`; images of each class `(C,)`."""
    index, counts = check_labels(labels, metric=metric, min_images=2)
    matrix, _, _ = _as_float64(probs, metric=metric, name="probs")
    if len(matrix) != len(index):
        raise SimilarityError(f"{metric}: {len(matrix)} rows of probs but {len(index)} labels; give one row an image.")
    totals = matrix.sum(axis=1, keepdims=True)
    if matrix.min() < 0 or np.abs(totals - 1).max() > ROW_SUM_TOLERANCE:
        raise SimilarityError(
            f"{metric}: probs must be non-negative with rows that sum to 1, got values from {matrix.min():.4g} and row "
            f"sums from {totals.min():.4g} to {totals.max():.4g}; apply softmax to logits first."
        )
    return matrix / totals, index, counts


def check_labels(labels: Array, *, metric: str, min_images: int) -> tuple[Int64s, Int64s]:
    """Class index 0..C-1 of each image `(N,)` and images of each class `(C,)`, both int64; labels are any integers."""
    array = _to_numpy(labels)
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise SimilarityError(
            f"{metric}: labels must be integers of shape (N,), got dtype {array.dtype} and shape {array.shape}."
        )
    _check_enough(array, metric=metric, min_images=min_images)
    _, index, counts = np.unique(array, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise SimilarityError(f"{metric}: needs images of at least 2 classes, got {len(counts)}.")
    return index.astype(np.int64), counts.astype(np.int64)


def check_targets(labels: Array, *, metric: str, min_images: int) -> Targets:
    """Targets of the three forms: integers `(N,)` are classes, bool or 0/1 integers `(N, K)` are multi-label, and
    floating numbers `(N,)` or `(N, K)` are values of a regression.
    """
    array = _to_numpy(labels)
    if array.ndim == 1 and array.dtype.kind in "iub":
        index, counts = check_labels(array, metric=metric, min_images=min_images)
        return Targets("classes", np.eye(len(counts))[index], index)
    if array.ndim not in (1, 2) or 0 in array.shape or array.dtype.kind not in "fiub":
        raise SimilarityError(
            f"{metric}: labels must be integers (N,) for classes, bool or 0/1 integers (N, K) for multi-label, or "
            f"floating numbers (N,) or (N, K) for regression; got dtype {array.dtype} and shape {array.shape}."
        )
    _check_enough(array, metric=metric, min_images=min_images)
    columns, largest, smallest = _as_float64(array.reshape(len(array), -1), metric=metric, name="labels")
    form: TargetForm = "regression" if array.dtype.kind == "f" else "multi-label"
    if form == "multi-label" and not ((columns == 0) | (columns == 1)).all():
        raise SimilarityError(
            f"{metric}: multi-label columns must be 0 or 1, got integers from {smallest.min():.0f} to "
            f"{largest.max():.0f}; give classes as shape (N,), and values of a regression as floating numbers."
        )
    if not (largest > smallest).any():
        raise SimilarityError(f"{metric}: all {len(columns)} rows of labels are equal, so there is nothing to explain.")
    scale = _unit_scale(largest, smallest) if form == "regression" else 1.0
    return Targets(form, columns * scale, np.empty(0, dtype=np.int64), scale)


def _check_enough(labels: npt.NDArray[Any], *, metric: str, min_images: int) -> None:
    if len(labels) < min_images:
        raise SimilarityError(f"{metric}: needs at least {min_images} labeled images, got {len(labels)}.")


def finite_score(score: float, *, metric: str) -> float:
    """The score as a Python float; the last guard against NaN and infinity."""
    if not np.isfinite(score):
        raise SimilarityError(f"{metric}: the result is {score}, not a finite number; the features are degenerate.")
    return float(score)


def centre_columns(matrix: Float64s) -> Float64s:
    """Columns with mean zero; a constant column is exactly zero, not rounding noise."""
    centred = matrix - matrix[0]  # exact for a constant column, and it takes out the bulk of a mean far from zero
    centred -= centred.mean(axis=0)
    return np.asarray(centred, dtype=np.float64)


def class_sums(matrix: Float64s, index: Int64s, counts: Int64s) -> Float64s:
    """Sum of the rows of each class, `(C, D)`."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ordered = matrix[np.argsort(index, kind="stable")]
    return np.asarray(np.add.reduceat(ordered, starts, axis=0), dtype=np.float64)


def _unit_scale(largest: Float64s, smallest: Float64s) -> float:
    """The power of two that brings all values into [-1, 1], from the extremes of each column."""
    exponent = int(np.frexp(max(largest.max(), -smallest.min()))[1])
    return float(2.0 ** -min(max(exponent, -1000), 1000))


def _as_float64(values: Array, *, metric: str, name: str) -> tuple[Float64s, Float64s, Float64s]:
    """The values as our own finite float64 `(N, D)`, and the largest and the smallest value of each column `(D,)`."""
    array = _to_numpy(values)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiub":
        raise SimilarityError(
            f"{metric}: {name} must be real numbers of shape (images, dimensions), "
            f"got dtype {array.dtype} and shape {array.shape}."
        )
    matrix = array.astype(np.float64, order="C")
    largest, smallest = matrix.max(axis=0), matrix.min(axis=0)
    if not (np.isfinite(largest).all() and np.isfinite(smallest).all()):
        bad_rows = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        raise SimilarityError(
            f"{metric}: {name} hold NaN or infinity in {len(bad_rows)} of {len(matrix)} rows, first in row "
            f"{bad_rows[0]}; check the source's weights and preprocessing, or store {name} as float32."
        )
    return matrix, largest, smallest


def _to_numpy(values: Array) -> npt.NDArray[Any]:
    """A numpy view or copy. Torch tensors are recognised by their methods, so that torch need not be imported."""
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        if tensor.is_floating_point() and str(tensor.dtype) not in _SHARED_DTYPES:
            tensor = tensor.double()
        return np.asarray(tensor.numpy())
    return np.asarray(values)
