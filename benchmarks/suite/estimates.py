"""Accuracies of a table over targets: means over the targets of a kind, then over kinds, and paired intervals.

One bootstrap of all targets serves every figure: for each target the label draws are drawn with replacement, and so are
the groups of its test images; every method gets the same draws, so differences are paired. Two or three label draws,
drawn with replacement, vary less than label draws do: their deviations from the mean are enlarged by sqrt(n / (n - 1)).
Targets are not drawn: the intervals speak of these targets.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from suite.tasks import TASKS

DRAWS = 10_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure in points, and the 2.5 % and 97.5 % points of its bootstrap."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


@dataclass(frozen=True)
class TargetRuns:
    """What every finished run of a target got right.

    Attributes:
        name: of the target.
        correct: (method, seed) -> bool `(N,)`.
        groups: `(N,)` the group of each test image.
    """

    name: str
    correct: Mapping[tuple[str, int], npt.NDArray[np.bool_]]
    groups: Sequence[str]

    @property
    def kind(self) -> str:
        """The kind of its images."""
        return TASKS[self.name].kind

    def seeds(self, methods: Sequence[str]) -> list[int]:
        """Those that every one of the methods has."""
        found = [{seed for name, seed in self.correct if name == method} for method in methods]
        return sorted(set.intersection(*found)) if found else []

    def accuracy(self, method: str, seeds: Sequence[int]) -> float:
        """Mean over the seeds, in points."""
        return float(100 * np.mean([self.correct[method, seed].mean() for seed in seeds]))

    def resampled(self, methods: Sequence[str], seeds: Sequence[int]) -> Floats:
        """Accuracies `(DRAWS, methods)` in points, over the given seeds drawn with replacement."""
        draws = np.random.default_rng([0, *self.name.encode()])
        names, rows = np.unique(np.asarray(self.groups), return_inverse=True)
        right = np.zeros((len(names), len(methods) * len(seeds)))
        columns = [self.correct[method, seed] for method in methods for seed in seeds]
        np.add.at(right, rows, np.stack(columns, axis=1).astype(np.float64))
        counts = np.bincount(rows).astype(np.float64)
        picked = draws.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS).astype(np.float64)
        shares = (picked @ right) / (picked @ counts)[:, None]
        weights = _seed_weights(len(seeds), draws)
        return 100 * np.einsum("dms,ds->dm", shares.reshape(DRAWS, len(methods), len(seeds)), weights)


@dataclass(frozen=True)
class Table:
    """The finished runs of a table of the protocol."""

    targets: Mapping[str, TargetRuns]
    methods: tuple[str, ...]

    @cached_property
    def seeds(self) -> dict[str, list[int]]:
        """The seeds of each target on which methods are compared: those that all of them have."""
        return {name: runs.seeds(self.methods) for name, runs in self.targets.items()}

    @property
    def complete(self) -> list[str]:
        """Targets on which every method is finished for a seed at least."""
        return [name for name, seeds in self.seeds.items() if seeds]

    def accuracy(self, target: str, method: str) -> float:
        """Of a method on a target, mean over seeds, in points."""
        return self.targets[target].accuracy(method, self.seeds[target])

    def means(self, left_out: Collection[str] = ()) -> dict[str, float]:
        """Of each method over kinds, in points."""
        return {
            method: over_kinds({name: self.accuracy(name, method) for name in self._kept(left_out)})
            for method in self.methods
        }

    def difference(self, method: str, other: str, left_out: Collection[str] = ()) -> Estimate:
        """Accuracy of a method minus that of another, mean over kinds."""
        one, two = self.methods.index(method), self.methods.index(other)
        names = self._kept(left_out)
        drawn = over_kinds({name: self._resampled[name][:, one] - self._resampled[name][:, two] for name in names})
        means = self.means(left_out)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return Estimate(means[method] - means[other], float(low), float(high))

    def difference_on(self, target: str, method: str, other: str) -> Estimate:
        """The same on one target."""
        drawn = self._resampled[target]
        low, high = np.quantile(
            drawn[:, self.methods.index(method)] - drawn[:, self.methods.index(other)], [0.025, 0.975]
        )
        mean = self.accuracy(target, method) - self.accuracy(target, other)
        return Estimate(mean, float(low), float(high))

    def _kept(self, left_out: Collection[str]) -> list[str]:
        return [name for name in self.complete if name not in left_out]

    @cached_property
    def _resampled(self) -> dict[str, Floats]:
        return {name: self.targets[name].resampled(self.methods, self.seeds[name]) for name in self.complete}


def _seed_weights(seeds: int, draws: np.random.Generator) -> Floats:
    """`(DRAWS, seeds)`, rows sum to 1: seeds drawn with replacement, spread as widely as the seeds' own deviation says.

    >>> weights = _seed_weights(2, np.random.default_rng(0))
    >>> [round(float(value), 3) for value in np.unique(weights)]  # 0, 1/2 and 1, sqrt(2) times as far from 1/2
    [-0.207, 0.5, 1.207]
    """
    even = np.full(seeds, 1 / seeds)
    if seeds == 1:
        return np.ones((DRAWS, 1))
    picked = draws.multinomial(seeds, even, size=DRAWS) / seeds
    widened: Floats = even + (picked - even) * np.sqrt(seeds / (seeds - 1))
    return widened


def over_kinds(values: Mapping[str, Any]) -> Any:
    """The mean over the targets of a kind, then over kinds; of numbers or arrays.

    >>> float(over_kinds({"hebrew": 10.0, "katakana": 20.0, "mnist": 30.0}))
    22.5
    """
    by_kind = defaultdict(list)
    for target, value in values.items():
        by_kind[TASKS[target].kind].append(value)
    return np.mean([np.mean(each, axis=0) for each in by_kind.values()], axis=0)


def read_table(folder: Path, methods: Sequence[str] | None = None) -> Table:
    """A table's result files. `methods`: those to compare; all that every target has, if not given."""
    targets = {}
    for file in sorted(folder.glob("*.correct.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        correct = {}
        for path, digits in record["correct"].items():
            method, _, seed = path.rpartition("-seed")
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8), count=record["images"])
            correct[method, int(seed)] = bits.astype(bool)
        name = file.name.removesuffix(".correct.json")
        targets[name] = TargetRuns(name, correct, record["groups"])
    if methods is None:
        found = [{method for method, _ in runs.correct} for runs in targets.values()]
        methods = sorted(set.intersection(*found)) if found else []
    return Table(targets, tuple(methods))
