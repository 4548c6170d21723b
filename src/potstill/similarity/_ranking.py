"""Apply metrics to the cached outputs of many sources and sort the sources."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from potstill.errors import SourceError, UsageError
from potstill.similarity._agreement import agreement_of
from potstill.similarity._baselines import BASELINES
from potstill.similarity._checks import Float64s, Int64s, check_labels
from potstill.similarity._metric import Metric, Ranker
from potstill.similarity._permutation import p_values, shuffled_labels
from potstill.similarity._registry import AnyMetric, find_metric
from potstill.similarity._resampling import (
    Halves,
    deviations_of,
    draw_halves,
    interval_around,
    quantile_of,
    rank_probabilities,
    size_of_halves,
    tied_with_first,
    variance_of,
)
from potstill.similarity._scoring import MOST_IMAGES_PREPARED, Column
from potstill.types import DenseLogits, MetricScore, Progress, RankedSource, Ranking, SourceOutputs, no_progress

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

DRAWS, PERMUTATIONS = 100, 99  # of a metric that is prepared for them
FEW_DRAWS, FEW_PERMUTATIONS = 20, 19  # of others; 19 is the fewest that can show a p-value of 0.05


@dataclass(frozen=True)
class Given:
    """What a metric may need beside the outputs of the sources.

    `reference_features` `(N, E)` are another model's features of the scoring images, in their order, for all sources
    but `reference`, which is that model itself if it is one of them;
    `random_features` those of each source's architecture with random weights; `stated_accuracy` that of each source's
    card.
    """

    reference_features: Array | None = None
    reference: str | None = None
    random_features: Mapping[str, Array] = field(default_factory=dict)
    stated_accuracy: Mapping[str, float] = field(default_factory=dict)


def rank_sources(
    outputs: Mapping[str, SourceOutputs],
    scoring_ids: Sequence[str],
    labels: Array,
    *,
    metric: AnyMetric = "auto",
    also: Sequence[AnyMetric] = (),
    errors: Mapping[str, str] | None = None,
    given: Given | None = None,
    draws: int | None = None,
    permutations: int | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Ranking:
    """Score every source on the scoring set and sort, best first; sources that failed come last.

    A source on which a metric is not defined keeps the metric's error in place of a score; other sources are not
    affected. Equal scores are sorted by name.

    Args:
        outputs: source name -> its cached outputs, which hold all scoring images.
        scoring_ids: image ids of the scoring set (labeled training images).
        labels: `(N,)`, any integers, in the order of `scoring_ids`.
        metric: what sorts: `auto`, a key of `SIMILARITIES`, `RANKERS` or `BASELINES`, a `function(features, labels)`,
            its `module:function`, or a `Metric` or `Ranker` that says what it needs.
        also: further metrics to report.
        errors: source name -> why there are no outputs; these sources are listed as failed.
        given: what some metrics need beside the outputs.
        draws: times that the scoring set is halved for the uncertainty of `metric`, at most 20 of them for each of
            `also`; None for 100, or 20 where the metric is slow; 0 for no intervals.
        permutations: shuffled labelings for the p-values of `metric`; None for 99, or 19 where the metric is slow; 0
            for none, as for rankers, whose scores are relative.
        seed: of draws and permutations; the same ones serve all sources.
        progress: told how many metrics are done; the permutations count as one.

    Returns:
        A `Ranking`. Intervals and rank probabilities are there where most labeled images lie in classes with 4 of them.

    Raises:
        UnknownNameError: no such metric.
        SimilarityError: the labels allow no metric (one class).
        SourceError: outputs lack a scoring image.
        UsageError: scoring ids and labels do not match, or there is no source.
    """
    metrics = _named(metric, also)
    errors = dict(errors or {})
    if not outputs and not errors:
        raise UsageError("No source to rank; give outputs of at least one source.")
    index, counts = check_labels(labels, metric="ranking", min_images=2)
    if len(index) != len(scoring_ids) or len(set(scoring_ids)) != len(scoring_ids):
        raise UsageError(
            f"Expected one label for each of {len(scoring_ids)} different scoring images, got {len(index)} labels for "
            f"{len(set(scoring_ids))} different images."
        )
    values = {
        name: _values_of(name, outputs[name], scoring_ids, index, given or Given())
        for name in outputs
        if name not in errors
    }
    (main_name, main), *others = metrics.items()
    asked = _Asked.of(main, len(index), draws, permutations)
    halves = draw_halves(index, asked.draws, seed=seed)
    # What a ranker gives is relative to the other sources, on shuffled labels too: that says nothing about relatedness.
    absolute = main.looks_at_images and "labels" in main.needs and not isinstance(main, Ranker)
    labelings = shuffled_labels(index, asked.permutations, seed=seed) if absolute else []
    steps, total = itertools.count(1), len(metrics) + bool(labelings)

    def judge(name: str, metric: Metric | Ranker, halves: Sequence[Halves]) -> _Judged:
        judged = _Judged(Column(name, metric, values, index), halves, len(counts))
        progress("similarity", next(steps), total)
        return judged

    column = judge(main_name, main, halves)
    own, null = {}, []
    if labelings:
        # The true labels go the same way as the shuffled ones, so that equal labelings have equal scores.
        own, *null = column.scored.shuffled([index, *labelings])
        progress("similarity", next(steps), total)
    columns = [column, *(judge(name, each, halves[:FEW_DRAWS]) for name, each in others)]
    baselines = {name: Column(name, each, values, index).scores for name, each in BASELINES.items()}

    scores = column.scored.scores
    ranks = rank_probabilities(scores, column.deviations)
    chances = p_values(own, null)
    rows = [
        RankedSource(
            name=name,
            score=scores.get(name),
            scores={each.scored.name: each.score_of(name) for each in columns},
            seconds=sum(each.scored.seconds[name] for each in columns),
            error=column.scored.errors.get(name),
            baselines={baseline: known[name] for baseline, known in baselines.items() if name in known},
            rank_probabilities=None if ranks is None or name not in ranks else tuple(map(float, ranks[name])),
            p_value=chances.get(name),
        )
        for name in values
    ]
    rows += [RankedSource(name, None, {}, 0.0, error) for name, error in errors.items()]
    rows.sort(key=lambda row: (row.score is None, -(row.score or 0.0), row.name))
    return Ranking(
        metric=main_name,
        scoring_images=len(index),
        sources=tuple(rows),
        tied_with_first=() if ranks is None else tied_with_first(scores, column.deviations, column.quantile),
        resamples=2 * len(halves) if main.looks_at_images else 0,
        permutations=len(labelings) if chances else 0,
        agreement=agreement_of({each.scored.name: each.scored.scores for each in columns} | baselines),
    )


@dataclass(frozen=True)
class _Asked:
    """How many draws and permutations the ranking metric gets."""

    draws: int
    permutations: int

    @staticmethod
    def of(metric: Metric | Ranker, images: int, draws: int | None, permutations: int | None) -> _Asked:
        fast = metric.prepare is not None and images <= MOST_IMAGES_PREPARED
        usual, usual_permutations = (DRAWS, PERMUTATIONS) if fast else (FEW_DRAWS, FEW_PERMUTATIONS)
        return _Asked(usual if draws is None else draws, usual_permutations if permutations is None else permutations)


class _Judged:
    """A column with the uncertainty of its scores."""

    def __init__(self, column: Column, halves: Sequence[Halves], classes: int) -> None:
        self.scored = column
        self.variances: dict[str, float] = {}
        self.deviations: dict[str, Float64s] = {}
        self.quantile = quantile_of(halves, classes) if halves else math.nan
        if not halves or not column.metric.looks_at_images:
            return
        size = size_of_halves(halves)
        for name, scores in column.halved(halves).items():
            variance = variance_of(scores, images=column.images, images_in_half=size, pairwise=column.metric.pairwise)
            if variance is not None:
                self.variances[name] = variance
                self.deviations[name] = deviations_of(scores, variance)

    def score_of(self, source: str) -> MetricScore:
        """Score and interval of one source, or why there is none."""
        if source in self.scored.errors:
            return MetricScore(None, self.scored.errors[source])
        score = self.scored.scores[source]
        if not self.variances.get(source):  # unknown, or the same on all halves, as a perfect accuracy is
            return MetricScore(score)
        return MetricScore(
            score, None, interval_around(score, self.variances[source], self.quantile, self.scored.metric.bounds)
        )


def _named(metric: AnyMetric, also: Sequence[AnyMetric]) -> dict[str, Metric | Ranker]:
    """The metrics by name, that of the ranking first."""
    name, main = find_metric(metric)
    metrics = {name: main}
    for name, other in map(find_metric, also):
        if metrics.setdefault(name, other) != other:
            raise UsageError(f"Two metrics have the name '{name}'; give the functions different names.")
    return metrics


def _values_of(
    name: str, source: SourceOutputs, scoring_ids: Sequence[str], index: Int64s, given: Given
) -> dict[str, npt.NDArray[Any]]:
    """What is known of the source and the scoring images, by the names that `Metric.needs` uses."""
    try:
        rows = source.rows(scoring_ids)
    except KeyError as error:
        raise SourceError(
            f"The outputs of source '{name}' lack scoring image {error}; extract the source over all labeled images."
        ) from error
    values: dict[str, npt.NDArray[Any]] = {"labels": index}
    if source.features is not None:
        values["features"] = np.asarray(source.features[rows])
    if isinstance(source.logits, DenseLogits):
        values["probs"] = source.logits.probs(rows)
        values["logits"] = source.logits.logits(rows)
    known = {
        "reference_features": None if name == given.reference else given.reference_features,
        "random_features": given.random_features.get(name),
        "params": source.cost.params,
        "depth": source.cost.depth,
        "stated_accuracy": given.stated_accuracy.get(name),
    }
    return values | {need: np.asarray(value) for need, value in known.items() if value is not None}
