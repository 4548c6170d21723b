"""Potstill's training step: supervised, distilled from the cached answers of 28 sources, and FixMatch.

The step is a whole turn of the one training loop, seen from its progress calls: loading ahead, gathering answers,
normalising bytes, forward, backward, optimiser, averaged weights and schedule. Images lie ready in memory, like the
peers', but as bytes. Precision and layout are measured first, as they are for a user.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import workload
from torch import Tensor
from workload import Arguments, pictures, report, student_model

from potstill.baselines.fixmatch import fixmatch_objective
from potstill.baselines.supervised import supervised_objective
from potstill.data import ViewDataset
from potstill.distillation.answers import PoolAnswers, SourceAnswers
from potstill.distillation.objective import source_space_objective
from potstill.pipeline.measured import student_compute
from potstill.training.batches import BatchPlan, TrainingBatches
from potstill.training.compute import ComputeChoice
from potstill.training.loop import Objective, train_student
from potstill.training.optimization import Optimization
from potstill.training.student import Student
from potstill.types import DenseLogits, ViewKind

VARIANTS = ("supervised", "sources-28", "fixmatch")
POOL = 512
MEASURED = Path(__file__).resolve().parents[2] / ".build-data" / "peers" / "measured"
Rows = npt.NDArray[np.int64]


class ReadyViews:
    """Every view is the picture itself: what augmentation costs is not compared."""

    def __init__(self) -> None:
        pixels = pictures(POOL).permute(0, 2, 3, 1).numpy()
        names = [str(number) for number in range(POOL)]
        self._dataset = ViewDataset(
            pixels, names, image_size=workload.IMAGE_SIZE, mean=workload.MEAN, std=workload.STD, seed=0
        )

    def views(self, rows: Rows, kind: ViewKind, *, epoch: Rows, draw: int) -> Tensor:
        return self._dataset.views(rows, "plain")

    def normalise(self, images: Tensor) -> Tensor:
        return self._dataset.normalise(images)


@dataclass
class Clock:
    """Notes when each step ends."""

    ends: list[float] = field(default_factory=list)

    def __call__(self, task: str, done: int, total: int, /) -> None:
        self.ends.append(time.perf_counter())


def main() -> None:
    arguments = workload.parse_arguments(VARIANTS)
    compute = _measured_compute()
    clock = Clock()
    _train(arguments, compute, clock)
    seconds = np.diff(clock.ends)[arguments.warmup : arguments.warmup + arguments.steps]
    report(arguments, seconds.tolist(), packages=("potstill", "accelerate"), compute=compute.name)


def _train(arguments: Arguments, compute: ComputeChoice, clock: Clock) -> None:
    answers = _answers() if arguments.variant == "sources-28" else None
    plan, objective = _method(arguments.variant)
    # Two steps more than are measured, so that batches are prepared ahead throughout; one before the first end.
    steps = arguments.warmup + arguments.steps + 3
    batches = TrainingBatches(
        ReadyViews(),
        workload.labels(POOL // 4),
        pool_size=POOL,
        plan=plan,
        steps=steps,
        seed=0,
        answers=answers,
    )
    settings = Optimization(
        steps=steps,
        lr=workload.LR,
        momentum=workload.MOMENTUM,
        weight_decay=workload.WEIGHT_DECAY,
        ema=workload.EMA,
        compute=compute,
    )
    student = Student(student_model(), answers.num_classes if answers else {})
    train_student(student, batches, objective, settings=settings, progress=clock)


def _method(variant: str) -> tuple[BatchPlan, Objective]:
    """The rows of a step, as the method of that name takes them, and its objective."""
    if variant == "supervised":
        return BatchPlan(labeled=workload.BATCH), supervised_objective()
    if variant == "sources-28":
        labeled = workload.BATCH // 3
        objective = source_space_objective(
            [1 / workload.SOURCES] * workload.SOURCES,
            label_weight=workload.LABEL_WEIGHT,
            temperatures=[workload.TEMPERATURE] * workload.SOURCES,
        )
        return BatchPlan(labeled=labeled, pool_weak=workload.BATCH - labeled), objective
    labeled, unlabeled = workload.FIXMATCH_LABELED, workload.FIXMATCH_LABELED * workload.FIXMATCH_RATIO
    plan = BatchPlan(labeled=labeled, pool_weak=unlabeled, pool_strong=unlabeled, forward_only_weak=True)
    return plan, fixmatch_objective()


def _answers() -> SourceAnswers:
    generator = np.random.default_rng(0)
    rows = np.arange(POOL)
    sources = {}
    for number in range(workload.SOURCES):
        logits = 3 * generator.standard_normal((POOL, workload.SOURCE_CLASSES), dtype=np.float32)
        maximum = logits.max(axis=1)
        shifted = logits - maximum[:, None]
        total = (maximum + np.log(np.exp(shifted).sum(axis=1))).astype(np.float32)
        kept = DenseLogits(shifted=shifted.astype(np.float16), maximum=maximum, log_sum_exp=total)
        sources[f"source {number}"] = PoolAnswers([(kept, rows)], temperature=workload.TEMPERATURE)
    return SourceAnswers(sources)


def _measured_compute() -> ComputeChoice:
    """Measured by the first process and read by the others, as from one run of a user to the next."""
    return student_compute(
        f"timm/{workload.STUDENT}",
        workload.IMAGE_SIZE,
        batch_size=workload.BATCH,
        device="cpu",
        cache_dir=MEASURED,
    )


if __name__ == "__main__":
    main()
