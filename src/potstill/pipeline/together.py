"""Training by several processes. Process 0 runs the command as if it were alone; the others only help it to train.

So data is opened, sources are run, students are evaluated and files are written in one place, and an error is told
once. What is to be trained goes to the others in a file of the run directory; images and source outputs they read
from the caches that process 0 has filled.
"""

from __future__ import annotations

import logging
import signal
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from potstill.config import RunConfig
from potstill.errors import DivergedError, Interrupted, OutputError, PotstillError, UsageError
from potstill.files import write_bytes
from potstill.pipeline.methods import MethodChoice, parse_method
from potstill.pipeline.pool_views import pool_views
from potstill.pipeline.preparation import Material, gather_material, with_stored_views, without_sources
from potstill.pipeline.student_training import train_gradients
from potstill.training.interruption import SIGNALS
from potstill.training.loop import Trained
from potstill.training.orders import Order, leave_processes, orders
from potstill.training.processes import accelerator_for, process_count, process_number
from potstill.types import Preprocessing, Progress, SourceWeights, Target, no_progress

TASK = "task.json"
LAST_ORDER_SECONDS = 10.0
"""How long a process whose training failed waits to hear that process 0 failed as well."""
INTERRUPTED = Interrupted.exit_code


@dataclass(frozen=True)
class TrainingTask:
    """All that a process needs to know to train along."""

    method: str
    target: Target
    weights: SourceWeights | None
    config: RunConfig
    preprocessing: Preprocessing
    directory: Path


_TASKS = TypeAdapter(TrainingTask)


def task_bytes(task: TrainingTask) -> bytes:
    """A task as its file holds it: JSON."""
    return _TASKS.dump_json(task)


def train_together(
    choice: MethodChoice,
    target: Target,
    material: Material,
    weights: SourceWeights | None,
    config: RunConfig,
    preprocessing: Preprocessing,
    *,
    directory: Path,
    progress: Progress,
) -> Trained:
    """`train_gradients` with the help of every other process of the run; alone where there is none."""
    if process_count() == 1:
        return train_gradients(
            choice, target, material, weights, config, preprocessing, directory=directory, progress=progress
        )
    if process_number() > 0:
        raise UsageError("Several processes train together through the commands: torchrun ... -m potstill distill ...")
    # What takes long happens once, here, while nobody waits in a collective call.
    pool_views(target, config, preprocessing, progress)
    if weights is not None and choice.method.imitates:
        with_stored_views(material, target, weights.used, config, progress)
    file = (directory / TASK).resolve()
    task = TrainingTask(choice.name, target, weights, config, preprocessing, directory.resolve())
    write_bytes(file, task_bytes(task))
    orders().send(Order(str(file)))
    try:
        return train_gradients(
            choice, target, material, weights, config, preprocessing, directory=directory, progress=progress
        )
    except RuntimeError as error:
        # What gloo says when the other end of a connection is gone.
        if any(words in str(error) for words in ("closed by peer", "reset by peer", "Connection refused")):
            raise PotstillError(
                "Another process of this run has ended; its message stands above. Go on with --resume."
            ) from error
        raise
    finally:
        file.unlink(missing_ok=True)


def help_training() -> int:
    """What every process but number 0 does instead of the command: train along until it may leave.

    Returns:
        The exit code, that of process 0.
    """
    logging.getLogger("potstill").addHandler(logging.NullHandler())  # process 0 says it all
    for number in SIGNALS:
        signal.signal(number, _leave)
    while True:
        order = orders().receive()
        if order is None:
            continue
        if order.task is None:
            return _farewell(order)
        try:
            _train_along(order.task)
        except (DivergedError, Interrupted):
            continue  # the same in every process; process 0 says what follows
        except Exception:
            # Most likely what stopped process 0 too, or its absence.
            last = orders().receive(seconds=LAST_ORDER_SECONDS)
            if last is None or last.task is not None:
                raise
            return _farewell(last)


def _farewell(order: Order) -> int:
    orders().hear()
    leave_processes()
    return order.exit_code


def _leave(number: int, frame: object) -> None:
    raise SystemExit(INTERRUPTED)


def _train_along(file: str) -> None:
    try:
        task = _TASKS.validate_json(Path(file).read_bytes())
    except OSError as error:
        raise OutputError(
            f"Process {process_number()} cannot read {Path(file).name} of the run ({error.strerror}). All processes "
            "must see the same --output directory, so put it on a disk that all machines share."
        ) from error
    accelerator_for(task.config.device)  # before anything else touches a GPU: each process has one of its own
    names = tuple(task.weights.values) if task.weights else ()
    target = task.target
    train_gradients(
        parse_method(task.method),
        target,
        gather_material(target, task.config, sources=names) if names else without_sources(target),
        task.weights,
        task.config,
        task.preprocessing,
        directory=task.directory,
        progress=no_progress,
    )
