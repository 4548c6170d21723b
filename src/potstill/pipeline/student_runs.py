"""One student: a method, a label draw, a run directory."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from potstill.baselines.fixmatch import fixmatch_objective
from potstill.baselines.frozen_probe import put_probe_head
from potstill.baselines.supervised import supervised_objective
from potstill.config import MACHINE_FIELDS, RunConfig, overridden
from potstill.data import ViewDataset, pack_pixels, resized_size, split_digest, target_fingerprint
from potstill.deployment.student_directory import SavedStudent, load_student, save_student
from potstill.distillation.objective import SourceTargets, source_space_objective
from potstill.evaluation import model_cost
from potstill.models import features_of
from potstill.pipeline.methods import MethodChoice, parse_method
from potstill.pipeline.preparation import Material, cache_dir_of, student_preprocessing
from potstill.pipeline.run_files import CHECKPOINT, write_outcome, write_plan
from potstill.pipeline.source_use import source_targets, source_weights
from potstill.pipeline.student_evaluation import evaluate_student
from potstill.sources.opening import file_sha256
from potstill.training.batches import TrainingBatches
from potstill.training.interruption import stop_on_signal
from potstill.training.loop import CheckpointPolicy, Objective, Optimization, Trained, train_student
from potstill.training.student import build_student
from potstill.types import (
    Evaluation,
    Preprocessing,
    Progress,
    Ranking,
    SourceWeights,
    Target,
    no_progress,
)

log = logging.getLogger(__name__)

EVALUATION_BATCH = 128


@dataclass(frozen=True)
class StudentRun:
    """A trained and evaluated student; `record` is one element of `runs` in results.json.

    `student` lies in memory, ready to use, whether or not the directory is kept.
    """

    record: dict[str, Any]
    evaluation: Evaluation
    student: SavedStudent
    directory: Path


def train_method(
    method: str,
    target: Target,
    material: Material,
    ranking: Ranking,
    config: RunConfig,
    *,
    directory: Path,
    weights: SourceWeights | None = None,
    progress: Progress = no_progress,
) -> StudentRun:
    """Train one student by `method` on the label draw of `target`, evaluate it on the test part, write its directory.

    Args:
        method: a name of METHODS, or METHOD-without-SOURCE.
        target: the label draw.
        material: source outputs over the target's images.
        ranking: of the sources on this label draw.
        config: resolved (image size, device and steps are set).
        directory: the run directory; a checkpoint in it is continued.
        weights: source weights instead of those that the method makes from the ranking.
        progress: told after each step.
    """
    choice = parse_method(method)
    if choice.method.reads_hidden_labels:
        target = _with_all_labels(target)
    weights = weights or source_weights(choice, ranking, config)
    config = overridden(config, choice.name, choice.base)
    preprocessing = student_preprocessing(config)
    write_plan(directory, target, material, ranking, weights, config)
    started = time.monotonic()
    if choice.method.rows is None:
        trained = _fit_probe_student(target, config, preprocessing, progress)
    else:
        trained = _train_gradients(choice, target, material, weights, config, preprocessing, directory, progress)
    seconds = max(trained.seconds, time.monotonic() - started)
    name = config.student
    save_student(trained.model, directory / "student", name=name, classes=target.classes, preprocessing=preprocessing)
    student = load_student(directory)
    evaluation = evaluate_student(student, target, target.split.test, workers=config.workers)
    val = None
    if config.use_val and target.split.val:
        val = evaluate_student(student, target, target.split.val, workers=config.workers)
    record: dict[str, Any] = {
        "method": method,
        "seed": target.split.seed,
        "status": "done",
        "path": directory.name,
        **evaluation.metrics,
        **({"val": dict(val.metrics)} if val else {}),
        "images_seen": trained.images_seen,
        "images_trained": trained.images_trained,
        "labels_used": len(target.split.labeled),
        "train_seconds": round(seconds, 2),
        "student": {"name": name, **model_cost(trained.model, preprocessing.image_size)},
        "weights": dict(weights.values) if weights else None,
        "split_sha256": split_digest(target),
        "data_sha256": target_fingerprint(target),
    }
    write_outcome(directory, target, trained, evaluation, record)
    accuracy = "no test part" if record["accuracy"] is None else f"accuracy {100 * record['accuracy']:.1f} %"
    log.info("%s, seed %d: %s after %.1f s", method, target.split.seed, accuracy, seconds)
    return StudentRun(record, evaluation, student, directory)


def _with_all_labels(target: Target) -> Target:
    """The same pool with every training label visible; for the `ceiling` alone."""
    split = target.split
    known = [image_id for image_id in split.unlabeled if image_id in target.hidden_labels]
    unknown = tuple(image_id for image_id in split.unlabeled if image_id not in target.hidden_labels)
    labels = {**target.labels, **target.hidden_labels}
    return replace(
        target,
        labels=labels,
        hidden_labels={},
        split=replace(split, labeled=split.labeled + tuple(known), unlabeled=unknown),
    )


def _pool_views(
    target: Target, config: RunConfig, preprocessing: Preprocessing, progress: Progress
) -> tuple[tuple[str, ...], ViewDataset]:
    """The pool's images in an order that does not depend on the label draw, decoded once, and their views."""
    pool = tuple(sorted(target.split.pool))
    pixels = pack_pixels(
        target,
        pool,
        resized_size(preprocessing.image_size, preprocessing.crop),
        interpolation=preprocessing.interpolation,
        cache_dir=cache_dir_of(config),
        workers=config.workers,
        progress=progress,
    )
    dataset = ViewDataset(
        pixels,
        pool,
        image_size=preprocessing.image_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        seed=target.split.seed,
        flip=config.flip,
    )
    return pool, dataset


def _rows_of(image_ids: tuple[str, ...], pool: tuple[str, ...]) -> npt.NDArray[np.int64]:
    position = {image_id: row for row, image_id in enumerate(pool)}
    return np.array([position[image_id] for image_id in image_ids], dtype=np.int64)


def _train_gradients(
    choice: MethodChoice,
    target: Target,
    material: Material,
    weights: SourceWeights | None,
    config: RunConfig,
    preprocessing: Preprocessing,
    directory: Path,
    progress: Progress,
) -> Trained:
    if choice.method.rows is None or config.steps is None:
        raise ValueError("a gradient-trained method needs rows and a resolved number of steps")
    pool, dataset = _pool_views(target, config, preprocessing, progress)
    targets = source_targets(material, weights, pool)
    plan = choice.method.rows(config)
    steps = int(config.steps * config.batch_size / plan.cost)
    student = build_student(
        config.student,
        len(target.classes),
        weights=config.student_weights,
        source_classes={name: each.num_classes for name, each in targets.items()},
        image_size=preprocessing.image_size,
        seed=target.split.seed,
        offline=config.offline,
    )
    batches = TrainingBatches(
        dataset,
        target.labels_of(target.split.labeled),
        labeled_rows=_rows_of(target.split.labeled, pool),
        pool_size=len(pool),
        plan=plan,
        steps=steps,
        seed=target.split.seed,
    )
    settings = Optimization(
        steps=steps,
        lr=config.lr,
        weight_decay=config.weight_decay,
        ema=config.ema,
        bn=config.bn,
        seed=target.split.seed,
        device=config.device,
    )
    checkpoints = CheckpointPolicy(
        directory / CHECKPOINT,
        fingerprint=_fingerprint(choice.name, target, material, weights, config),
    )
    with stop_on_signal() as should_stop:
        return train_student(
            student,
            batches,
            _objective(choice, targets, weights, config),
            settings=settings,
            checkpoints=checkpoints,
            progress=progress,
            should_stop=should_stop,
            task=f"{choice.name}, seed {target.split.seed}",
        )


def _objective(
    choice: MethodChoice, targets: Mapping[str, SourceTargets], weights: SourceWeights | None, config: RunConfig
) -> Objective:
    if weights is not None:
        used = {name: weights.values[name] for name in targets}
        return source_space_objective(targets, used, label_weight=config.label_weight, temperature=config.temperature)
    if choice.name == "fixmatch":
        return fixmatch_objective(threshold=config.threshold)
    return supervised_objective


def _fit_probe_student(target: Target, config: RunConfig, preprocessing: Preprocessing, progress: Progress) -> Trained:
    """The `probe` baseline: the initial backbone, frozen, and a probe on the labeled images."""
    started = time.monotonic()
    pool, dataset = _pool_views(target, config, preprocessing, progress)
    model: nn.Module = build_student(
        config.student,
        len(target.classes),
        weights=config.student_weights,
        source_classes={},
        image_size=preprocessing.image_size,
        seed=target.split.seed,
        offline=config.offline,
    ).model.eval()
    rows = _rows_of(target.split.labeled, pool)
    with torch.inference_mode():
        parts = [
            features_of(model, dataset.views(rows[start : start + EVALUATION_BATCH], "plain", epoch=0, draw=0))
            for start in range(0, len(rows), EVALUATION_BATCH)
        ]
    labels = target.labels_of(target.split.labeled)
    put_probe_head(model, torch.cat(parts).numpy(), labels, num_classes=len(target.classes))
    return Trained(model, [], images_seen=len(rows), images_trained=0, seconds=time.monotonic() - started)


def _fingerprint(
    method: str, target: Target, material: Material, weights: SourceWeights | None, config: RunConfig
) -> str:
    """Digest of everything that a checkpoint's numbers depend on."""
    elsewhere = (*MACHINE_FIELDS, "zoo", "student_weights", "unlabeled")
    settings = {key: str(value) for key, value in vars(config).items() if key not in elsewhere}
    initial = file_sha256(config.student_weights) if config.student_weights else None
    keys = {name: material.outputs[name].key for name in (weights.values if weights else {})}
    data = [split_digest(target), target_fingerprint(target)]
    parts = [method, data, settings, initial, keys, dict(weights.values) if weights else None]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
