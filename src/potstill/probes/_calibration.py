"""Penalty and temperature of a probe, chosen by its predictions of held-out images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy.special import softmax

from potstill.probes._checks import Float64s, Int64s, check_features, check_labeled
from potstill.probes._ridge import Ridge

PENALTIES: tuple[float, ...] = tuple(10.0 ** (exponent / 4) for exponent in range(-10, 5))  # 0.003 to 10, four a decade
DEFAULT_PENALTY = 10.0**-0.5  # where labels are too few to choose
USUAL_TEMPERATURE = 0.15  # of ridge outputs, which lie about 0 to 1
ABSENT_LOGIT = -1e4  # of a class without a label: probability 0 at any sensible temperature, and finite in float16


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
    return _temperature(
        *check_labeled(logits, labels, check_features(logits, name="logits").shape[1], name="logits"), None
    )


def calibrate(ridge: Ridge, index: Int64s, members: Int64s, penalty: float | None) -> tuple[float, float, Float64s]:
    """Penalty (chosen, if None) and temperature by held-out predictions, and these predictions `(N, C)`."""
    judged = can_be_held_out(index, members)
    penalty = _choose_penalty(ridge, members, judged) if penalty is None else penalty
    held_out = ridge.targets + ridge.shares - ridge.held_out_residuals(penalty, members)
    seen = np.where(ridge.shares > 0, held_out, ABSENT_LOGIT)[judged]
    return penalty, _temperature(seen, index[judged], USUAL_TEMPERATURE), held_out


def can_be_held_out(index: Int64s, members: Int64s) -> npt.NDArray[np.bool_]:
    """Whether an image that is left out with its group leaves a label of its class behind, `(N,)`.

    Only such images say something about predictions of unseen ones. `index` and `members` `(N,)` are numbers of
    classes and of groups.
    """
    return np.asarray(np.bincount(index)[index] > _same_class_in_group(index, members))


def _choose_penalty(ridge: Ridge, members: Int64s, judged: npt.NDArray[np.bool_]) -> float:
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


def _same_class_in_group(index: Int64s, members: Int64s) -> Int64s:
    """For each image, the images of its class in its group, itself included."""
    _, pair, counts = np.unique(index + members * (index.max() + 1), return_inverse=True, return_counts=True)
    return np.asarray(counts[pair], dtype=np.int64)
