"""Probes: linear classifiers on frozen features, fitted in closed form and calibrated by leave-one-out predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg, optimize
from scipy.special import softmax

from potstill.errors import DataError
from potstill.types import Probe

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

PENALTIES: tuple[float, ...] = tuple(10.0 ** (exponent / 4) for exponent in range(-10, 5))  # 0.003 to 10, four a decade
DEFAULT_PENALTY = 10.0**-0.5  # where labels are too few to choose
USUAL_TEMPERATURE = 0.15  # of ridge outputs, which lie about 0 to 1
ABSENT_LOGIT = -1e4  # of a class without a label: probability 0 at any sensible temperature, and finite in float16


def fit_probe(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    num_classes: int,
    *,
    penalty: float | None = None,
    groups: npt.ArrayLike | None = None,
) -> Probe:
    """Fit a ridge classifier: least squares from centred features to one-hot labels, with an intercept.

    One global scale (features get mean squared length 1) makes the penalty mean the same for every source. Dimensions
    are deliberately not standardised one by one: with 1 to 20 labels a class that lost 3 to 14 points of accuracy on
    CNN features, since it blows up dimensions that hardly vary. Among `PENALTIES` the one with the least squared
    leave-one-out error is chosen; leave-one-out predictions are exact and free, from the hat matrix. They also give
    the temperature that is divided into the returned logits, so that `softmax(probe_logits(...))` is calibrated.

    Args:
        features: `(N, D)`, real; fewer images than dimensions is fine. One image a class is enough.
        labels: `(N,)`, integers in 0..C-1. A class may be absent; its logit is then -10,000.
        num_classes: C >= 2.
        penalty: L2 penalty > 0, in units of the mean squared length of the centred features; None to choose.
        groups: `(N,)`, any hashable values; images of one group (copies, the same object) are left out together.

    Returns:
        `Probe` on raw features: centring, scale and temperature are folded into its float64 coefficients.

    Cost: O(N D min(N, D)) for one eigendecomposition, then O(N min(N, D)) a penalty.

    Raises:
        DataError: shapes do not fit, values are not finite, labels out of range, or all rows of features are equal.

    Reference: Allen, "The relationship between variable selection and data augmentation and a method for prediction",
    Technometrics 1974 (leave-one-out residuals of ridge regression).

    >>> probe = fit_probe([[0.0, 1.0], [0.1, 0.8], [1.0, 0.0], [0.8, 0.3]], [0, 0, 1, 1], 2)
    >>> softmax(probe_logits(probe, [[0.1, 0.9], [0.9, 0.1]]), axis=1).round(2)
    array([[0.99, 0.01],
           [0.  , 1.  ]])
    """
    matrix, index = _check(features, labels, num_classes)
    if penalty is not None and not 0 < penalty < np.inf:
        raise DataError(f"A probe needs a penalty > 0, got {penalty}.")
    ridge = _decompose(matrix, index, num_classes)
    penalty, temperature, _ = _calibrate(ridge, index, _groups_of(groups, len(index)), penalty)
    coefficients, intercept = (part / temperature for part in ridge.solve(penalty))
    absent = ridge.shares == 0
    coefficients[:, absent], intercept[absent] = 0.0, ABSENT_LOGIT
    return Probe(coefficients, intercept, float(penalty))


def probe_logits(probe: Probe, features: npt.ArrayLike) -> Float64s:
    """Logits of a probe, `(N, C)` float64; calibrated, so their softmax gives probs.

    Args:
        probe: from `fit_probe`.
        features: `(N, D)`, as the probe was fitted on.

    Raises:
        DataError: other dimensions, or values that are not finite.

    >>> probe_logits(Probe(np.eye(2), np.array([0.0, 1.0]), 1.0), [[3.0, 4.0]])
    array([[3., 5.]])
    """
    matrix = _check_features(features)
    if matrix.shape[1] != len(probe.coefficients):
        raise DataError(f"The probe was fitted on {len(probe.coefficients)} dimensions, got {matrix.shape[1]}.")
    return np.asarray(matrix @ probe.coefficients + probe.intercept, dtype=np.float64)


def held_out_logits(features: npt.ArrayLike, labels: npt.ArrayLike, num_classes: int) -> Float64s:
    """Logits of every image by the probe of `fit_probe` fitted without it, in closed form.

    Penalty and temperature are chosen once, on these predictions. Arguments, errors and cost are as in `fit_probe`.

    Returns:
        `(N, C)` float64; their softmax is calibrated. A class without a label has logit -10,000.

    >>> held_out_logits([[0.0, 1.0], [0.1, 0.8], [1.0, 0.0], [0.8, 0.3]], [0, 0, 1, 1], 2).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    matrix, index = _check(features, labels, num_classes)
    ridge = _decompose(matrix, index, num_classes)
    _, temperature, held_out = _calibrate(ridge, index, np.arange(len(index)), penalty=None)
    return np.where(ridge.shares > 0, held_out / temperature, ABSENT_LOGIT)


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Temperature T that calibrates logits: softmax(logits / T) has the least cross-entropy.

    Args:
        logits: `(N, C)` of images that the classifier was NOT fitted on.
        labels: `(N,)`, integers in 0..C-1.

    Returns:
        T in [0.01, 100]; above 1 where the logits are too confident. The loss has one minimum.

    Cost: some 10 passes over the logits.

    Raises:
        DataError: shapes do not fit, values are not finite, or labels out of range.

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.

    >>> round(fit_temperature([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]], [0, 0, 0, 1]), 3)  # 2 / log 3
    1.82
    """
    return _temperature(*_check(logits, labels, _check_features(logits, name="logits").shape[1], name="logits"), None)


def out_of_fold_probs(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    num_classes: int,
    *,
    folds: int = 5,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Float64s:
    """Probs of every image by a probe that saw neither it nor its group: what stacking over sources needs.

    Args:
        features: `(N, D)`, real.
        labels: `(N,)`, integers in 0..C-1. An image whose class is in its own fold alone gets prob 0 for that class.
        num_classes: C >= 2.
        folds: number of folds, 2 to the number of groups (images, without groups). They are stratified by class.
        groups: `(N,)`; images of one group fall in one fold.
        seed: of the folds; the same for all sources, so that their rows can be stacked.

    Returns:
        `(N, C)` float64, rows summing to 1.

    Cost: `folds` times that of `fit_probe`.

    Raises:
        DataError: as `fit_probe`, or folds out of range.

    >>> out_of_fold_probs([[0.0, 1], [0.1, 0.8], [1, 0], [0.8, 0.3]], [0, 0, 1, 1], 2, folds=2).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    matrix, index = _check(features, labels, num_classes)
    members = _groups_of(groups, len(index))
    if not 2 <= folds <= members.max() + 1:
        raise DataError(f"folds must be from 2 to {members.max() + 1} (the number of groups), got {folds}.")
    fold_of = _assign_folds(index, members, num_classes, folds, seed)
    probs = np.zeros((len(index), num_classes))
    for rest in (fold_of != fold for fold in range(folds)):
        probe = fit_probe(matrix[rest], index[rest], num_classes, groups=members[rest])
        probs[~rest] = softmax(probe_logits(probe, matrix[~rest]), axis=1)
    return probs


@dataclass(frozen=True)
class _Ridge:
    """Ridge regression for every penalty at once, on centred, scaled features `centred` `(N, D)`.

    `projected` `(N, K)` are their principal components: orthogonal columns with squared lengths `eigenvalues` `(K,)`.
    `shares` `(C,)` and `targets` `(N, C)` are the means of the one-hot labels and the rest; `moments` are P' targets.
    """

    centred: Float64s
    projected: Float64s
    eigenvalues: Float64s
    mean: Float64s
    scale: float
    shares: Float64s
    targets: Float64s
    moments: Float64s

    def solve(self, penalty: float) -> tuple[Float64s, Float64s]:
        """Coefficients `(D, C)` and intercept `(C,)` on raw features; needs no D x K matrix of directions."""
        duals = self.projected @ (self._inner(penalty) / self.eigenvalues[:, None])
        coefficients = self.centred.T @ duals / self.scale
        return coefficients, self.shares - self.mean @ coefficients

    def held_out_residuals(self, penalty: float, members: Int64s) -> Float64s:
        """One-hot label less the prediction by the ridge fitted without the image's group, `(N, C)`, in closed form.

        The hat matrix is H = 1/N + P (P'P + penalty)^-1 P', the 1/N being the intercept. Without the rows g, residuals
        become (I - H_gg)^-1 times those of the full fit; for a single row that is a division by 1 - h.
        """
        residuals = self.targets - self.projected @ self._inner(penalty)
        hat = 1 / len(residuals) + self.projected**2 @ (1 / (self.eigenvalues + penalty))
        left_out = residuals / (1 - hat)[:, None]
        for group in np.flatnonzero(np.bincount(members) > 1):
            rows = np.flatnonzero(members == group)
            if len(rows) < len(members):  # else nothing is left to fit, and such rows are never judged
                shrunk = self.projected[rows] / (self.eigenvalues + penalty)
                block = np.eye(len(rows)) - 1 / len(residuals) - shrunk @ self.projected[rows].T
                left_out[rows] = np.linalg.solve(block, residuals[rows])
        return np.asarray(left_out, dtype=np.float64)

    def _inner(self, penalty: float) -> Float64s:
        return np.asarray(self.moments / (self.eigenvalues + penalty)[:, None], dtype=np.float64)


def _decompose(matrix: Float64s, index: Int64s, num_classes: int) -> _Ridge:
    """Eigendecomposition of the smaller Gram matrix of the centred, scaled features."""
    centred = matrix - matrix[0]  # exact zeros for a constant column, and it takes out the bulk of a mean far from zero
    shift = centred.mean(axis=0)
    centred -= shift
    scale = float(
        linalg.norm(centred.ravel(), check_finite=False) / np.sqrt(len(centred))
    )  # of the smallest numbers, too
    if scale == 0:
        raise DataError(f"All {len(matrix)} rows of features are equal; a probe needs features that differ.")
    centred /= scale
    wide = len(centred) <= centred.shape[1]
    eigenvalues, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    kept = eigenvalues > eigenvalues[-1] * len(eigenvalues) * np.finfo(np.float64).eps
    eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
    projected = vectors * np.sqrt(eigenvalues) if wide else centred @ vectors
    shares = np.bincount(index, minlength=num_classes) / len(index)
    targets = np.eye(num_classes)[index] - shares
    return _Ridge(centred, projected, eigenvalues, matrix[0] + shift, scale, shares, targets, projected.T @ targets)


def _calibrate(ridge: _Ridge, index: Int64s, members: Int64s, penalty: float | None) -> tuple[float, float, Float64s]:
    """Penalty (chosen, if None) and temperature by held-out predictions, and these predictions `(N, C)`."""
    # Only images that leave a label of their class behind say something about predictions of unseen images.
    judged = np.bincount(index)[index] > _same_class_in_group(index, members)
    penalty = _choose_penalty(ridge, members, judged) if penalty is None else penalty
    held_out = ridge.targets + ridge.shares - ridge.held_out_residuals(penalty, members)
    seen = np.where(ridge.shares > 0, held_out, ABSENT_LOGIT)[judged]
    return penalty, _temperature(seen, index[judged], USUAL_TEMPERATURE), held_out


def _choose_penalty(ridge: _Ridge, members: Int64s, judged: npt.NDArray[np.bool_]) -> float:
    """Penalty with the least squared error of held-out predictions; the larger of those equal up to rounding."""
    if not judged.any():
        return DEFAULT_PENALTY
    errors: list[float] = [np.square(ridge.held_out_residuals(at, members)[judged]).sum() for at in PENALTIES]
    return max(at for at, error in zip(PENALTIES, errors, strict=True) if error <= min(errors) * (1 + 1e-9))


def _temperature(logits: Float64s, index: Int64s, usual: float | None) -> float:
    """Temperature with the least cross-entropy; `usual` adds a log-normal prior worth a few images."""

    def slope(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        misfit = (scaled[np.arange(len(index)), index] - (softmax(scaled, axis=1) * scaled).sum(axis=1)).sum()
        # Standard deviation 0.5: the temperatures of 3 feature sets and 1 to 20 labels a class lay within twice that.
        return float(misfit if usual is None else misfit + 4 * (log_temperature - np.log(usual)))

    low, high = np.log(0.01), np.log(100)  # of the loss itself a search finds half the digits, by order of images
    if slope(low) >= 0 or slope(high) <= 0:
        return 0.01 if slope(low) >= 0 else 100.0
    return float(np.exp(optimize.brentq(slope, low, high, xtol=1e-13)))


def _assign_folds(index: Int64s, members: Int64s, num_classes: int, folds: int, seed: int) -> Int64s:
    """Fold of each image. Groups, large ones first, go where their classes (then: images) are fewest."""
    sizes = np.bincount(members)
    order = np.random.default_rng(seed).permutation(len(sizes))
    fold_of = np.zeros(len(index), dtype=np.int64)
    held = np.zeros((folds, num_classes))
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        here = np.bincount(index[members == group], minlength=num_classes)
        fold = min(range(folds), key=lambda fold: (held[fold] @ here, held[fold].sum(), fold))
        fold_of[members == group] = fold
        held[fold] += here
    return fold_of


def _same_class_in_group(index: Int64s, members: Int64s) -> Int64s:
    """For each image, the images of its class in its group, itself included."""
    _, pair, counts = np.unique(index + members * (index.max() + 1), return_inverse=True, return_counts=True)
    return np.asarray(counts[pair], dtype=np.int64)


def _groups_of(groups: npt.ArrayLike | None, count: int) -> Int64s:
    """Group number of each image; without groups every image is its own."""
    array = np.arange(count) if groups is None else np.asarray(groups)
    if array.shape != (count,):
        raise DataError(f"Expected one group for each of {count} images, got shape {array.shape}.")
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def _check(
    features: npt.ArrayLike, labels: npt.ArrayLike, num_classes: int, *, name: str = "features"
) -> tuple[Float64s, Int64s]:
    matrix, index = _check_features(features, name=name), np.asarray(labels)
    if index.shape != (len(matrix),) or index.dtype.kind not in "iu":
        raise DataError(f"Expected {len(matrix)} integer labels, got {index.dtype} of shape {index.shape}.")
    low, high = index.min(), index.max()
    if num_classes < 2 or low < 0 or high >= num_classes:
        raise DataError(f"Expected at least 2 classes and labels in 0..{num_classes - 1}, got {low}..{high}.")
    return matrix, index.astype(np.int64)


def _check_features(features: npt.ArrayLike, *, name: str = "features") -> Float64s:
    matrix = np.asarray(features, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise DataError(f"Expected {name} of shape (images, dimensions), both at least 1, got {matrix.shape}.")
    bad_rows = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad_rows):
        raise DataError(f"{len(bad_rows)} of {len(matrix)} rows of {name} are not finite, first row {bad_rows[0]}.")
    return matrix
