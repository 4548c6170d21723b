"""Do metrics agree on the order of the sources?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import kendalltau

FEWEST_SOURCES = 3  # two sources are always in the same or the opposite order


def agreement_of(columns: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """Kendall's tau-b between every two columns of scores, over the sources that both have.

    Args:
        columns: name of the metric -> {source: score}.

    Returns:
        name -> {name: tau}: 1 for the same order, 0 for unrelated ones, -1 for the opposite; None where fewer than 3
        sources are common or a column says the same of all.

    >>> agreement_of({"parc": {"a": 3.0, "b": 2.0, "c": 1.0}, "knn": {"a": 0.9, "b": 0.5, "c": 0.7}})["parc"]["knn"]
    0.3333
    """
    return {first: {second: _tau(columns[first], columns[second]) for second in columns} for first in columns}


def _tau(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    common = [name for name in first if name in second]
    if len(common) < FEWEST_SOURCES:
        return None
    tau = kendalltau([first[name] for name in common], [second[name] for name in common]).statistic
    return round(float(tau), 4) if np.isfinite(tau) else None
