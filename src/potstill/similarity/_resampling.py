"""How sure is a score? Halves of the scoring set are compared with each other.

Images are drawn without replacement: in a plain bootstrap an image meets copies of itself, which pairwise metrics take
for perfect neighbours. Each draw cuts the scoring set into two disjoint halves, class by class. For independent images
the two halves are independent samples, and with U1, U2 their scores this holds for every statistic:

- the mean square of (U1 - U2) / 2 estimates half the variance of the score of n = N / 2 images;
- minus the covariance of U1 and U2 over draws estimates the variance of the score averaged over all halves.

A score whose variance falls with 1 / N (an accuracy, say) has the first as its own variance. An average over pairs of
images equals its average over halves, so that the second is exactly its variance, also on noise, where that falls with
1 / N^2 and the first is twice too large. `Metric.pairwise` says which of the two a metric is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from potstill.similarity._checks import Float64s, Int64s

FEWEST_IMAGES_TO_HALVE = 4  # in a class, so that both halves hold two

Halves = tuple[Int64s, Int64s]


@dataclass(frozen=True)
class HalfScores:
    """Scores of one source on both halves of every draw, `(draws,)` each; NaN where the metric was not defined."""

    first: Float64s
    second: Float64s


def draw_halves(index: Int64s, draws: int, *, seed: int) -> list[Halves]:
    """Row numbers of two disjoint halves of the scoring set, `draws` times, stratified by class.

    Empty where most images belong to classes with fewer than 4: halves would hold single images of them, on which
    pairwise metrics say nothing, and so nothing can be said about the uncertainty.
    """
    counts = np.bincount(index)
    if draws < 1 or counts[counts >= FEWEST_IMAGES_TO_HALVE].sum() < len(index) / 2:
        return []
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(index == label) for label in range(len(counts))]
    return [_one_draw(members, generator) for _ in range(draws)]


def _one_draw(members: Sequence[Int64s], generator: np.random.Generator) -> Halves:
    first, second = [], []
    for rows in members:
        shuffled = generator.permutation(rows)
        # Of an odd class one half gets an image more than the other; which one is drawn anew for every class.
        size = (len(rows) + int(generator.integers(2))) // 2
        first.append(shuffled[:size])
        second.append(shuffled[size:])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def variance_of(scores: HalfScores, *, images: int, images_in_half: float, pairwise: bool) -> float | None:
    """Variance of the score of the whole scoring set; None if the metric was undefined on most draws."""
    known = np.isfinite(scores.first) & np.isfinite(scores.second)
    if known.sum() < max(2, len(known) / 2):
        return None
    first, second = scores.first[known], scores.second[known]
    of_half = 2 * float(np.mean(((first - second) / 2) ** 2))
    share = images_in_half / images
    falling_with_images = of_half * share
    if not pairwise:
        return falling_with_images
    # Between the two cases of an average over pairs: variance falling with 1 / N, and with 1 / N^2 on noise.
    covariance = float(np.cov(first, second)[0, 1])
    return float(np.clip(-covariance, falling_with_images * share, falling_with_images))


def deviations_of(scores: HalfScores, variance: float) -> Float64s:
    """Draws of how far the score may be from its true value, with the given variance, `(2 draws,)`; NaN if undefined.

    The same draw of different sources is about the same images, so that differences between sources are paired.
    """
    half = (scores.first - scores.second) / 2
    scale = float(np.sqrt(np.nanmean(half**2)))
    half = half * (np.sqrt(variance) / scale if scale > 0 else 0.0)
    return np.concatenate([half, -half])


def rank_probabilities(scores: Mapping[str, float], deviations: Mapping[str, Float64s]) -> dict[str, Float64s] | None:
    """Probability of each rank for each source: name -> `(S,)`, summing to 1; ties share. None without deviations.

    A source that has a score but no deviations makes all ranks undecidable, since it could take any of them.
    """
    if not scores or any(name not in deviations for name in scores):
        return None
    table = np.stack([scores[name] + deviations[name] for name in scores])
    table = table[:, np.isfinite(table).all(axis=0)]
    if table.shape[1] == 0:
        return None
    count, draws = table.shape
    result = np.zeros((count, count))
    above = (table[None, :, :] > table[:, None, :]).sum(axis=1)  # (S, draws): sources that are better
    level = (table[None, :, :] == table[:, None, :]).sum(axis=1)  # with itself
    for rank in range(count):
        result[:, rank] = (((above <= rank) & (rank < above + level)) / level).sum(axis=1) / draws
    return dict(zip(scores, result, strict=True))


def tied_with_first(
    scores: Mapping[str, float], deviations: Mapping[str, Float64s], quantile: float
) -> tuple[str, ...]:
    """Sources whose paired difference to the best one has a 95 % interval that contains 0, best first."""
    best, *others = sorted(scores, key=lambda name: (-scores[name], name))
    tied = []
    for name in others:
        spread = float(np.sqrt(np.nanmean((deviations[best] - deviations[name]) ** 2)))
        if scores[best] - scores[name] <= quantile * spread:
            tied.append(name)
    return tuple(tied)


def quantile_of(halves: Sequence[Halves], classes: int) -> float:
    """97.5 % quantile of Student's t, with as many degrees of freedom as a half has images beyond one a class.

    In simulations the intervals of 4 to 8 images a class need this to cover what they promise.
    """
    return float(student_t.ppf(0.975, max(1.0, size_of_halves(halves) - classes)))


def interval_around(score: float, variance: float, quantile: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """95 % interval of a score, within the bounds of the metric."""
    width = quantile * float(np.sqrt(variance))
    return max(score - width, bounds[0]), min(score + width, bounds[1])


def size_of_halves(halves: Sequence[Halves]) -> float:
    """Mean number of images in a half."""
    return float(np.mean([[len(first), len(second)] for first, second in halves]))
