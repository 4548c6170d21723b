"""Figures of merit of predicted class probabilities. Pure numpy; every one is computed in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from potstill.errors import DataError
from potstill.types import Floats, Ints

# What `classification_metrics` returns, in this order.
METRICS = ("accuracy", "macro_f1", "balanced_accuracy", "ece", "nll")
ECE_BINS = 15
# The smallest probability that float32 tells from zero next to one; keeps -log finite for a confident mistake.
NLL_FLOOR = float(np.finfo(np.float32).eps)
_SUM_TOLERANCE = 1e-3


def classification_metrics(probs: Floats, labels: Ints) -> dict[str, float]:
    """How good the probabilities are: accuracy, macro_f1, balanced_accuracy, ece and nll, all finite.

    - `accuracy`: share of images whose most probable class is the label (the first class wins a tie). 0..1, higher is
      better.
    - `macro_f1`: F1 averaged over the classes **present in `labels`**; one that is never predicted
      counts 0. As `sklearn.metrics.f1_score(average="macro", labels=numpy.unique(labels), zero_division=0)`.
    - `balanced_accuracy`: recall averaged over the classes present in `labels`, as
      `sklearn.metrics.balanced_accuracy_score`.
    - `ece`: expected calibration error, 15 bins of equal width over the confidence (a bin holds its upper edge, the
      first also 0), mean of |accuracy - confidence| weighted by the images in the bin. 0..1, lower is better.
      Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    - `nll`: mean of -log(probability of the label) in nats, probabilities clipped from below at the float32 epsilon
      (1.19e-7), so at most 15.95. Lower is better.

    Args:
        probs: `(N, C)` floats in 0..1, rows sum to one (within 0.001).
        labels: `(N,)` integers in 0..C-1. Classes may be absent from it.

    Raises:
        DataError: shapes, ranges or row sums are not as above, or N is 0.

    >>> import numpy as np
    >>> figures = classification_metrics(np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]), np.array([0, 1, 1]))
    >>> round(figures["accuracy"], 4), round(figures["balanced_accuracy"], 4)
    (0.6667, 0.75)
    """
    probabilities, truth = _checked(probs, labels)
    counts = confusion_matrix(probabilities, truth)
    present = counts.sum(axis=1) > 0
    hits = np.diag(counts)[present]
    support = counts.sum(axis=1)[present]
    predicted = counts.sum(axis=0)[present]
    return {
        "accuracy": float(hits.sum() / len(truth)),
        "macro_f1": float(np.mean(2 * hits / (support + predicted))),
        "balanced_accuracy": float(np.mean(hits / support)),
        "ece": _calibration_error(probabilities, truth),
        "nll": float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], NLL_FLOOR)).mean()),
    }


def confusion_matrix(probs: Floats, labels: Ints) -> npt.NDArray[np.int64]:
    """How many images of each class (row) were taken for each class (column): int64 `(C, C)`, sums to N.

    Args and errors as in `classification_metrics`.

    >>> import numpy as np
    >>> confusion_matrix(np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]), np.array([0, 1, 1])).tolist()
    [[1, 0], [1, 1]]
    """
    probabilities, truth = _checked(probs, labels)
    classes = probabilities.shape[1]
    flat = truth * classes + probabilities.argmax(axis=1)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def per_class_recall(probs: Floats, labels: Ints) -> tuple[float | None, ...]:
    """Share of each class's images that were taken for it, in class order; None for a class without images.

    Args and errors as in `classification_metrics`.

    >>> import numpy as np
    >>> per_class_recall(np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]), np.array([0, 1, 1]))
    (1.0, 0.5)
    """
    counts = confusion_matrix(probs, labels)
    return tuple(float(row[index] / row.sum()) if row.sum() else None for index, row in enumerate(counts))


def _checked(probs: Floats, labels: Ints) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    probabilities = np.asarray(probs, dtype=np.float64)
    truth = np.asarray(labels)
    if probabilities.ndim != 2 or truth.ndim != 1 or len(probabilities) != len(truth) or len(truth) == 0:
        raise DataError(
            f"Expected probs of shape (N, C) and labels of shape (N,) with N > 0, got {probabilities.shape} and "
            f"{truth.shape}. Pass one row of probabilities and one label for each image."
        )
    if not np.issubdtype(truth.dtype, np.integer):
        raise DataError(f"Expected integer labels, got {truth.dtype}. Pass class ids, not names or probabilities.")
    classes = probabilities.shape[1]
    if truth.min() < 0 or truth.max() >= classes:
        raise DataError(
            f"Expected labels in 0..{classes - 1} for {classes} columns of probs, got {truth.min()}..{truth.max()}. "
            "Leave out images without a label, and use one class order for both."
        )
    # Written so that NaN fails too.
    good_rows = (np.abs(probabilities.sum(axis=1) - 1) <= _SUM_TOLERANCE) & (probabilities >= 0).all(axis=1)
    if not good_rows.all():
        row = int(np.argmin(good_rows))
        raise DataError(
            f"Expected probabilities that are not negative and sum to one in every row, but row {row} is "
            f"{np.array2string(probabilities[row], threshold=6, precision=4)}. Apply a softmax to logits first."
        )
    return probabilities, truth.astype(np.int64)


def _calibration_error(probs: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    confidence = np.minimum(probs.max(axis=1), 1.0)
    correct = (probs.argmax(axis=1) == labels).astype(np.float64)
    edges = np.linspace(0, 1, ECE_BINS + 1)
    bins = np.searchsorted(edges[1:-1], confidence, side="left")
    # |sum correct - sum confidence| of a bin is its size times |accuracy - confidence|.
    gaps = np.abs(np.bincount(bins, weights=correct - confidence, minlength=ECE_BINS))
    return float(gaps.sum() / len(labels))
