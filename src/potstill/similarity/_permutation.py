"""Is any source related to the target at all? Scores are compared with those on shuffled labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from potstill.similarity._checks import Float64s, Int64s

ROUNDING = 1e-9  # standard deviations; scores of equal labelings differ by less


def shuffled_labels(index: Int64s, permutations: int, *, seed: int) -> list[Int64s]:
    """The labels in random order, `permutations` times: class sizes stay, any relation to images goes."""
    generator = np.random.default_rng([seed, 1])  # not the draws of the halves
    return [generator.permutation(index) for _ in range(permutations)]


def p_values(scores: Mapping[str, float], null: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """For each source, how often shuffled labels give some source of the zoo a score as remarkable as its own.

    Scores are put on one scale by mean and standard deviation of each source's scores on shuffled labels, and compared
    with the largest of all sources, so that a large zoo does not find a related source by luck (Westfall and Young,
    "Resampling-Based Multiple Testing", 1993). The smallest possible value is 1 / (permutations + 1).

    Args:
        scores: source -> score on the true labels.
        null: source -> score, for each shuffling; sources whose score was undefined may be absent.

    Returns:
        source -> p-value in (0, 1], for sources that had a score on most shufflings.
    """
    table = {name: np.array([each.get(name, np.nan) for each in null]) for name in scores}
    table = {name: row for name, row in table.items() if len(row) and np.isfinite(row).mean() > 0.5}
    if not table:
        return {}
    standard = {name: _standardised(scores[name], row) for name, row in table.items()}
    largest = np.fmax.reduce([shuffled for _, shuffled in standard.values()])
    largest = largest[np.isfinite(largest)]
    return {
        name: float((1 + (largest >= own - ROUNDING).sum()) / (1 + len(largest))) for name, (own, _) in standard.items()
    }


def _standardised(score: float, shuffled: Float64s) -> tuple[float, Float64s]:
    """The score and those on shuffled labels, in standard deviations from the mean of all of them."""
    everything = np.append(shuffled[np.isfinite(shuffled)], score)
    mean, deviation = float(everything.mean()), float(everything.std())
    if deviation <= 1e-12 * float(np.abs(everything).max()):  # labels make no difference
        return 0.0, np.where(np.isfinite(shuffled), 0.0, np.nan)
    return (score - mean) / deviation, np.asarray((shuffled - mean) / deviation, dtype=np.float64)
