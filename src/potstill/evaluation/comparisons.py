"""Statistics of several methods over several seeds: means, intervals and paired differences.

One bootstrap serves all figures, so that they agree with each other. It has two levels: seeds are drawn with
replacement, and so are test groups (images when there are no groups). Every method gets the same draws, which makes the
differences paired. All seeds of a comparison are tested on the same images, so one draw of groups serves every seed in
it: drawing groups anew for each seed would treat one test set as several independent ones, and give intervals that are
too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from potstill.errors import DataError, UsageError

_BLOCK_CELLS = 4_000_000


@dataclass(frozen=True)
class RunPredictions:
    """Which test images one run got right. `correct` is bool `(N,)`, row i belongs to `image_ids[i]`."""

    method: str
    seed: int
    image_ids: tuple[str, ...]
    correct: npt.NDArray[np.bool_]


class Delta(TypedDict):
    """A paired difference of accuracies, and its 95 % interval."""

    mean: float
    ci95: list[float]


class MethodSummary(TypedDict):
    """Accuracy of one method over its seeds; `sd` (ddof 1) is None with one seed."""

    mean: float
    sd: float | None
    ci95: list[float]
    delta_vs: dict[str, Delta]


def summarise_runs(
    runs: Sequence[RunPredictions],
    *,
    groups: Mapping[str, str] | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> dict[str, MethodSummary]:
    """Mean accuracy of every method, best first, and its paired difference to every other method.

    `mean` and `sd` are over the seeds of a method. `ci95` holds the 2.5 % and 97.5 % points of the bootstrap
    described at the top of this module. `delta_vs[other]` is the accuracy of this method minus that of the other,
    over the seeds that both have (absent if they share none). With one seed only test groups are drawn, so the
    interval then says nothing about other seeds; with few seeds it covers somewhat less than 95 %.
    The result depends neither on the order of the runs nor on that of the images.

    Args:
        runs: one element for each method and seed, all on the same test images.
        groups: image id -> group; an image that is not in it is a group of its own.
        draws: bootstrap draws. Time and memory are of the order of draws x (groups + runs).
        seed: of the bootstrap.

    Raises:
        UsageError: no runs, `draws` below 1, or a method and seed twice.
        DataError: runs on different images, or an image twice.

    >>> import numpy as np
    >>> a = RunPredictions("a", 0, ("1.jpg", "2.jpg"), np.array([True, True]))
    >>> b = RunPredictions("b", 0, ("1.jpg", "2.jpg"), np.array([False, False]))
    >>> summarise_runs([a, b], draws=100)["a"]["delta_vs"]
    {'b': {'mean': 1.0, 'ci95': [1.0, 1.0]}}
    """
    if draws < 1:
        raise UsageError(f"Expected at least one bootstrap draw, got {draws}.")
    by_run, image_ids = _aligned(runs)
    keys = sorted(by_run)
    correct = np.stack([by_run[key] for key in keys], axis=1)
    accuracies = _Accuracies(
        columns={key: column for column, key in enumerate(keys)},
        observed=correct.mean(axis=0),
        resampled=_resample_groups(correct, _group_rows(image_ids, groups), draws, seed),
        seed=seed,
    )
    seeds = {method: [s for m, s in keys if m == method] for method, _ in keys}
    summary: dict[str, MethodSummary] = {}
    for method in seeds:
        own = accuracies.estimate(seeds[method], method)
        summary[method] = {
            "mean": own["mean"],
            "sd": accuracies.deviation(seeds[method], method),
            "ci95": own["ci95"],
            "delta_vs": {},
        }
    best_first = sorted(summary, key=lambda method: (-summary[method]["mean"], method))
    for rank, method in enumerate(best_first):
        for other in best_first[rank + 1 :]:
            common = [s for s in seeds[method] if s in seeds[other]]
            if common:
                delta = accuracies.estimate(common, method, minus=other)
                summary[method]["delta_vs"][other] = delta
                summary[other]["delta_vs"][method] = _negated(delta)
    return {method: summary[method] for method in best_first}


def is_ahead(delta: Delta) -> bool:
    """True when the whole 95 % interval lies above zero; `not is_ahead(...)` alone does not mean behind.

    >>> is_ahead({"mean": 0.02, "ci95": [0.01, 0.03]}), is_ahead({"mean": 0.02, "ci95": [0.0, 0.04]})
    (True, False)
    """
    return delta["ci95"][0] > 0


def is_tied(delta: Delta) -> bool:
    """True when the 95 % interval contains zero.

    >>> is_tied({"mean": 0.0, "ci95": [0.0, 0.0]}), is_tied({"mean": -0.02, "ci95": [-0.03, -0.01]})
    (True, False)
    """
    return delta["ci95"][0] <= 0 <= delta["ci95"][1]


@dataclass(frozen=True)
class _Accuracies:
    """Accuracy of every run as `observed` `(runs,)` and in every draw of test groups, `resampled` `(draws, runs)`."""

    columns: Mapping[tuple[str, int], int]
    observed: npt.NDArray[np.float64]
    resampled: npt.NDArray[np.float64]
    seed: int

    def estimate(self, seeds: Sequence[int], method: str, minus: str | None = None) -> Delta:
        """Mean over `seeds` of the accuracy of `method`, minus that of the other, with its interval."""
        rows = [self.columns[method, s] for s in seeds]
        observed, resampled = self.observed[rows], self.resampled[:, rows]
        if minus is not None:
            others = [self.columns[minus, s] for s in seeds]
            observed, resampled = observed - self.observed[others], resampled - self.resampled[:, others]
        weights = _seed_weights(seeds, len(resampled), self.seed)
        low, high = np.quantile((resampled * weights).sum(axis=1), [0.025, 0.975])
        return {"mean": float(observed.mean()), "ci95": [float(low), float(high)]}

    def deviation(self, seeds: Sequence[int], method: str) -> float | None:
        values = self.observed[[self.columns[method, s] for s in seeds]]
        return float(values.std(ddof=1)) if len(seeds) > 1 else None


def _negated(delta: Delta) -> Delta:
    # 0.0 - x rather than -x, which would make a negative zero.
    low, high = delta["ci95"]
    return {"mean": 0.0 - delta["mean"], "ci95": [0.0 - high, 0.0 - low]}


def _aligned(
    runs: Sequence[RunPredictions],
) -> tuple[dict[tuple[str, int], npt.NDArray[np.bool_]], tuple[str, ...]]:
    """(method, seed) -> correct, all in the order of the sorted image ids."""
    if not runs:
        raise UsageError("Expected at least one finished run to summarise, got none.")
    by_run: dict[tuple[str, int], npt.NDArray[np.bool_]] = {}
    expected: tuple[str, ...] = tuple(sorted(runs[0].image_ids))
    for run in runs:
        name = f"{run.method} with seed {run.seed}"
        if (run.method, run.seed) in by_run:
            raise UsageError(f"The run {name} was given twice. Give each method and seed once.")
        if len(run.correct) != len(run.image_ids) or not run.image_ids:
            raise DataError(f"The run {name} has {len(run.image_ids)} images and {len(run.correct)} answers.")
        if len(set(run.image_ids)) != len(run.image_ids):
            raise DataError(f"The run {name} has an image twice. Each test image counts once.")
        order = sorted(range(len(run.image_ids)), key=run.image_ids.__getitem__)
        if tuple(run.image_ids[row] for row in order) != expected:
            raise DataError(
                f"The run {name} was tested on other images than {runs[0].method} with seed {runs[0].seed}. "
                "Only runs on the same test images can be compared; run them again with the same split."
            )
        by_run[run.method, run.seed] = np.asarray(run.correct, dtype=np.bool_)[order]
    return by_run, expected


def _group_rows(image_ids: tuple[str, ...], groups: Mapping[str, str] | None) -> npt.NDArray[np.int64]:
    """Group number of every image, `(N,)`, 0..G-1."""
    known = groups or {}
    # The first part of the key keeps a lone image apart from a group that has the image's id as its name.
    keys = [(1, known[image_id]) if image_id in known else (0, image_id) for image_id in image_ids]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.array([numbers[key] for key in keys], dtype=np.int64)


def _resample_groups(
    correct: npt.NDArray[np.bool_], group_rows: npt.NDArray[np.int64], draws: int, seed: int
) -> npt.NDArray[np.float64]:
    """Accuracy of every run in every draw of groups, `(draws, runs)`, from `correct` `(N, runs)`."""
    group_count = int(group_rows.max()) + 1
    hits = np.zeros((group_count, correct.shape[1]))
    np.add.at(hits, group_rows, correct)
    sizes = np.bincount(group_rows, minlength=group_count).astype(np.float64)
    accuracies = [
        # Sums of whole numbers below 2^53 are exact in any order, so equal runs stay exactly equal.
        (counts @ hits) / (counts @ sizes)[:, None]
        for counts in _draw_counts(group_count, draws, np.random.default_rng([seed, 0]))
    ]
    return np.concatenate(accuracies)


def _draw_counts(size: int, draws: int, generator: np.random.Generator) -> Iterator[npt.NDArray[np.float64]]:
    """How often each of `size` things is picked in `size` picks with replacement: blocks of `(some draws, size)`."""
    block = max(1, _BLOCK_CELLS // size)
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        picks = generator.integers(size, size=(rows, size))
        picks += np.arange(rows)[:, None] * size
        yield np.bincount(picks.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)


def _seed_weights(seeds: Sequence[int], draws: int, seed: int) -> npt.NDArray[np.float64]:
    """Weight of each run seed in every draw, `(draws, seeds)`, rows sum to one. The same for every method."""
    generator = np.random.default_rng([seed, 1, *(abs(run_seed) for run_seed in seeds)])
    return np.concatenate(list(_draw_counts(len(seeds), draws, generator))) / len(seeds)
