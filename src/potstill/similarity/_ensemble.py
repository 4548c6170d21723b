"""Ensemble: the sources that several metrics agree on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.stats import rankdata

from potstill.errors import SimilarityError, unknown_name
from potstill.similarity._cka import cka
from potstill.similarity._hscore import hscore
from potstill.similarity._knn import knn
from potstill.similarity._logme import logme
from potstill.similarity._parc import parc
from potstill.similarity._probe import probe

if TYPE_CHECKING:
    from potstill.similarity._checks import Array, Float64s

Combination = Literal["rank", "z"]

MEMBERS: dict[str, Callable[..., float]] = {
    "parc": parc,
    "cka": cka,
    "knn": knn,
    "logme": logme,
    "hscore": hscore,
    "probe": probe,
}
"""Metrics that need features and labels and suit few labels."""
SAME = 1e-9  # scores of one metric closer than this, as a share of the largest, differ by rounding alone


def ensemble(
    features: Mapping[str, Array],
    labels: Array,
    *,
    metrics: Sequence[str] = ("parc", "knn", "probe"),
    combine: Combination = "rank",
) -> dict[str, float]:
    """Mean over several metrics of the rank (or the standard score) that each gives a source.

    Args:
        features: source -> `(N, D)`, real; D may differ.
        labels: `(N,)`, any integers; a class may have one image, but not all classes.
        metrics: of `MEMBERS`: parc, cka, knn, logme, hscore, probe.
        combine: "rank" for ranks from 0 (worst) to 1 (best), ties sharing theirs; "z" for standard scores.

    Returns:
        source -> score, higher is better; in [0, 1] for ranks. A source alone has rank 1 and standard score 0. The
        scores depend on which sources there are.

    Cost: that of the metrics.

    Raises:
        SimilarityError: bad inputs (`source` names the one), no source or no metric.
        UnknownNameError: a metric that is not a member.

    Reference: "Back to the Basics on Predicting Transfer Performance", arXiv 2405.20420, found that combined scores
    predict better than single ones. This combination is ours.

    >>> near, far = [[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.2]], [[0.3, 0.2], [0.1, 0.4], [0.2, 0.3], [0.2, 0.1]]
    >>> ensemble({"near": near, "far": far}, [0, 0, 1, 1])
    {'near': 1.0, 'far': 0.0}
    """
    for name in metrics:
        if name not in MEMBERS:
            raise unknown_name("member of the ensemble", name, MEMBERS)
    scores = {
        name: {source: _score(name, source, each, labels) for source, each in features.items()} for name in metrics
    }
    return combine_scores(scores, combine)


def combine_scores(scores: Mapping[str, Mapping[str, float]], combine: Combination = "rank") -> dict[str, float]:
    """Mean over metrics of normalised ranks or standard scores; a metric that says the same of all counts for nobody.

    Args:
        scores: metric -> {source: score}, the same sources in each.
        combine: as in `ensemble`.

    Returns:
        source -> mean, higher is better.

    Raises:
        SimilarityError: nothing to combine, sources that differ, a score that is not finite, or an unknown combination.

    >>> combine_scores({"parc": {"a": 0.3, "b": 0.1}, "knn": {"a": 0.5, "b": 0.5}})
    {'a': 0.75, 'b': 0.25}
    """
    if combine not in ("rank", "z"):
        raise SimilarityError(f"ensemble: combine must be 'rank' or 'z', got '{combine}'.")
    sources = list(next(iter(scores.values()), {}))
    if not sources or any(set(each) != set(sources) for each in scores.values()):
        raise SimilarityError("ensemble: needs at least one metric, and scores of the same sources for each.")
    for metric, each in scores.items():
        for source, score in each.items():
            if not np.isfinite(score):
                message = f"ensemble: {metric} of source '{source}' is {score}; leave out sources without a score."
                raise SimilarityError(message, source=source)
    normalise = _ranks if combine == "rank" else _standard_scores
    table = np.stack([normalise(np.array([each[source] for source in sources])) for each in scores.values()])
    return {source: float(mean) for source, mean in zip(sources, table.mean(axis=0), strict=True)}


def _score(name: str, source: str, features: Array, labels: Array) -> float:
    try:
        return MEMBERS[name](features, labels)
    except SimilarityError as error:
        raise SimilarityError(f"ensemble: source '{source}': {error}", source=source) from error


def _ranks(values: Float64s) -> Float64s:
    """0 for the worst to 1 for the best; values that differ by rounding alone share the mean of their ranks."""
    if len(values) == 1:
        return np.ones(1)
    order = np.argsort(values)
    steps = np.diff(values[order], prepend=values[order[0]]) > SAME * np.abs(values).max()
    level = np.empty(len(values))
    level[order] = np.cumsum(steps)
    return np.asarray((rankdata(level) - 1) / (len(values) - 1), dtype=np.float64)


def _standard_scores(values: Float64s) -> Float64s:
    """Distance from the mean in standard deviations; 0 for all where they differ by rounding alone."""
    deviation = float(values.std())
    if deviation <= SAME * float(np.abs(values).max()):
        return np.zeros(len(values))
    return np.asarray((values - values.mean()) / deviation, dtype=np.float64)
