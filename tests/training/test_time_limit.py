"""`--minutes` is a budget: training ends in time, with a learning rate near zero and a usable student."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from potstill.baselines.supervised import supervised_objective
from potstill.errors import Interrupted
from potstill.training import loop
from potstill.training.batches import BatchPlan, TrainingBatches
from potstill.training.checkpoint import load_checkpoint
from potstill.training.loop import Forward, Objective, Trained, train_student
from potstill.training.optimization import CheckpointPolicy, Optimization
from potstill.training.schedule import TimeLimit
from potstill.training.student import Student
from potstill.types import Batch, ViewKind

LIMIT, PEAK = 10.0, 0.1


def test_a_slow_run_in_short_sittings_is_shortened_by_the_pace_of_the_earlier_ones() -> None:
    done, steps, elapsed, pace = 0, 100, 0.0, (0, 0.0)
    while done < steps:
        sitting = TimeLimit(100.0, pace)
        for _ in range(min(9, steps - done)):  # too few to tell alone
            done, elapsed = done + 1, elapsed + 2.0
            steps = sitting.affordable_steps(done, steps, elapsed=elapsed)
        pace = sitting.pace
    assert (done, elapsed) == (50, 100.0)


def test_a_slow_start_of_an_earlier_sitting_tells_nothing() -> None:
    first = TimeLimit(10.0)
    assert [first.affordable_steps(done, 500, elapsed=6.0 + 0.01 * done) for done in (1, 2)] == [500, 500]
    second = TimeLimit(10.0, first.pace)
    assert second.affordable_steps(3, 500, elapsed=6.03) == 500


class Classifier(nn.Module):
    """The smallest thing that can be a student: its features are the mean colours."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward_features(self, images: Tensor) -> Tensor:
        return images

    def forward_head(self, maps: Tensor, pre_logits: bool) -> Tensor:
        return maps.mean((2, 3))

    def get_classifier(self) -> nn.Linear:
        return self.head


class Colours:
    """Images of one colour, which is their class."""

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay

    def views(self, rows: np.ndarray, kind: ViewKind, *, epoch: np.ndarray, draw: int) -> Tensor:
        time.sleep(self._delay)
        colours = 255 * torch.eye(3, dtype=torch.uint8)[torch.from_numpy(rows % 3)]
        return colours[:, :, None, None].expand(-1, -1, 2, 2).contiguous()

    def normalise(self, images: Tensor) -> Tensor:
        return images.float() / 255


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def slow_down(self, seconds: Callable[[int], float]) -> Objective:
        """An objective during whose k-th call `seconds(k)` pass."""
        objective, calls = supervised_objective(), iter(range(10**6))

        def slow(student: Forward, batch: Batch) -> dict[str, Tensor]:
            self.now += seconds(next(calls))
            return dict(objective(student, batch))

        return slow


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def train(
    objective: Objective, *, steps: int, limit: float | None = LIMIT, delay: float = 0.0, **options: Any
) -> Trained:
    torch.manual_seed(0)
    batches = TrainingBatches(
        Colours(delay), np.arange(6) % 3, pool_size=6, plan=BatchPlan(labeled=6), steps=steps, seed=0
    )
    settings = Optimization(steps=steps, lr=PEAK, seconds=limit, ema=0.9)
    return train_student(Student(Classifier(), {}), batches, objective, settings=settings, **options)


def rates(trained: Trained) -> list[float]:
    return [row["lr"] for row in trained.history]


@pytest.mark.parametrize("step", [0.05, 0.3, 1.9])
def test_a_slow_machine_shortens_the_schedule_as_a_whole(clock: Clock, step: float) -> None:
    trained = train(clock.slow_down(lambda call: step), steps=1000)
    assert trained.steps == pytest.approx(LIMIT / step, abs=1)
    assert LIMIT - 2 * step < trained.seconds <= LIMIT
    assert trained.images_seen == 6 * trained.steps
    if trained.steps > 10:
        assert rates(trained)[-1] < 0.01 * PEAK
    assert all(value.isfinite().all() for value in trained.model.state_dict().values())


def test_slower_and_slower(clock: Clock) -> None:
    trained = train(clock.slow_down(lambda call: 0.05 * 1.02**call), steps=1000)
    assert trained.seconds <= LIMIT + 0.05 * 1.02**trained.steps
    assert trained.steps > 50
    assert rates(trained)[-1] < 0.05 * PEAK


def test_one_step_that_takes_longer_than_all_the_time(clock: Clock) -> None:
    trained = train(clock.slow_down(lambda call: 50.0 if call == 7 else 0.1), steps=1000)
    assert trained.steps == 8


def test_the_first_step_takes_longer_than_all_the_time(clock: Clock) -> None:
    assert train(clock.slow_down(lambda call: LIMIT), steps=1000).steps == 1


def test_a_slow_start_is_not_taken_for_a_slow_machine(clock: Clock) -> None:
    trained = train(clock.slow_down(lambda call: 3.0 if call == 0 else 0.01), steps=500)
    assert trained.steps == 500
    assert trained.seconds == pytest.approx(3.0 + 499 * 0.01)


def test_a_start_that_takes_most_of_the_time_leaves_the_rest(clock: Clock) -> None:
    trained = train(clock.slow_down(lambda call: 6.0 if call == 0 else 0.01), steps=900)
    assert trained.steps == pytest.approx(401, abs=2)
    assert LIMIT - 0.05 < trained.seconds <= LIMIT
    assert rates(trained)[-1] < 0.01 * PEAK


def test_one_slow_step_costs_its_own_time_and_little_more(clock: Clock) -> None:
    trained = train(clock.slow_down(lambda call: 0.2 if call == 20 else 0.01), steps=900)
    assert trained.steps > 750


def test_a_run_in_time_is_left_alone(clock: Clock) -> None:
    limited = train(clock.slow_down(lambda call: 0.09), steps=100)
    free = train(supervised_objective(), steps=100, limit=None)
    assert limited.steps == free.steps == 100
    assert rates(limited) == rates(free)
    assert torch.equal(limited.model.head.weight, free.model.head.weight)


def test_earlier_sittings_count(clock: Clock, tmp_path: Path) -> None:
    policy = CheckpointPolicy(tmp_path / "last.safetensors", fingerprint="abc", every_seconds=1e9)
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted):
        train(
            clock.slow_down(lambda call: 0.5),
            steps=100,
            checkpoints=policy,
            should_stop=lambda: next(calls) == 12,
        )
    saved = load_checkpoint(policy.path, fingerprint="abc")
    assert saved is not None
    assert (saved.step, saved.steps, saved.seconds) == (12, 20, pytest.approx(6.0))
    clock.now += 86_400  # the machine was off for a day, which is no training
    resumed = train(clock.slow_down(lambda call: 0.5), steps=100, checkpoints=policy)
    whole = train(clock.slow_down(lambda call: 0.5), steps=100)
    assert (resumed.steps, resumed.seconds) == (20, pytest.approx(10.0))
    assert torch.equal(resumed.model.head.weight, whole.model.head.weight)
    assert rates(resumed)[-1] == rates(whole)[-1] < 0.01 * PEAK


def test_killed_after_the_last_step_there_is_nothing_left_to_do(clock: Clock, tmp_path: Path) -> None:
    policy = CheckpointPolicy(tmp_path / "last.safetensors", fingerprint="abc", every_seconds=-1.0)
    ended = train(clock.slow_down(lambda call: 0.5), steps=100, checkpoints=policy)
    again = train(clock.slow_down(lambda call: 0.5), steps=100, checkpoints=policy)
    assert again.steps == ended.steps == 20
    assert torch.equal(again.model.head.weight, ended.model.head.weight)


def test_real_time_with_a_slow_loader() -> None:
    started = time.monotonic()
    trained = train(supervised_objective(), steps=1000, limit=1.0, delay=0.02)
    assert time.monotonic() - started < 2.5
    assert trained.seconds < 1.5
    assert 5 <= trained.steps <= 60
    assert rates(trained)[-1] < 0.2 * PEAK
    images = Colours().normalise(Colours().views(np.arange(3), "plain", epoch=np.zeros(3, dtype=np.int64), draw=0))
    logits = trained.model.get_classifier()(images.mean((2, 3)))
    assert logits.argmax(1).tolist() == [0, 1, 2]
