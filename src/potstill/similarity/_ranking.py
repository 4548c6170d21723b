"""Apply metrics to the cached outputs of many sources and sort the sources."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from potstill.errors import SimilarityError, SourceError, UsageError
from potstill.similarity._checks import check_labels
from potstill.similarity._metric import Metric
from potstill.similarity._registry import find_metric
from potstill.types import MetricScore, RankedSource, Ranking, SourceOutputs

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

Values = dict[str, npt.NDArray[Any]]
MOST_IMAGES_DRAWN = 1000  # keeps the interval cheap for large scoring sets; the width is rescaled for it


def rank_sources(
    outputs: Mapping[str, SourceOutputs],
    scoring_ids: Sequence[str],
    labels: Array,
    *,
    metric: str | Callable[..., float] | Metric = "parc",
    also: Sequence[str | Callable[..., float] | Metric] = (),
    errors: Mapping[str, str] | None = None,
    interval_draws: int = 40,
    seed: int = 0,
) -> Ranking:
    """Score every source on the scoring set and sort, best first; sources that failed come last.

    A source on which a metric is not defined keeps the metric's error in place of a score; other sources are not
    affected. Equal scores are sorted by name.

    Args:
        outputs: source name -> its cached outputs, which hold all scoring images.
        scoring_ids: image ids of the scoring set (labeled training images).
        labels: `(N,)`, any integers, in the order of `scoring_ids`.
        metric: what sorts: a key of `SIMILARITIES`, a `function(features, labels)`, its `module:function`, or a
            `Metric` that says what it needs.
        also: further metrics to report.
        errors: source name -> why there are no outputs; these sources are listed as failed.
        interval_draws: subsamples for the 95 % interval of `metric`; 0 for no interval.
        seed: of the subsamples; the same draws serve all sources.

    Returns:
        A `Ranking`; scores have an interval where the scoring set allows one (some class with 3 images).

    Raises:
        UnknownNameError: no such metric.
        SimilarityError: the labels allow no metric (one class).
        SourceError: outputs lack a scoring image.
        UsageError: scoring ids and labels do not match, or there is no source.
    """
    main_name, main = find_metric(metric)
    metrics = {main_name: main}
    for name, other in map(find_metric, also):
        if metrics.setdefault(name, other) != other:
            raise UsageError(f"Two metrics have the name '{name}'; give the functions different names.")
    errors = dict(errors or {})
    if not outputs and not errors:
        raise UsageError("No source to rank; give outputs of at least one source.")
    index, _ = check_labels(labels, metric="ranking", min_images=2)
    if len(index) != len(scoring_ids) or len(set(scoring_ids)) != len(scoring_ids):
        raise UsageError(
            f"Expected one label for each of {len(scoring_ids)} different scoring images, got {len(index)} labels for "
            f"{len(set(scoring_ids))} different images."
        )
    draws = _draw_subsamples(index, interval_draws, seed)
    rows = [
        _rank_one(name, outputs[name], scoring_ids, index, metrics, draws) for name in outputs if name not in errors
    ]
    rows += [RankedSource(name, None, {}, 0.0, error) for name, error in errors.items()]
    rows.sort(key=lambda row: (row.score is None, -(row.score or 0.0), row.name))
    return Ranking(main_name, len(index), tuple(rows))


def _rank_one(
    name: str,
    source: SourceOutputs,
    scoring_ids: Sequence[str],
    index: npt.NDArray[np.int64],
    metrics: Mapping[str, Metric],
    draws: Sequence[npt.NDArray[np.int64]],
) -> RankedSource:
    """All metrics of one source; the first of them ranks, and has an interval."""
    start = time.perf_counter()
    values = _values_of(name, source, scoring_ids, index)
    scores: dict[str, MetricScore] = {}
    for metric_name, metric in metrics.items():
        try:
            score = _compute(metric_name, metric, values)
        except SimilarityError as error:
            scores[metric_name] = MetricScore(None, str(error))
            continue
        interval = None if scores else _interval(metric_name, metric, values, score, draws)
        scores[metric_name] = MetricScore(score, None, interval)
    main = next(iter(scores.values()))
    return RankedSource(name, main.score, scores, time.perf_counter() - start, main.error)


def _values_of(name: str, source: SourceOutputs, scoring_ids: Sequence[str], index: npt.NDArray[np.int64]) -> Values:
    """What the source says about the scoring images, by the names that `Metric.needs` uses."""
    try:
        rows = source.rows(scoring_ids)
    except KeyError as error:
        raise SourceError(
            f"The outputs of source '{name}' lack scoring image {error}; extract the source over all labeled images."
        ) from error
    values: Values = {"labels": index}
    if source.features is not None:
        values["features"] = np.asarray(source.features[rows])
    if source.logits is not None:
        values["probs"] = source.logits.probs(rows)
    return values


def _compute(name: str, metric: Metric, values: Values) -> float:
    missing = [need for need in metric.needs if need not in values]
    if missing:
        why = "has no classifier" if "probs" in missing else "stores none"
        raise SimilarityError(f"{name}: needs {' and '.join(missing)}, but this source {why}.")
    score = float(metric.function(*(values[need] for need in metric.needs)))
    if not np.isfinite(score):
        raise SimilarityError(f"{name}: returned {score}, not a finite number.")
    return score


def _draw_subsamples(index: npt.NDArray[np.int64], draws: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Rows of stratified subsamples: half of each class, at least 2 where it has 2, drawn WITHOUT replacement.

    With replacement an image would meet copies of itself, which pairwise metrics take for perfect neighbours.
    """
    counts = np.bincount(index)
    wanted = np.ceil(counts * min(0.5, MOST_IMAGES_DRAWN / len(index))).astype(np.int64)
    sizes = np.minimum(np.maximum(wanted, 2), counts)
    if sizes.sum() == len(index):
        return []
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(index == label) for label in range(len(counts))]
    return [
        np.concatenate([generator.permutation(rows)[:size] for rows, size in zip(members, sizes, strict=True)])
        for _ in range(draws)
    ]


def _interval(
    name: str, metric: Metric, values: Values, score: float, draws: Sequence[npt.NDArray[np.int64]]
) -> tuple[float, float] | None:
    """95 % interval around the score from the spread over subsamples; None if most subsamples have no score.

    A subsample of a share f of the images, drawn without replacement, varies (1 - f) / f times as much as the whole
    set does (finite population correction), so the variance is rescaled by f / (1 - f).
    """
    drawn: list[float] = []
    for rows in draws:
        try:
            drawn.append(_compute(name, metric, {need: array[rows] for need, array in values.items()}))
        except SimilarityError:
            continue
    if len(drawn) < 2 or len(drawn) < len(draws) / 2:
        return None
    share = len(draws[0]) / len(values["labels"])
    half_width = 1.96 * float(np.std(drawn, ddof=1)) * np.sqrt(share / (1 - share))
    return float(score - half_width), float(score + half_width)
