"""Pure arithmetic: how good is a choice of a source, against the accuracies that the choice led to?

A *cell* is one (target, budget, seed). Scores and accuracies of its sources are arrays in the same order; a score of
NaN means that the metric is not defined for that source, which then comes last, as in `potstill rank`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, rankdata

Floats = npt.NDArray[np.float64]
DRAWS = 10_000


def filled(scores: Floats) -> Floats:
    """Scores with undefined ones below all others."""
    defined = scores[np.isfinite(scores)]
    return np.where(np.isfinite(scores), scores, (defined.min() if len(defined) else 0.0) - 1.0)


def regret(scores: Floats, accuracies: Floats) -> float:
    """Accuracy of the best source less that of the chosen one; equal first scores share the choice."""
    ranked = filled(scores)
    return float(accuracies.max() - accuracies[ranked == ranked.max()].mean())


def tau(scores: Floats, accuracies: Floats) -> float:
    """Kendall's tau-b; 0 for a metric that says the same of all sources."""
    found = kendalltau(filled(scores), accuracies).statistic
    return float(found) if np.isfinite(found) else 0.0


def pearson(scores: Floats, accuracies: Floats) -> float:
    """Pearson's correlation over the sources for which the metric is defined; 0 where it says the same of all."""
    defined = np.isfinite(scores)
    if defined.sum() < 3 or np.ptp(scores[defined]) == 0 or np.ptp(accuracies[defined]) == 0:
        return 0.0
    return float(np.corrcoef(scores[defined], accuracies[defined])[0, 1])


def mean_rank(columns: Sequence[Floats]) -> Floats:
    """Ensemble: mean rank of each source over several metrics, higher is better."""
    return np.asarray(np.mean([rankdata(filled(column)) for column in columns], axis=0), dtype=np.float64)


def mean_z(columns: Sequence[Floats]) -> Floats:
    """Ensemble: mean of the metrics' z-scores over the sources."""
    scaled = []
    for column in map(filled, columns):
        spread = column.std()
        scaled.append((column - column.mean()) / spread if spread > 0 else np.zeros_like(column))
    return np.asarray(np.mean(scaled, axis=0), dtype=np.float64)


def by_target(values: Mapping[tuple[str, int, int], float], budgets: Sequence[int]) -> dict[str, Floats]:
    """(target, budget, seed) -> value becomes target -> mean over seeds for each budget, `(len(budgets),)`."""
    targets = dict.fromkeys(target for target, _, _ in values)
    return {
        target: np.array(
            [np.mean([value for key, value in values.items() if key[:2] == (target, budget)]) for budget in budgets]
        )
        for target in targets
    }


def bootstrap_difference(first: Floats, second: Floats, *, seed: int = 0) -> dict[str, float | list[float]]:
    """Mean of `first - second` over targets with its 95 % interval: targets drawn with replacement, pairs kept."""
    difference = first - second
    rows = np.random.default_rng(seed).integers(len(difference), size=(DRAWS, len(difference)))
    means = difference[rows].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(difference.mean()), "ci95": [float(low), float(high)]}


def leave_one_out(regrets: Mapping[str, Floats], parts: Sequence[Sequence[int]]) -> dict[str, object]:
    """Choose the metric by all targets but those of one part, judge it there; for each part in turn.

    regrets: metric -> `(targets,)`. parts: target numbers that are held out together.
    """
    names = sorted(regrets)
    table = np.stack([regrets[name] for name in names])
    chosen, held_out = [], np.empty(table.shape[1])
    for part in parts:
        rest = np.setdiff1d(np.arange(table.shape[1]), part)
        winner = int(table[:, rest].mean(axis=1).argmin())
        chosen.append(names[winner])
        held_out[list(part)] = table[winner, list(part)]
    return {"chosen": chosen, "regret": held_out}
