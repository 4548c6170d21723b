"""Which images a step sees. A batch is a pure function of (seed, step): resume needs no sampler state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from potstill.types import Batch, ViewKind

Indices = npt.NDArray[np.int64]


class Views(Protocol):
    """Augmented images by row number, float32 `(B, 3, H, W)`; a pure function of its arguments."""

    def views(self, rows: Indices, kind: ViewKind, *, epoch: int, draw: int) -> torch.Tensor: ...


@dataclass(frozen=True)
class BatchPlan:
    """How many rows of each kind one step takes: labeled, weak views of the pool and strong views of the same images.

    `forward_only` says that the weak views carry no gradient of their own (FixMatch's).
    """

    labeled: int
    pool_weak: int = 0
    pool_strong: int = 0
    forward_only_weak: bool = False

    @property
    def rows(self) -> int:
        """Student forward rows of a step."""
        return self.labeled + self.pool_weak + self.pool_strong

    @property
    def trained_rows(self) -> int:
        """Rows of a step that carry a gradient."""
        return self.rows - (self.pool_weak if self.forward_only_weak else 0)

    @property
    def cost(self) -> float:
        """Student image passes of a step: a row without a gradient counts one third."""
        return self.trained_rows + (self.rows - self.trained_rows) / 3


class EpochStream:
    """Endless passes over `size` items, each pass in its own random order, which depends on (seed, name, pass) only.

    >>> stream = EpochStream(3, seed=0, name="labeled")
    >>> first, second = stream.take(0, 3), stream.take(3, 3)
    >>> sorted(first[0].tolist()), first[1].tolist(), second[1].tolist()
    ([0, 1, 2], [0, 0, 0], [1, 1, 1])
    """

    def __init__(self, size: int, *, seed: int, name: str) -> None:
        self.size = size
        self._entropy = [seed, *name.encode()]

    def take(self, start: int, count: int) -> tuple[Indices, Indices]:
        """Items `(count,)` number start .. start + count of the stream, and the pass that each belongs to."""
        positions = np.arange(start, start + count, dtype=np.int64)
        passes = positions // self.size
        items = np.empty(count, dtype=np.int64)
        for number in np.unique(passes):
            order = np.random.default_rng([*self._entropy, int(number)]).permutation(self.size)
            chosen = passes == number
            items[chosen] = order[positions[chosen] % self.size]
        return items, passes


class TrainingBatches:
    """Builds the batch of any step.

    Args:
        dataset: views of the pool's images; row i is image i of `Split.pool`.
        labels: labels of the labeled images, int64 `(L,)`; they are rows 0 .. L of the dataset unless
            `labeled_rows` says which rows they are.
        pool_size: number of pool images.
        plan: rows of each kind in a step.
        steps: length of the run; `Batch.progress` is step / steps.
        seed: of the order of the images.
    """

    def __init__(
        self,
        dataset: Views,
        labels: Indices,
        *,
        pool_size: int,
        plan: BatchPlan,
        steps: int,
        seed: int,
        labeled_rows: Indices | None = None,
    ) -> None:
        self.plan = plan
        self.steps = steps
        self._dataset = dataset
        self._labels = labels
        self._labeled_rows = np.arange(len(labels)) if labeled_rows is None else labeled_rows
        self._labeled = EpochStream(len(labels), seed=seed, name="labeled")
        self._pool = EpochStream(pool_size, seed=seed, name="pool")

    def batch(self, step: int) -> Batch:
        """The batch of a step, on the CPU."""
        items, passes = self._labeled.take(step * self.plan.labeled, self.plan.labeled)
        pool_rows, weak, strong = None, None, None
        if self.plan.pool_weak or self.plan.pool_strong:
            count = max(self.plan.pool_weak, self.plan.pool_strong)
            rows, pool_passes = self._pool.take(step * count, count)
            pool_rows = torch.from_numpy(rows)
            if self.plan.pool_weak:
                weak = self._views(rows, "weak", pool_passes, draw=1)
            if self.plan.pool_strong:
                strong = self._views(rows, "strong", pool_passes, draw=2)
        return Batch(
            labeled_images=self._views(self._labeled_rows[items], "weak", passes, draw=0),
            labels=torch.from_numpy(self._labels[items]),
            pool_rows=pool_rows,
            pool_weak=weak,
            pool_strong=strong,
            progress=step / self.steps,
        )

    def _views(self, rows: Indices, kind: ViewKind, passes: Indices, *, draw: int) -> torch.Tensor:
        """Views of rows that may belong to several passes, in the order of `rows`."""
        parts = [(np.flatnonzero(passes == number), int(number)) for number in np.unique(passes)]
        images = [self._dataset.views(rows[where], kind, epoch=number, draw=draw) for where, number in parts]
        if len(images) == 1:
            return images[0]
        order = np.argsort(np.concatenate([where for where, _ in parts]))
        return torch.cat(images)[torch.from_numpy(order)]
