"""The one training loop. A method is an objective; nothing here knows which."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from timm.optim._param_groups import param_groups_weight_decay
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from potstill.errors import DivergedError, Interrupted, UsageError
from potstill.training.batches import TrainingBatches
from potstill.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from potstill.training.schedule import learning_rate
from potstill.training.student import Student, StudentOutputs, freeze_batch_norm
from potstill.types import Batch, Progress, no_progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerate import Accelerator

Tensors = tuple[Tensor, ...] | list[Tensor]
Forward = Callable[[Tensor], StudentOutputs]
Objective = Callable[[Forward, Batch], Mapping[str, Tensor]]
"""(student, batch) -> named terms; `loss` is the one that is minimised, the others are shown beside it."""


@dataclass(frozen=True)
class Optimization:
    """How a student is trained: stochastic gradient descent with Nesterov momentum, warm-up and cosine.

    `lr` is the peak; `weight_decay` spares biases and norms; `ema` is the decay of the averaged weights, which are
    the ones that are kept; `bn` says whether batch statistics are used and updated or the initial ones are kept.
    """

    steps: int
    lr: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    ema: float = 0.99
    bn: Literal["batch", "frozen"] = "batch"
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class CheckpointPolicy:
    """Where and how often the state is saved; `fingerprint` must match for a run to go on."""

    path: Path
    fingerprint: str
    every_seconds: float = 60.0


@dataclass(frozen=True)
class Trained:
    """A trained student (averaged weights, evaluation mode, CPU) and what it took."""

    model: nn.Module
    history: list[dict[str, float]]
    images_seen: int
    images_trained: int
    seconds: float


def train_student(
    student: Student,
    batches: TrainingBatches,
    objective: Objective,
    *,
    settings: Optimization,
    checkpoints: CheckpointPolicy | None = None,
    progress: Progress = no_progress,
    should_stop: Callable[[], bool] = lambda: False,
    task: str = "train",
) -> Trained:
    """Train `student` on `batches` by `objective`.

    The same arguments on the same machine and number of threads give the same bits, whether or not the run was
    interrupted on the way. The caller's random state is left as it was.

    Args:
        student: changed in place; its source heads are left out of the result.
        batches: gives the batch of any step.
        objective: the method.
        settings: optimiser, schedule, device, seed.
        checkpoints: where to save the state; an existing checkpoint is continued.
        progress: told after each step.
        should_stop: asked after each step; when true, the state is saved and Interrupted is raised.
        task: the name under which progress is told.

    Raises:
        DivergedError: the loss is not finite.
        Interrupted: `should_stop` said so.
        CheckpointError: the checkpoint is damaged or belongs to another run.
    """
    with torch.random.fork_rng():
        state = _State(student, settings)
        if checkpoints is not None:
            state.restore(load_checkpoint(checkpoints.path, fingerprint=checkpoints.fingerprint))
        _run_steps(state, batches, objective, settings, checkpoints, progress, should_stop, task)
        averaged = copy.deepcopy(state.averaged_model).cpu().eval()
    plan = batches.plan
    return Trained(
        model=averaged,
        history=state.history,
        images_seen=plan.rows * settings.steps,
        images_trained=plan.trained_rows * settings.steps,
        seconds=state.seconds,
    )


class _State:
    """Everything that changes while training."""

    def __init__(self, student: Student, settings: Optimization) -> None:
        self.accelerator = accelerator_for(settings.device)
        # Convolutions on channels-last tensors are faster on every device that we measured.
        self.student = student.to(device=self.accelerator.device).train()
        self.student.model.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            param_groups_weight_decay(self.student, settings.weight_decay),
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=True,
        )
        self.average = AveragedModel(self.student, multi_avg_fn=_warming_average(settings.ema))
        # The process wrapper is for the forward pass only: weights are read and saved through the bare student.
        self.forward: Forward = self.accelerator.prepare_model(self.student)
        self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []

    @property
    def averaged_model(self) -> nn.Module:
        """The timm model with averaged weights."""
        averaged = self.average.module
        if not isinstance(averaged, Student):
            raise TypeError(f"expected an averaged Student, got {type(averaged).__name__}")
        return averaged.model

    def restore(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is None:
            return
        self.student.load_state_dict(checkpoint.part("student."))
        self.average.load_state_dict(checkpoint.part("average."))
        restore_optimizer(self.optimizer, checkpoint.part("optimizer."))
        self.step, self.seconds, self.history = checkpoint.step, checkpoint.seconds, list(checkpoint.history)

    def save(self, policy: CheckpointPolicy) -> None:
        if not self.accelerator.is_main_process:
            return
        parts = {
            "student.": self.student.state_dict(),
            "average.": self.average.state_dict(),
            "optimizer.": optimizer_tensors(self.optimizer),
        }
        tensors = {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}
        state = Checkpoint(self.step, self.seconds, self.history, tensors)
        save_checkpoint(policy.path, state, fingerprint=policy.fingerprint)


def _run_steps(
    state: _State,
    batches: TrainingBatches,
    objective: Objective,
    settings: Optimization,
    checkpoints: CheckpointPolicy | None,
    progress: Progress,
    should_stop: Callable[[], bool],
    task: str,
) -> None:
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    log_every = max(1, settings.steps // 100)
    with _prefetched(batches, state.step) as next_batch:
        for step in range(state.step, settings.steps):
            terms = _train_step(state, next_batch(step), objective, settings, step)
            state.step, state.seconds = step + 1, time.monotonic() - started
            if state.step % log_every == 0 or state.step == settings.steps:
                state.history.append(_history_row(state, terms))
            progress(task, state.step, settings.steps)
            stop = should_stop() and state.step < settings.steps
            due = checkpoints is not None and time.monotonic() - saved > checkpoints.every_seconds
            if checkpoints is not None and (due or stop):
                state.save(checkpoints)
                saved = time.monotonic()
            if stop:
                raise Interrupted(f"Stopped after step {state.step} of {settings.steps}; go on with --resume.")


def _train_step(
    state: _State, batch: Batch, objective: Objective, settings: Optimization, step: int
) -> Mapping[str, Tensor]:
    # Dropout and stochastic depth depend on the step alone, so that a resumed run draws the same numbers.
    torch.manual_seed((settings.seed << 32) + step)
    if settings.bn == "frozen":
        freeze_batch_norm(state.student)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(step, settings.steps, peak=settings.lr)
    terms = objective(state.forward, _to_device(batch, state.accelerator.device))
    state.accelerator.backward(terms["loss"])
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.average.update_parameters(state.student)
    return terms


def _history_row(state: _State, terms: Mapping[str, Tensor]) -> dict[str, float]:
    values = {name: float(value.detach()) for name, value in terms.items()}
    if not math.isfinite(values["loss"]):
        raise DivergedError(f"The loss became {values['loss']} at step {state.step}. Lower --lr and start again.")
    lr = state.optimizer.param_groups[0]["lr"]
    return {"step": state.step, **values, "lr": lr, "seconds": round(state.seconds, 3)}


@contextmanager
def _prefetched(batches: TrainingBatches, first: int) -> Iterator[Callable[[int], Batch]]:
    """Prepare the next batch in a thread while the current one trains."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        ahead: dict[int, Future[Batch]] = {first: pool.submit(batches.batch, first)}

        def next_batch(step: int) -> Batch:
            if step + 1 < batches.steps:
                ahead[step + 1] = pool.submit(batches.batch, step + 1)
            return ahead.pop(step).result()

        yield next_batch


def _to_device(batch: Batch, device: torch.device) -> Batch:
    def move(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(device, non_blocking=True)

    return replace(
        batch,
        labeled_images=batch.labeled_images.to(device, non_blocking=True),
        labels=batch.labels.to(device, non_blocking=True),
        pool_rows=move(batch.pool_rows),
        pool_weak=move(batch.pool_weak),
        pool_strong=move(batch.pool_strong),
    )


def _warming_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Exponential average whose decay grows from 0 to `decay`, so that short runs do not keep the initial weights."""

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        steps = int(count)
        torch._foreach_lerp_(list(averaged), list(current), 1 - min(decay, (1 + steps) / (10 + steps)))

    return update


@cache
def accelerator_for(device: str) -> Accelerator:
    """The process's one Accelerator: device, backward and process information; precision stays float32."""
    from accelerate import Accelerator

    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")
    if accelerator.device.type != torch.device(device).type:
        raise UsageError(f"Asked to train on {device}, but this process already trains on {accelerator.device}.")
    return accelerator
