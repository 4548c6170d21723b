"""What is trained: students, what 28 sources say about the photos, and a run of a few steps through the real loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from potstill.baselines.supervised import supervised_objective
from potstill.cache.encoding import decode_logits, encode_logits, kept_classes
from potstill.cache.shards import ShardedRows, open_shard, write_shard
from potstill.distillation.answers import PoolAnswers, SourceAnswers
from potstill.distillation.objective import source_space_objective
from potstill.distillation.softening import ConfidenceKind, confidence_weights
from potstill.models import create_model
from potstill.pipeline.measured import student_compute
from potstill.training.batches import BatchPlan, TrainingBatches
from potstill.training.compute import ComputeChoice
from potstill.training.loop import Objective, train_student
from potstill.training.optimization import Loading, Optimization
from potstill.training.student import Student
from potstill.types import SourceLogits, ViewKind
from training_sections.photos import FOLDER, IMAGE_SIZE, image_ids, labels_of_photos, views_of_photos

STUDENT = "timm/mobilenetv3_small_100"
CLASSES = 37
BATCH = 64
# What `transfer`, `weighted` and `fixmatch` make of a batch of 64.
SUPERVISED = BatchPlan(labeled=64)
DISTILLED = BatchPlan(labeled=21, pool_weak=43)
FIXMATCH = BatchPlan(labeled=6, pool_weak=42, pool_strong=42, forward_only_weak=True)
TEMPERATURE, LABEL_WEIGHT = 2.0, 0.3
WARMUP = 6
"""Steps at the start of a run that are not measured: they allocate memory and choose algorithms. With heads of sources
there is more to allocate: the third step still takes a tenth longer than the tenth."""

SourceClasses = Mapping[str, int]


def zoo_of(classes: int, sources: int = 28) -> SourceClasses:
    """Sources with so many classes each, by name."""
    return {f"{classes}-classes-{number:02d}": classes for number in range(sources)}


ZOOS: Mapping[str, SourceClasses] = {
    "2,492 classes": zoo_of(89),
    "7,980 classes": zoo_of(285),
    "mixed zoo": {**zoo_of(89, 24), **zoo_of(1000, 3), **zoo_of(21_841, 1)},
}


@dataclass(frozen=True)
class Run:
    """What `train_student` needs; the student is built anew for each call, so that all start alike."""

    build: Callable[[], Student]
    batches: TrainingBatches
    objective: Objective
    compute: ComputeChoice
    loading: Loading = field(default_factory=Loading)


def supervised_run(name: str = STUDENT, *, compute: ComputeChoice | None = None) -> Run:
    """Plain cross-entropy on 64 labeled images a step; plain views, so that making them takes next to no time."""
    return Run(
        partial(student_for, name), batches_of(SUPERVISED), supervised_objective(), compute or measured_compute(name)
    )


def distilled_run(
    zoo: SourceClasses,
    name: str = STUDENT,
    *,
    compute: ComputeChoice | None = None,
    answers: SourceAnswers | None = None,
    objective: Objective | None = None,
    balanced: bool = False,
) -> Run:
    """Distillation of cached sources: 21 labeled images and 43 of the pool a step, plain views as well."""
    return Run(
        partial(student_for, name, zoo),
        batches_of(DISTILLED, answers=answers or answers_of(zoo), balanced=balanced),
        objective or distillation_objective(len(zoo)),
        compute or measured_compute(name),
    )


def student_for(name: str, zoo: SourceClasses | None = None) -> Student:
    """A student with random weights, which cost as much as trained ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Student(create_model(name, num_classes=CLASSES, image_size=IMAGE_SIZE), zoo or {})


def measured_compute(name: str) -> ComputeChoice:
    """The precision and layout that a user's run would take on this machine."""
    return student_compute(name, IMAGE_SIZE, batch_size=BATCH, device="cpu", cache_dir=FOLDER / "cache")


def distillation_objective(sources: int, *, label_smoothing: float = 0.0, standardise: bool = False) -> Objective:
    """The objective of `weighted`; all source weights are equal."""
    return source_space_objective(
        [1 / sources] * sources,
        label_weight=LABEL_WEIGHT,
        temperatures=[TEMPERATURE] * sources,
        label_smoothing=label_smoothing,
        standardise=standardise,
    )


def batches_of(
    plan: BatchPlan,
    *,
    view: ViewKind = "plain",
    packed: bool = True,
    answers: SourceAnswers | None = None,
    balanced: bool = False,
) -> TrainingBatches:
    """Batches of the photos. All are labeled and all are in the pool."""
    return TrainingBatches(
        views_of_photos(packed=packed),
        labels_of_photos(),
        pool_size=len(image_ids()),
        plan=plan,
        steps=1000,
        seed=0,
        view=view,
        balanced=balanced,
        answers=answers,
    )


def answers_of(
    zoo: SourceClasses, *, standardise: bool = False, confidence: ConfidenceKind = "none", views: int = 1
) -> SourceAnswers:
    """What the sources say about the photos, read from shards as the cache writes them."""
    rows = np.arange(len(image_ids()))
    answers = {}
    for number, (name, classes) in enumerate(zoo.items()):
        stored = [(_cached_logits(name, classes, seed=100 * view + number), rows) for view in range(views)]
        weights = [confidence_weights(*each, kind=confidence, temperature=TEMPERATURE) for each in stored]
        answers[name] = PoolAnswers(
            stored,
            temperature=TEMPERATURE,
            standardise=standardise,
            confidences=[each for each in weights if each is not None],
        )
    return SourceAnswers(answers)


def _cached_logits(name: str, classes: int, *, seed: int) -> SourceLogits:
    """Logits of one source over the photos, written on first use; random ones are gathered as fast as others."""
    images = len(image_ids())
    path = FOLDER / "answers" / f"{name}-{seed}-{images}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        logits = 3 * torch.randn(images, classes, generator=torch.Generator().manual_seed(seed))
        digests = np.zeros((images, 32), dtype=np.uint8)
        write_shard(path, {"digests": digests, **encode_logits(logits, kept_classes(classes))})
    arrays = open_shard(path)
    order = np.arange(images)
    decoded = decode_logits(arrays, lambda key: ShardedRows([arrays[key]], np.zeros_like(order), order), classes)
    if decoded is None:
        raise ValueError(f"{path} holds no logits")
    return decoded


def seconds_of_step(run: Run, steps: int) -> float:
    """Mean seconds of a step of `train_student`: waiting for images, answers, student, losses, optimiser, average."""
    return seconds_between(run, WARMUP, WARMUP + steps, steps=WARMUP + steps) / steps


def seconds_between(run: Run, first: int, last: int, *, steps: int) -> float:
    """Seconds from the end of step number `first` to that of step number `last`, counted from 1, of so many steps."""
    ended: dict[int, float] = {}

    def note(_task: str, done: int, _total: int) -> None:
        ended[done] = time.perf_counter()

    train_student(
        run.build(),
        run.batches,
        run.objective,
        settings=Optimization(steps=steps, lr=0.003, compute=run.compute),
        loading=run.loading,
        progress=note,
    )
    return ended[last] - ended[first]
