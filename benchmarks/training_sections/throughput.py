"""How much of the speed of a step is left when its images come from JPEG files?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from potstill.baselines.fixmatch import fixmatch_objective
from potstill.baselines.supervised import supervised_objective
from potstill.training.batches import BatchPlan, TrainingBatches
from potstill.training.optimization import Loading
from potstill.types import Batch, ViewKind
from training_sections.photos import HEIGHT, IMAGE_SIZE, WIDTH, image_ids, measure_packing
from training_sections.timing import interleaved_steps
from training_sections.workload import (
    BATCH,
    FIXMATCH,
    STUDENT,
    SUPERVISED,
    Run,
    batches_of,
    measured_compute,
    seconds_between,
    student_for,
)

GOAL = 0.75
EDGE = 2
"""Steps at both ends that are not measured: at the start the first batch is waited for, at the end none is prepared."""


@dataclass(frozen=True)
class Source:
    """Where a run's images come from; without a `loading` they lie ready, normalised, on the device."""

    plan: BatchPlan
    view: ViewKind
    packed: bool = True
    loading: Loading | None = None


VARIANTS = {
    "compute only": Source(SUPERVISED, "crop"),
    "packed, crop, 1 thread": Source(SUPERVISED, "crop", loading=Loading(0)),
    "packed, crop, 2 threads": Source(SUPERVISED, "crop", loading=Loading(2)),
    "packed, crop, 1 fork": Source(SUPERVISED, "crop", loading=Loading(1, "fork")),
    "packed, crop, 2 forks": Source(SUPERVISED, "crop", loading=Loading(2, "fork")),
    "packed, weak, 2 threads": Source(SUPERVISED, "weak", loading=Loading(2)),
    "packed, weak, 2 forks": Source(SUPERVISED, "weak", loading=Loading(2, "fork")),
    "files, crop, 2 threads": Source(SUPERVISED, "crop", packed=False, loading=Loading(2)),
    "files, crop, 2 forks": Source(SUPERVISED, "crop", packed=False, loading=Loading(2, "fork")),
    "fixmatch, compute only": Source(FIXMATCH, "weak"),
    "fixmatch, packed, 2 threads": Source(FIXMATCH, "weak", loading=Loading(2)),
    "fixmatch, packed, 2 forks": Source(FIXMATCH, "weak", loading=Loading(2, "fork")),
    "fixmatch, files, 2 forks": Source(FIXMATCH, "weak", packed=False, loading=Loading(2, "fork")),
}
JUDGED = "packed, crop, 2 threads"  # the default of the commands


def measure_throughput(rounds: int) -> dict[str, Any]:
    """The section `throughput` of the record; about 4 minutes on two cores.

    An epoch is 16 steps of 64 images, all but a few of them measured; FixMatch's rows count every view.
    """
    steps = len(image_ids()) // BATCH
    measured = steps - 2 * EDGE
    calls: dict[str, Callable[[], float]] = {
        name: partial(seconds_between, _run(source), EDGE, steps - EDGE, steps=steps)
        for name, source in VARIANTS.items()
    }
    timed = interleaved_steps(calls, rounds)
    found: dict[str, Any] = {}
    for name, source in VARIANTS.items():
        reference = "fixmatch, compute only" if source.plan == FIXMATCH else "compute only"
        seconds = timed["median_seconds"]
        of_compute = seconds[reference] / seconds[name]
        found[name] = {
            "images_a_second": source.plan.rows * measured / seconds[name],
            "of_compute_only": of_compute,
            **({"goal": GOAL, "reached": of_compute >= GOAL} if name == JUDGED else {}),
        }
        print(f"{name:28s} {found[name]['images_a_second']:.0f} images/s, {of_compute:.3f} of compute only", flush=True)
    return {
        "student": STUDENT,
        "compute": measured_compute(STUDENT).name,
        "image_size": IMAGE_SIZE,
        "files": f"JPEG, {WIDTH} x {HEIGHT}",
        "steps_an_epoch": steps,
        "measured_steps": measured,
        "packing": measure_packing(),
        **timed,
        "variants": found,
    }


def _run(source: Source) -> Run:
    batches = batches_of(source.plan, view=source.view, packed=source.packed)
    objective = fixmatch_objective() if source.plan == FIXMATCH else supervised_objective()
    run = Run(partial(student_for, STUDENT), batches, objective, measured_compute(STUDENT), source.loading or Loading())
    return run if source.loading else replace(run, batches=_OneBatch(batches))


class _OneBatch(TrainingBatches):
    """The same batch in every step, prepared, on the device and normalised once and for all."""

    def __init__(self, batches: TrainingBatches) -> None:
        self.plan, self.steps, self.parts = batches.plan, batches.steps, batches.parts
        self._batch = batches.on_device(batches.batch(0), torch.device("cpu"))

    def batch(self, step: int, part: int = 0) -> Batch:
        return self._batch

    def with_answers(self, batch: Batch) -> Batch:
        return batch

    def on_device(self, batch: Batch, device: torch.device) -> Batch:
        return batch
