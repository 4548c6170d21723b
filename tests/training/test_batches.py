"""Batches are a pure function of (seed, step)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from potstill.training.batches import BatchPlan, EpochStream, TrainingBatches
from potstill.types import ViewKind


class CodedViews:
    """Images whose four pixels say which row, kind, epoch and draw they are."""

    def views(self, rows: np.ndarray, kind: ViewKind, *, epoch: int, draw: int) -> torch.Tensor:
        code = ["plain", "weak", "strong"].index(kind)
        values = torch.tensor([[row, code, epoch, draw] for row in rows.tolist()], dtype=torch.float32)
        return values.reshape(-1, 1, 2, 2).expand(-1, 3, 2, 2)


def decoded(images: torch.Tensor) -> np.ndarray:
    return images[:, 0].reshape(len(images), 4).numpy()


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_every_pass_is_a_permutation_and_cuts_do_not_matter(size: int) -> None:
    stream = EpochStream(size, seed=3, name="pool")
    items, passes = stream.take(0, 4 * size)
    for number in range(4):
        assert sorted(items[passes == number].tolist()) == list(range(size))
    pieces = [stream.take(start, 3)[0] for start in range(0, 4 * size - 3, 3)]
    assert np.concatenate(pieces).tolist() == items[: len(np.concatenate(pieces))].tolist()


def test_passes_and_streams_and_seeds_differ() -> None:
    orders = [
        EpochStream(40, seed=seed, name=name).take(start, 40)[0].tolist()
        for seed, name, start in ((0, "pool", 0), (0, "pool", 40), (1, "pool", 0), (0, "labeled", 0))
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_labels_and_images_belong_together_across_passes() -> None:
    labels = np.array([4, 5, 6])
    rows = np.array([10, 20, 30])
    plan = BatchPlan(labeled=8, pool_weak=5, pool_strong=5, forward_only_weak=True)
    batches = TrainingBatches(CodedViews(), labels, labeled_rows=rows, pool_size=40, plan=plan, steps=10, seed=0)
    batch = batches.batch(3)
    label_of_row = dict(zip(rows.tolist(), labels.tolist(), strict=True))
    code = decoded(batch.labeled_images)
    assert [label_of_row[int(row)] for row in code[:, 0]] == batch.labels.tolist()
    assert (code[:, 1] == 1).all()
    # 24 labeled images were taken before: passes of 3 images, so these belong to passes 8, 9 and 10.
    assert code[:, 2].tolist() == [8, 8, 8, 9, 9, 9, 10, 10]
    assert batch.progress == pytest.approx(0.3)


def test_weak_and_strong_views_are_of_the_same_pool_images() -> None:
    plan = BatchPlan(labeled=2, pool_weak=6, pool_strong=6, forward_only_weak=True)
    batches = TrainingBatches(CodedViews(), np.array([0, 1]), pool_size=9, plan=plan, steps=4, seed=0)
    batch = batches.batch(1)
    assert batch.pool_weak is not None
    assert batch.pool_strong is not None
    assert batch.pool_rows is not None
    weak, strong = decoded(batch.pool_weak), decoded(batch.pool_strong)
    assert weak[:, 0].tolist() == strong[:, 0].tolist() == batch.pool_rows.tolist()
    assert (strong[:, 1] == 2).all()
    assert weak[0, 3] != strong[0, 3]


def test_a_batch_can_be_asked_for_in_any_order() -> None:
    def make() -> TrainingBatches:
        plan = BatchPlan(labeled=3, pool_weak=4)
        return TrainingBatches(CodedViews(), np.arange(5), pool_size=11, plan=plan, steps=9, seed=1)

    forward = [make().batch(step) for step in range(9)]
    backward = make()
    for step in reversed(range(9)):
        assert torch.equal(backward.batch(step).labeled_images, forward[step].labeled_images)
        assert torch.equal(backward.batch(step).pool_rows, forward[step].pool_rows)


def test_cost_counts_a_row_without_gradient_as_a_third() -> None:
    assert BatchPlan(labeled=96).cost == 96
    assert BatchPlan(labeled=32, pool_weak=64).cost == 96
    fixmatch = BatchPlan(labeled=9, pool_weak=63, pool_strong=63, forward_only_weak=True)
    assert fixmatch.cost == pytest.approx(9 + 63 + 21)
    assert (fixmatch.rows, fixmatch.trained_rows) == (135, 72)
