"""Batches are a pure function of (seed, step)."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from potstill.training.batches import BatchPlan, EpochStream, TrainingBatches
from potstill.types import DenseTargets, ViewKind


class CodedViews:
    """Images whose four pixels say which row, kind, epoch and draw they are."""

    def views(self, rows: np.ndarray, kind: ViewKind, *, epoch: np.ndarray, draw: int) -> torch.Tensor:
        code = ["plain", "weak", "strong", "crop"].index(kind)
        values = [[row, code, number, draw] for row, number in zip(rows.tolist(), epoch.tolist(), strict=True)]
        return torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 2, 2).expand(-1, 3, 2, 2)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() / 4


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


def test_parts_of_a_step_make_up_its_batch_and_every_image_comes_once_a_pass() -> None:
    plan = BatchPlan(labeled=4, pool_weak=8, pool_strong=8)
    options = {"pool_size": 24, "plan": plan, "steps": 6, "seed": 2}
    whole = TrainingBatches(CodedViews(), np.arange(5), **options)  # type: ignore[arg-type]
    cut = TrainingBatches(CodedViews(), np.arange(5), parts=4, **options)  # type: ignore[arg-type]
    seen: list[int] = []
    for step in range(6):
        parts = [cut.batch(step, part) for part in range(4)]
        batch = whole.batch(step)
        for name in ("labeled_images", "labels", "pool_rows", "pool_passes", "pool_weak", "pool_strong"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name)), name
        seen += torch.cat([part.pool_rows for part in parts]).tolist()
    assert sorted(seen) == sorted(2 * list(range(24)))


def test_a_plan_that_cannot_be_cut_is_refused_and_the_nearest_is_offered() -> None:
    plan = BatchPlan(labeled=9, pool_weak=63, pool_strong=63, forward_only_weak=True)
    with pytest.raises(ValueError, match="cut into 2 parts"):
        TrainingBatches(CodedViews(), np.arange(5), pool_size=9, plan=plan, steps=1, seed=0, parts=2)
    assert plan.divisible_by(2) == BatchPlan(8, 56, 56, forward_only_weak=True)
    assert plan.divisible_by(16) == BatchPlan(16, 112, 112, forward_only_weak=True)
    assert BatchPlan(labeled=1).divisible_by(8) == BatchPlan(labeled=8)
    assert BatchPlan(labeled=32, pool_weak=64).divisible_by(5) == BatchPlan(labeled=30, pool_weak=60)
    assert plan.divisible_by(1) == plan


def test_answers_are_those_for_the_rows_and_passes_of_the_batch() -> None:
    class Echo:
        def gather(self, rows: torch.Tensor, passes: torch.Tensor) -> tuple[DenseTargets, ...]:
            return (DenseTargets(torch.stack([rows, passes], dim=1).float()),)

    plan = BatchPlan(labeled=1, pool_weak=4)
    batches = TrainingBatches(CodedViews(), np.arange(2), pool_size=6, plan=plan, steps=3, seed=0, answers=Echo())
    batch = batches.on_device(batches.with_answers(batches.batch(1)), torch.device("cpu"))
    (answers,) = batch.answers
    assert isinstance(answers, DenseTargets)
    assert answers.probs[:, 0].tolist() == batch.pool_rows.tolist()  # type: ignore[union-attr]
    assert answers.probs[:, 1].tolist() == batch.pool_passes.tolist() == [0, 0, 1, 1]  # type: ignore[union-attr]
    assert (4 * decoded(batch.pool_weak)[:, 0]).tolist() == batch.pool_rows.tolist()  # type: ignore[union-attr, arg-type]


def test_balanced_batches_hold_every_class_equally_often() -> None:
    labels = np.array([0] * 10 + [1] * 2 + [2])
    options = {"pool_size": 13, "plan": BatchPlan(labeled=6), "steps": 3, "seed": 0}
    batches = TrainingBatches(CodedViews(), labels, balanced=True, **options)  # type: ignore[arg-type]
    for step in range(3):
        assert np.bincount(batches.batch(step).labels.numpy()).tolist() == [2, 2, 2]


def test_answers_are_not_copied_into_worker_processes() -> None:
    class Heavy:
        def gather(self, rows: torch.Tensor, passes: torch.Tensor) -> tuple[DenseTargets, ...]:
            raise AssertionError

        def __reduce__(self) -> tuple[type, tuple[()]]:
            raise TypeError("too large to copy")

    batches = TrainingBatches(
        CodedViews(), np.arange(2), pool_size=6, plan=BatchPlan(1, 2), steps=3, seed=0, answers=Heavy()
    )
    copied = pickle.loads(pickle.dumps(batches))
    assert torch.equal(copied.batch(2).pool_rows, batches.batch(2).pool_rows)
