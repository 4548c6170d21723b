"""From a method and its material to a trained model: batches, objective, checkpoint, the loop."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from potstill.baselines.frozen_probe import put_probe_head
from potstill.config import MACHINE_FIELDS, RunConfig
from potstill.data import VIEW_VERSION, ViewDataset, split_digest, target_fingerprint
from potstill.distillation.answers import SourceAnswers
from potstill.distillation.clusters import Clusters
from potstill.models import features_of
from potstill.pipeline.methods import MethodChoice, parse_method
from potstill.pipeline.objectives import objective_of
from potstill.pipeline.pool_clusters import settle_clusters
from potstill.pipeline.pool_stack import settle_stack
from potstill.pipeline.pool_views import pool_views, rows_of
from potstill.pipeline.preparation import Material, cache_dir_of, explained_memory, with_stored_views
from potstill.pipeline.run_files import CHECKPOINT, TEACHER
from potstill.pipeline.source_use import source_answers
from potstill.sources import content_sha256
from potstill.training.batches import BatchPlan, TrainingBatches
from potstill.training.compute import ComputeChoice
from potstill.training.interruption import stop_on_signal
from potstill.training.loop import Trained, train_student
from potstill.training.optimization import CheckpointPolicy, Loading, Optimization
from potstill.training.processes import process_count
from potstill.training.student import build_student
from potstill.types import Preprocessing, Progress, SourceWeights, Target

log = logging.getLogger(__name__)

EVALUATION_BATCH = 128


def train_gradients(
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
    """Train a student by gradient descent; a checkpoint in `directory` is continued."""
    pool, dataset = pool_views(target, config, preprocessing, progress)
    used = weights.used if weights and choice.method.imitates else ()
    material = with_stored_views(material, target, used, config, progress)
    clusters = settle_clusters(material, used, pool, cache_dir_of(config))
    answers = target_probs = teacher = None
    if weights is not None and choice.method.imitates:
        answers = source_answers(material, weights, pool, config, clusters=clusters, shuffled=choice.shuffled)
    if choice.method.taught_by == "stack" and weights is not None:
        target_probs = settle_stack(
            material, target, tuple(weights.values), pool, cache_dir_of(config), shuffled=choice.shuffled
        ).probs
    elif choice.method.taught_by == "student":
        config = _half_of(config)
        teacher = train_gradients(
            parse_method("transfer"),
            target,
            material,
            None,
            config,
            preprocessing,
            directory=directory / TEACHER,
            progress=progress,
        )
        target_probs = _probs_of_teacher(teacher.model, target, pool, dataset)
    batches = _batches(choice, target, config, pool, dataset, answers, target_probs)
    student = build_student(
        config.student,
        len(target.classes),
        weights=_weights_of_start(choice, material, weights) or config.student_weights,
        source_classes=answers.num_classes if answers else {},
        image_size=preprocessing.image_size,
        seed=target.split.seed,
        offline=config.offline,
    )
    fingerprint = _fingerprint(choice.name, target, material, weights, clusters, config, batches.plan, target_probs)
    with explained_memory(), stop_on_signal() as should_stop:
        trained = train_student(
            student,
            batches,
            objective_of(choice, len(target.classes), answers, weights, config),
            settings=_optimization(config, batches.steps, target.split.seed),
            loading=Loading(config.workers, config.worker_start),
            checkpoints=CheckpointPolicy(directory / CHECKPOINT, fingerprint=fingerprint),
            progress=progress,
            should_stop=should_stop,
            task=f"{choice.name}, seed {target.split.seed}",
        )
    if trained.steps < batches.steps:
        log.warning(
            "%s was shortened to %d of %d steps to end within %g minutes: steps took longer than measured before.",
            choice.name,
            trained.steps,
            batches.steps,
            config.minutes,
        )
    return trained if teacher is None else _with_cost_of(teacher, trained)


def _with_cost_of(teacher: Trained, student: Trained) -> Trained:
    return replace(
        student,
        steps=teacher.steps + student.steps,
        images_seen=teacher.images_seen + student.images_seen,
        images_trained=teacher.images_trained + student.images_trained,
        seconds=teacher.seconds + student.seconds,
    )


def _half_of(config: RunConfig) -> RunConfig:
    """The settings of the teacher and of its student, who share the budget."""
    if config.steps is None:
        raise ValueError("training needs a resolved number of steps")
    minutes = None if config.minutes is None else config.minutes / 2
    return replace(config, steps=max(1, config.steps // 2), minutes=minutes)


def _probs_of_teacher(
    model: nn.Module, target: Target, pool: tuple[str, ...], dataset: ViewDataset
) -> npt.NDArray[np.float32]:
    """Probabilities `(N, C)` of the pool by a student that learnt the labels alone; one-hot for labeled images."""
    every = np.arange(len(pool))
    with torch.inference_mode():
        parts = [model(dataset.normalise(plain)) for plain in _plain_batches(dataset, every)]
    probs: npt.NDArray[np.float32] = torch.softmax(torch.cat(parts), dim=1).numpy()
    labeled = target.split.labeled
    probs[rows_of(labeled, pool)] = np.eye(len(target.classes), dtype=np.float32)[target.labels_of(labeled)]
    return probs


def _plain_batches(dataset: ViewDataset, rows: npt.NDArray[np.int64]) -> Iterator[torch.Tensor]:
    for some in np.split(rows, range(EVALUATION_BATCH, len(rows), EVALUATION_BATCH)):
        yield dataset.views(some, "plain", epoch=np.zeros_like(some), draw=0)


def _weights_of_start(choice: MethodChoice, material: Material, weights: SourceWeights | None) -> Path | None:
    """The weights file of the source that the student starts at, if it starts at one."""
    if weights is None or not choice.method.starts_at_source:
        return None
    (name,) = weights.used
    return material.zoo.sources[name].weights


def _batches(
    choice: MethodChoice,
    target: Target,
    config: RunConfig,
    pool: tuple[str, ...],
    dataset: ViewDataset,
    answers: SourceAnswers | None,
    target_probs: npt.NDArray[np.float32] | None,
) -> TrainingBatches:
    """The batches of a method: as many student image passes in all as the configuration allows."""
    if config.steps is None:
        raise ValueError("training needs a resolved number of steps")
    parts = process_count() * config.accumulation
    plan = plan_of(choice, config, parts)
    return TrainingBatches(
        dataset,
        target.labels_of(target.split.labeled),
        labeled_rows=rows_of(target.split.labeled, pool),
        pool_size=len(pool),
        plan=plan,
        steps=max(1, int(config.steps * config.batch_size / plan.cost)),
        seed=target.split.seed,
        parts=parts,
        view=config.augment,
        pool_view="stored" if answers and config.stored_views else config.augment,
        balanced=config.balanced,
        answers=answers,
        target_probs=target_probs,
    )


def plan_of(choice: MethodChoice, config: RunConfig, parts: int) -> BatchPlan:
    """The rows of a method's step, cut into `parts` equal parts; it is said where that changes their number."""
    if choice.method.rows is None:
        raise ValueError(f"{choice.name} is not trained by gradients, so it has no batches")
    wanted = choice.method.rows(config)
    plan = wanted.divisible_by(parts)
    if plan != wanted:
        log.log(
            logging.INFO if plan.labeled <= wanted.labeled and plan.rows >= 0.9 * wanted.rows else logging.WARNING,
            "%s: a step takes %d labeled and %d pool images instead of %d and %d: it is cut into %d equal parts",
            *(choice.name, plan.labeled, plan.pool_weak, wanted.labeled, wanted.pool_weak, parts),
        )
    return plan


def fit_probe_student(target: Target, config: RunConfig, preprocessing: Preprocessing, progress: Progress) -> Trained:
    """The `probe` baseline: the initial backbone, frozen, and a probe on the labeled images."""
    started = time.monotonic()
    pool, dataset = pool_views(target, config, preprocessing, progress)
    model: nn.Module = build_student(
        config.student,
        len(target.classes),
        weights=config.student_weights,
        source_classes={},
        image_size=preprocessing.image_size,
        seed=target.split.seed,
        offline=config.offline,
    ).model.eval()
    rows = rows_of(target.split.labeled, pool)
    with torch.inference_mode():
        parts = [features_of(model, dataset.normalise(plain)) for plain in _plain_batches(dataset, rows)]
    labels = target.labels_of(target.split.labeled)
    put_probe_head(model, torch.cat(parts).numpy(), labels, num_classes=len(target.classes))
    seconds = time.monotonic() - started
    return Trained(model, [], steps=0, images_seen=len(rows), images_trained=0, seconds=seconds)


def _optimization(config: RunConfig, steps: int, seed: int) -> Optimization:
    if config.precision == "auto" or config.memory_format == "auto":
        raise ValueError("a resolved configuration has no precision or memory format left to measure")
    return Optimization(
        steps=steps,
        lr=config.lr,
        weight_decay=config.weight_decay,
        ema=config.ema,
        bn=config.bn,
        accumulation=config.accumulation,
        seconds=None if config.minutes is None else 60 * config.minutes,
        seed=seed,
        device=config.device,
        compute=ComputeChoice(
            config.precision, channels_last=config.memory_format == "channels-last", compiled=config.compile
        ),
    )


def _fingerprint(
    method: str,
    target: Target,
    material: Material,
    weights: SourceWeights | None,
    clusters: Mapping[str, Clusters],
    config: RunConfig,
    plan: BatchPlan,
    target_probs: npt.NDArray[np.float32] | None,
) -> str:
    """Digest of everything that a checkpoint's numbers depend on."""
    elsewhere = (*MACHINE_FIELDS, "zoo", "student_weights", "unlabeled", "minutes")
    settings = {key: str(value) for key, value in vars(config).items() if key not in elsewhere}
    initial = content_sha256(config.student_weights) if config.student_weights else None
    keys = {name: material.outputs[name].key for name in (weights.values if weights else {})}
    data = [split_digest(target), target_fingerprint(target)]
    settings["view_version"] = str(VIEW_VERSION)
    if clusters:
        settings["clusters"] = str({name: each.digest() for name, each in clusters.items()})
    if target_probs is not None:
        settings["target_probs"] = hashlib.sha256(target_probs.tobytes()).hexdigest()
    parts = [method, data, settings, initial, keys, dict(weights.values) if weights else None, vars(plan)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
