"""Which images a step sees. A batch is a pure function of (seed, step): resume needs no sampler state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from potstill.training.balanced import BalancedStream
from potstill.types import Batch, SoftTargets, ViewKind

Indices = npt.NDArray[np.int64]


class Views(Protocol):
    """Augmented images by row number; a pure function of its arguments."""

    def views(self, rows: Indices, kind: ViewKind, *, epoch: Indices, draw: int) -> torch.Tensor:
        """uint8 `(B, 3, H, W)`; `epoch` `(B,)` is the pass over the images that each row belongs to."""
        ...

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """What the model takes, float32, of images on any device."""
        ...


class Answers(Protocol):
    """What the sources say about pool images."""

    def gather(self, rows: torch.Tensor, passes: torch.Tensor) -> tuple[SoftTargets, ...]:
        """One target a source for pool images `(M,)` in the pass over the pool that each belongs to; on the CPU."""
        ...


@dataclass(frozen=True)
class BatchPlan:
    """How many rows of each kind one step takes: labeled, weak views of the pool and strong views of the same images.

    `forward_only_weak` says that the weak views carry no gradient of their own (FixMatch's).
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

    def divisible_by(self, parts: int) -> BatchPlan:
        """A plan whose rows can be cut into `parts` equal parts: labeled rows are rounded down, but to at least one in
        each part, and there are as many pool images for a labeled one as before, as nearly as that goes.

        >>> BatchPlan(labeled=9, pool_weak=63, pool_strong=63).divisible_by(2)
        BatchPlan(labeled=8, pool_weak=56, pool_strong=56, forward_only_weak=False)
        """
        labeled = max(1, self.labeled // parts)

        def in_each(pool: int) -> int:
            return max(1, round(pool * labeled / self.labeled)) if pool else 0

        return replace(
            self,
            labeled=parts * labeled,
            pool_weak=parts * in_each(self.pool_weak),
            pool_strong=parts * in_each(self.pool_strong),
        )


class Stream(Protocol):
    """An endless sequence of items."""

    def take(self, start: int, count: int) -> tuple[Indices, Indices]:
        """Items `(count,)` number start .. start + count, and how often each was taken before."""
        ...


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
        # The last order made: drawing that of a million images anew for every batch would take as long as a step.
        self._order: tuple[int, Indices] = (-1, np.empty(0, dtype=np.int64))

    def take(self, start: int, count: int) -> tuple[Indices, Indices]:
        """Items `(count,)` number start .. start + count of the stream, and the pass that each belongs to."""
        positions = np.arange(start, start + count, dtype=np.int64)
        passes = positions // self.size
        items = np.empty(count, dtype=np.int64)
        for number in np.unique(passes):
            chosen = passes == number
            items[chosen] = self._order_of(int(number))[positions[chosen] % self.size]
        return items, passes

    def _order_of(self, number: int) -> Indices:
        # Threads may ask at once; each works with the pair that it read or made.
        known, order = self._order
        if known != number:
            order = np.random.default_rng([*self._entropy, number]).permutation(self.size)
            self._order = (number, order)
        return order


class TrainingBatches:
    """Builds the batch of any step.

    A step's batch is cut into `parts` equal parts, one for each process and each accumulated gradient: which images a
    step sees does not depend on how many share the work, and every image is taken exactly once a pass.

    Args:
        dataset: views of the pool's images; row i is image i of the pool.
        labels: labels of the labeled images, int64 `(L,)`; they are rows 0 .. L of the dataset unless
            `labeled_rows` says which rows they are.
        pool_size: number of pool images.
        plan: rows of each kind in a step.
        steps: length of the run.
        seed: of the order of the images.
        labeled_rows: rows of the labeled images.
        parts: number of equal parts of a step's batch.
        view: the kind of view that labeled images come in.
        pool_view: the kind of the weak views of the pool; that of the labeled images by default.
        balanced: take labeled images of every class equally often.
        answers: what the sources say about the pool.
        target_probs: `(N, C)` float32, what they say together about the target's classes, for every pool image.

    Raises:
        ValueError: rows of the plan cannot be cut into the parts (see `BatchPlan.divisible_by`).
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
        parts: int = 1,
        view: ViewKind = "weak",
        pool_view: ViewKind | None = None,
        balanced: bool = False,
        answers: Answers | None = None,
        target_probs: npt.NDArray[np.float32] | None = None,
    ) -> None:
        if plan != plan.divisible_by(parts):
            raise ValueError(f"expected a plan whose rows can be cut into {parts} parts, got {plan}")
        self.plan = plan
        self.steps = steps
        self.parts = parts
        self._dataset = dataset
        self._answers = answers
        self._target_probs = target_probs
        self._view = view
        self._pool_view = pool_view or view
        self._labels = labels
        self._labeled_rows = np.arange(len(labels)) if labeled_rows is None else labeled_rows
        self._labeled: Stream = (
            BalancedStream(labels, seed=seed, name="labeled")
            if balanced
            else EpochStream(len(labels), seed=seed, name="labeled")
        )
        self._pool = EpochStream(pool_size, seed=seed, name="pool")

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes prepare images alone; the answers may be large and stay here.
        return {**vars(self), "_answers": None, "_target_probs": None}

    def batch(self, step: int, part: int = 0) -> Batch:
        """The images of a part of a step's batch, on the CPU."""
        items, passes = self._share(self._labeled, self.plan.labeled, step, part)
        batch = Batch(
            labeled_images=self._dataset.views(self._labeled_rows[items], self._view, epoch=passes, draw=0),
            labels=torch.from_numpy(self._labels[items]),
            pool_rows=None,
            pool_weak=None,
            pool_strong=None,
        )
        count = max(self.plan.pool_weak, self.plan.pool_strong)
        if count == 0:
            return batch
        rows, pool_passes = self._share(self._pool, count, step, part)
        weak, strong = self.plan.pool_weak > 0, self.plan.pool_strong > 0
        return replace(
            batch,
            pool_rows=torch.from_numpy(rows),
            pool_passes=torch.from_numpy(pool_passes),
            pool_weak=self._dataset.views(rows, self._pool_view, epoch=pool_passes, draw=1) if weak else None,
            pool_strong=self._dataset.views(rows, "strong", epoch=pool_passes, draw=2) if strong else None,
        )

    def with_answers(self, batch: Batch) -> Batch:
        """The batch with what the sources say about its pool images."""
        rows, passes = batch.pool_rows, batch.pool_passes
        if rows is None or passes is None:
            return batch
        together = None if self._target_probs is None else torch.from_numpy(self._target_probs[rows.numpy()])
        answers = () if self._answers is None else self._answers.gather(rows, passes)
        return replace(batch, answers=answers, target_probs=together)

    def on_device(self, batch: Batch, device: torch.device) -> Batch:
        """The batch where the student is, its images normalised there."""

        there = batch.map(lambda values: values.to(device, non_blocking=True))
        normalise = self._dataset.normalise
        return replace(
            there,
            labeled_images=normalise(there.labeled_images),
            pool_weak=None if there.pool_weak is None else normalise(there.pool_weak),
            pool_strong=None if there.pool_strong is None else normalise(there.pool_strong),
        )

    def _share(self, stream: Stream, count: int, step: int, part: int) -> tuple[Indices, Indices]:
        share = count // self.parts
        return stream.take(step * count + part * share, share)
