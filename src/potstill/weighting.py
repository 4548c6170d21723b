"""From similarity scores to source weights: a point on the simplex over sources."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from potstill.errors import WeightingError, unknown_name
from potstill.types import Ranking, SourceWeights

Scores = list[float]


@dataclass(frozen=True)
class SchemeOptions:
    """The numbers that schemes read; each scheme ignores those of the others."""

    power: float
    temperature: float
    top_k: int


def weigh(
    scores: Ranking | Mapping[str, float],
    *,
    scheme: str = "power",
    power: float = 6.0,
    temperature: float = 0.5,
    top_k: int = 3,
) -> SourceWeights:
    """Turn scores into source weights. A better score never gets less weight; equal scores get equal weights.

    The schemes, for scores e_s (higher is better) of S sources:

    - `nearest`: all weight on the best source (DistillNearest), shared by sources that tie exactly.
    - `equal`: 1 / S each (DistillEqual).
    - `power`: proportional to n(e_s)^power with n(e) = max(e, 0) / max_s e_s. A negative score means unrelated and
      weighs 0. power = 0 is `equal` over ALL sources; a large power approaches `nearest`. Needs a positive score, so
      it does not suit metrics in log units (leep, nce, logme). n keeps ratios of scores, so weights do not change
      when all scores are multiplied by a number.
    - `softmax`: proportional to exp(e_s / (temperature * sd)) with sd the standard deviation of the scores. It
      depends neither on the scale nor on the zero of a metric, so it suits every metric, negative scores included.
    - `top-k`: 1 / k for each of the k best, whatever their sign. Sources that tie for the last places share them.
      With fewer than k sources it is `equal`.

    Args:
        scores: a `Ranking`, of which sources without a score (failed ones) are left out, or name -> score.
        scheme: a key of `SCHEMES`.
        power: p >= 0, read by `power`.
        temperature: > 0, read by `softmax`, in standard deviations.
        top_k: k >= 1, read by `top-k`.

    Returns:
        `SourceWeights` over all sources that have a score, in the order of `scores`; some may be 0.

    Raises:
        UnknownNameError: no such scheme.
        WeightingError: no scores, a score that is NaN or infinite, an option out of range, or no positive score where
            the scheme needs one.

    Reference: Borup, Phoo, Hariharan, "Distilling from Similar Tasks for Transfer Learning on a Budget", ICCV 2023,
    arXiv 2304.12314. The defaults of the options are ours.

    >>> weigh({"birds": 0.4, "cars": 0.2, "noise": -0.1}, power=2).values
    {'birds': 0.8, 'cars': 0.2, 'noise': 0.0}
    """
    if scheme not in SCHEMES:
        raise unknown_name("scheme", scheme, SCHEMES)
    options = SchemeOptions(power, temperature, top_k)
    _check_options(options)
    by_name = scores.scores() if isinstance(scores, Ranking) else dict(scores)
    if not by_name:
        raise WeightingError("No source has a score to weigh; see the errors in the ranking.")
    values = [float(score) for score in by_name.values()]
    broken = [name for name, value in zip(by_name, values, strict=True) if not math.isfinite(value)]
    if broken:
        raise WeightingError(
            f"Scores must be finite numbers, but {', '.join(f'{name} has {by_name[name]}' for name in broken)}; "
            "leave such sources out."
        )
    shares = SCHEMES[scheme](values, options)
    total = math.fsum(shares)
    return SourceWeights(scheme, {name: share / total for name, share in zip(by_name, shares, strict=True)})


def drop_weak(weights: SourceWeights, *, minimum: float) -> SourceWeights:
    """Give weight 0 to sources with less than `minimum` times the largest weight, and their share to the others.

    A source costs a head and a loss in every training step, whatever its weight. The limit is relative to the
    largest weight, not to their sum, so that equal sources are all kept however many there are.

    Args:
        weights: of all sources.
        minimum: share of the largest weight, in [0, 1]; a source with exactly so much is kept, 0 changes nothing.

    Returns:
        `SourceWeights` over the same sources, with sum 1; the largest weight is never dropped.

    Raises:
        WeightingError: `minimum` is out of range.

    >>> drop_weak(SourceWeights("power", {"a": 0.8, "b": 0.199, "c": 0.001}), minimum=0.01).values["c"]
    0.0
    """
    if not 0 <= minimum <= 1:
        raise WeightingError(f"min_weight must be a share of the largest weight between 0 and 1, got {minimum}.")
    least = minimum * max(weights.values.values())
    kept = {name: weight if weight >= least else 0.0 for name, weight in weights.values.items()}
    total = math.fsum(kept.values())
    return SourceWeights(weights.scheme, {name: weight / total for name, weight in kept.items()})


def _check_options(options: SchemeOptions) -> None:
    if not 0 <= options.power < math.inf:
        raise WeightingError(f"power must be a finite number >= 0, got {options.power}; for all weight use 'nearest'.")
    if not 0 < options.temperature < math.inf:
        raise WeightingError(f"temperature must be a finite number > 0, got {options.temperature}.")
    if options.top_k < 1:
        raise WeightingError(f"top_k must be at least 1, got {options.top_k}.")


def _nearest(scores: Scores, options: SchemeOptions) -> Scores:
    return _shares_of_best(scores, 1)


def _equal(scores: Scores, options: SchemeOptions) -> Scores:
    return [1.0] * len(scores)


def _power(scores: Scores, options: SchemeOptions) -> Scores:
    if options.power == 0:
        return _equal(scores, options)
    best = max(scores)
    if best <= 0:
        raise WeightingError(
            f"The 'power' scheme needs a positive score, but the best is {best:.4g}: either the metric is negative by "
            "nature (leep, nce, often logme) or no source is related. "
            "Use scheme 'softmax', 'top-k', 'nearest' or 'equal'."
        )
    return [(max(score, 0.0) / best) ** options.power for score in scores]


def _softmax(scores: Scores, options: SchemeOptions) -> Scores:
    best, mean = max(scores), math.fsum(scores) / len(scores)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores))
    # Equal scores can have a deviation at rounding level, and then equal weights are right.
    if deviation <= 1e-12 * max(abs(score) for score in scores):
        return _equal(scores, options)
    return [math.exp((score - best) / deviation / options.temperature) for score in scores]


def _top_k(scores: Scores, options: SchemeOptions) -> Scores:
    return _shares_of_best(scores, min(options.top_k, len(scores)))


def _shares_of_best(scores: Scores, places: int) -> Scores:
    """1 for scores above the last place, and an equal part of the places left for those that tie with it."""
    last = sorted(scores, reverse=True)[places - 1]
    better = sum(score > last for score in scores)
    share = (places - better) / scores.count(last)
    return [1.0 if score > last else share if score == last else 0.0 for score in scores]


SCHEMES: dict[str, Callable[[Scores, SchemeOptions], Scores]] = {
    "nearest": _nearest,
    "equal": _equal,
    "power": _power,
    "softmax": _softmax,
    "top-k": _top_k,
}
