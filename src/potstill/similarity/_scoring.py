"""One column of the similarity table: a metric applied to all sources, on any subset and labeling of the images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from potstill.errors import SimilarityError
from potstill.similarity._checks import Float64s, Int64s
from potstill.similarity._metric import Metric, Ranker
from potstill.similarity._resampling import HalfScores, Halves

Values = Mapping[str, npt.NDArray[Any]]
MOST_IMAGES_PREPARED = 4000  # a table of all pairs then takes 128 MB

_WHY_ABSENT = {
    "probs": "this source has no classifier, or so many classes that only the likeliest of an image are kept",
    "logits": "this source has no classifier, or so many classes that only the likeliest of an image are kept",
    "features": "this source stores none",
    "reference_features": "there is no reference (name a source with --reference), or this source is the reference",
    "random_features": "none were given, or its architecture cannot be built with random weights",
}


class Column:
    """A metric over all sources: scores or errors on the whole scoring set, and scores on subsets of it.

    `scores` and `errors` have one entry a source together. `seconds` adds up what each source took.
    """

    def __init__(self, name: str, metric: Metric | Ranker, values: Mapping[str, Values], index: Int64s) -> None:
        self.name = name
        self.metric = metric
        self.images = len(index)
        self.scores: dict[str, float] = {}
        self.errors: dict[str, str] = {}
        self.seconds = dict.fromkeys(values, 0.0)
        self._index = index
        self._values = {source: each for source, each in values.items() if not self._lacks(source, each)}
        if isinstance(metric, Ranker):
            self._score_together(metric)
        else:
            self._score_each(metric)
        self._values = {source: self._values[source] for source in self.scores}

    def halved(self, halves: Sequence[Halves]) -> dict[str, HalfScores]:
        """Scores of every source on both halves of every draw."""
        parts = [part for draw in halves for part in draw]
        found = self._on_parts([(rows, self._index[rows]) for rows in parts])
        return {name: HalfScores(scores[0::2], scores[1::2]) for name, scores in found.items()}

    def shuffled(self, labelings: Sequence[Int64s]) -> list[dict[str, float]]:
        """Scores of every source on all images with other labels, one mapping for each labeling."""
        everything = np.arange(len(self._index))
        found = self._on_parts([(everything, labels) for labels in labelings])
        return [{name: float(scores[number]) for name, scores in found.items()} for number in range(len(labelings))]

    def _on_parts(self, parts: Sequence[tuple[Int64s, Int64s]]) -> dict[str, Float64s]:
        """`(len(parts),)` scores of each source; NaN where the metric is not defined."""
        if isinstance(self.metric, Ranker):
            return self._together_on_parts(self.metric, parts)
        found = {}
        for source, values in self._values.items():
            with self._timed(source):
                scorer = _subset_scorer(self.metric, values, len(self._index))
                found[source] = np.array([_or_nan(scorer, rows, labels) for rows, labels in parts])
        return found

    def _together_on_parts(self, ranker: Ranker, parts: Sequence[tuple[Int64s, Int64s]]) -> dict[str, Float64s]:
        table = np.full((len(self._values), len(parts)), np.nan)
        for number, (rows, labels) in enumerate(parts):
            with self._timed(*self._values):
                try:
                    scores = self._together(ranker, rows, labels)
                except SimilarityError:
                    continue
            table[:, number] = [scores[source] for source in self._values]
        return dict(zip(self._values, table, strict=True))

    def _lacks(self, source: str, values: Values) -> bool:
        """Whether a need of the metric is missing, which is then the source's error."""
        missing = [need for need in self.metric.needs if need not in values]
        if missing:
            why = _WHY_ABSENT.get(missing[0], "this source does not tell")
            self.errors[source] = f"{self.name}: needs {' and '.join(missing)}, but {why}."
        return bool(missing)

    def _score_each(self, metric: Metric) -> None:
        for source, values in self._values.items():
            with self._timed(source):
                try:
                    self._enter(source, metric.function(*(values[need] for need in metric.needs)))
                except SimilarityError as error:
                    self.errors[source] = str(error)

    def _score_together(self, ranker: Ranker) -> None:
        """Sources on which the ranker fails are left out one by one, so that they do not fail the others."""
        everything = np.arange(len(self._index))
        while self._values:
            with self._timed(*self._values):
                try:
                    scores = self._together(ranker, everything, self._index)
                except SimilarityError as error:
                    guilty = error.source if error.source in self._values else None
                    for source in [guilty] if guilty else list(self._values):
                        self.errors[source] = str(error)
                        del self._values[source]
                    continue
            for source, score in scores.items():
                self._enter(source, score)
            return

    def _enter(self, source: str, score: float) -> None:
        if np.isfinite(score):
            self.scores[source] = float(score)
        else:
            self.errors[source] = f"{self.name}: returned {float(score)}, not a finite number."

    def _together(self, ranker: Ranker, rows: Int64s, labels: Int64s) -> dict[str, float]:
        need = next(need for need in ranker.needs if need != "labels")
        outputs = {source: values[need][rows] for source, values in self._values.items()}
        scores = ranker.function(outputs, labels)
        if set(scores) != set(outputs):
            raise SimilarityError(
                f"{self.name}: returned scores of {sorted(scores)} for the sources {sorted(outputs)}."
            )
        return scores

    @contextmanager
    def _timed(self, *sources: str) -> Iterator[None]:
        """Add the time that this takes to the sources, in equal parts."""
        start = time.perf_counter()
        yield
        for source in sources:
            self.seconds[source] += (time.perf_counter() - start) / len(sources)


def _subset_scorer(metric: Metric, values: Values, images: int) -> Callable[[Int64s, Int64s], float]:
    """The metric of one source as a function of row numbers and their labels."""
    if metric.prepare is not None and images <= MOST_IMAGES_PREPARED:
        return metric.prepare(*(values[need] for need in metric.needs if need != "labels"))

    def score(rows: Int64s, labels: Int64s) -> float:
        return metric.function(*(labels if need == "labels" else values[need][rows] for need in metric.needs))

    return score


def _or_nan(scorer: Callable[[Int64s, Int64s], float], rows: Int64s, labels: Int64s) -> float:
    try:
        return float(scorer(rows, labels))
    except SimilarityError:
        return float("nan")
