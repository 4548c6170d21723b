"""The one training loop. A method is an objective; nothing here knows which."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from potstill.convolutions import repeatable_convolutions
from potstill.errors import DivergedError, Interrupted
from potstill.training.batches import TrainingBatches
from potstill.training.checkpoint import load_checkpoint, save_checkpoint
from potstill.training.loader import prepared_batches
from potstill.training.optimization import CheckpointPolicy, Loading, Optimization
from potstill.training.processes import accelerator_for, agree, require_same_step
from potstill.training.schedule import TimeLimit, learning_rate
from potstill.training.state import TrainingState
from potstill.training.student import Student, StudentOutputs
from potstill.types import Batch, Progress, no_progress


class Forward(Protocol):
    """A student as an objective sees it: `Student.forward`."""

    def __call__(self, images: Tensor, labeled: int | None = None, /) -> StudentOutputs: ...


Objective = Callable[[Forward, Batch], Mapping[str, Tensor]]
"""(student, batch) -> named terms; `loss` is the one that is minimised, the others are shown beside it. Every term is
a mean over the rows of the batch, so that the mean over equal parts of a batch is that of the whole. One that remembers
earlier batches is a torch module, whose buffers are saved and restored with the student."""


@dataclass(frozen=True)
class Trained:
    """A trained student (averaged weights, evaluation mode, CPU) and what it took; `steps` may be fewer than asked
    where the time was limited.
    """

    model: nn.Module
    history: list[dict[str, float]]
    steps: int
    images_seen: int
    images_trained: int
    seconds: float


def train_student(
    student: Student,
    batches: TrainingBatches,
    objective: Objective,
    *,
    settings: Optimization,
    loading: Loading | None = None,
    checkpoints: CheckpointPolicy | None = None,
    progress: Progress = no_progress,
    should_stop: Callable[[], bool] = lambda: False,
    task: str = "train",
) -> Trained:
    """Train `student` on `batches` by `objective`.

    The same arguments on the same CPU and number of threads give the same bits, whether or not the run was interrupted
    on the way and whoever prepared the batches. On a GPU cuDNN is held to algorithms that repeat their results; other
    kernels, such as the backward pass of interpolation, may not. The random state of the CPU and of the
    device is left as it was.

    Args:
        student: changed in place; its source heads are left out of the result.
        batches: gives the batch of any step, in as many parts as processes times `settings.accumulation`.
        objective: the method.
        settings: optimiser, schedule, precision, device, seed, time limit.
        loading: who prepares batches ahead.
        checkpoints: where to save the state; an existing checkpoint is continued.
        progress: told after each step.
        should_stop: asked after each step; when true, the state is saved and Interrupted is raised.
        task: the name under which progress is told.

    Raises:
        DivergedError: the loss is not finite.
        Interrupted: `should_stop` said so.
        CheckpointError: the checkpoint is damaged or belongs to another run.
    """
    device = accelerator_for(settings.device).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), repeatable_convolutions(device):
        state = TrainingState(student, settings, memory=objective if isinstance(objective, nn.Module) else None)
        _check_parts(state, batches, settings)
        if checkpoints is not None:
            state.restore(load_checkpoint(checkpoints.path, fingerprint=checkpoints.fingerprint))
        require_same_step(state.accelerator, state.step)
        keys, pinned = _keys(state, settings), device.type == "cuda"
        with prepared_batches(batches, keys, loading=loading or Loading(), pinned=pinned) as prepared:
            _run_steps(state, batches, prepared, objective, settings, checkpoints, progress, should_stop, task)
        if should_stop():  # too late to stop in a step, but whoever stops before the student is saved wants it back
            _save(state, checkpoints)
        plan = batches.plan
        return Trained(
            model=state.averaged_model(),
            history=state.history,
            steps=state.step,
            images_seen=plan.rows * state.step,
            images_trained=plan.trained_rows * state.step,
            seconds=state.seconds,
        )


def _check_parts(state: TrainingState, batches: TrainingBatches, settings: Optimization) -> None:
    expected = state.accelerator.num_processes * settings.accumulation
    if batches.parts != expected:
        raise ValueError(
            f"expected batches in {expected} parts ({state.accelerator.num_processes} processes x "
            f"{settings.accumulation} accumulated), got {batches.parts}"
        )


def _own_parts(state: TrainingState, settings: Optimization) -> range:
    first = state.accelerator.process_index * settings.accumulation
    return range(first, first + settings.accumulation)


def _keys(state: TrainingState, settings: Optimization) -> Iterator[tuple[int, int]]:
    """(step, part) of every batch that this process is going to need."""
    return ((step, part) for step in range(state.step, state.steps) for part in _own_parts(state, settings))


def _run_steps(
    state: TrainingState,
    batches: TrainingBatches,
    prepared: Iterator[Batch],
    objective: Objective,
    settings: Optimization,
    checkpoints: CheckpointPolicy | None,
    progress: Progress,
    should_stop: Callable[[], bool],
    task: str,
) -> None:
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    limit = TimeLimit(settings.seconds, state.pace)
    log_every = max(1, state.steps // 100)
    while state.step < state.steps:
        terms = _train_step(state, batches, prepared, objective, settings)
        state.step += 1
        # Several processes wait for their devices here. Asked less often, they would stop late.
        stop, state.seconds = agree(state.accelerator, float(should_stop()), time.monotonic() - started)
        state.steps = limit.affordable_steps(state.step, state.steps, elapsed=state.seconds)
        state.pace = limit.pace
        if state.step % log_every == 0 or state.step == state.steps:
            state.history.append(_history_row(state, terms))
        progress(task, state.step, state.steps)
        due = checkpoints is not None and time.monotonic() - saved > checkpoints.every_seconds
        if due or stop:
            _save(state, checkpoints)
            saved = time.monotonic()
        if stop:
            raise Interrupted(f"Stopped after step {state.step} of {state.steps}; go on with --resume.")


def _save(state: TrainingState, checkpoints: CheckpointPolicy | None) -> None:
    """Process 0 writes the state, unless it has diverged: that must not take the place of the last good one. The next
    row of the history tells of it."""
    if checkpoints is not None and state.accelerator.is_main_process and state.is_finite():
        save_checkpoint(checkpoints.path, state.checkpoint(), fingerprint=checkpoints.fingerprint)


def _train_step(
    state: TrainingState,
    batches: TrainingBatches,
    prepared: Iterator[Batch],
    objective: Objective,
    settings: Optimization,
) -> dict[str, Tensor]:
    """One step on this process's parts of a batch; the means of the objective's terms over them."""
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, state.steps, peak=settings.lr)
    parts = _own_parts(state, settings)
    means: dict[str, Tensor] = {}
    for part in parts:
        # Dropout and mixing depend on step and part alone, so that a resumed run draws the same numbers.
        torch.manual_seed((((settings.seed + (part << 20)) << 32) + state.step) % 2**63)
        batch = batches.on_device(next(prepared), state.accelerator.device)
        batch = replace(batch, progress=state.step / state.steps)
        with state.gradients_of_one_process(more_to_come=part != parts[-1]):
            terms = objective(state.forward, batch)
            state.accelerator.backward(terms["loss"] / len(parts))
        for name, value in terms.items():
            means[name] = means.get(name, 0) + value.detach() / len(parts)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.average.update(state.student.model)
    return means


def _history_row(state: TrainingState, terms: Mapping[str, Tensor]) -> dict[str, float]:
    """The terms, averaged over processes, as numbers."""
    stacked = torch.stack([value.float() for value in terms.values()])
    values = dict(zip(terms, state.accelerator.reduce(stacked, reduction="mean").tolist(), strict=True))
    if not math.isfinite(values["loss"]):
        raise DivergedError(f"The loss became {values['loss']} at step {state.step}. Lower --lr and start again.")
    lr = state.optimizer.param_groups[0]["lr"]
    return {"step": state.step, **values, "lr": lr, "seconds": round(state.seconds, 3)}
