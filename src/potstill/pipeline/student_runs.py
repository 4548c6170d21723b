"""One student: a method, a label draw, a run directory."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from potstill.config import RunConfig
from potstill.data import split_digest, target_fingerprint
from potstill.deployment.student_directory import SavedStudent, load_student, save_student
from potstill.evaluation import model_cost
from potstill.pipeline.pool_clusters import settle_clusters
from potstill.pipeline.pool_stack import settle_stack
from potstill.pipeline.preparation import Material, cache_dir_of, student_preprocessing
from potstill.pipeline.recipes import Recipe, settle_recipe
from potstill.pipeline.run_files import write_outcome, write_plan
from potstill.pipeline.source_use import source_to_start_at, source_weights, stackable_sources
from potstill.pipeline.student_evaluation import evaluate_student
from potstill.pipeline.student_training import fit_probe_student
from potstill.pipeline.together import train_together
from potstill.sources.timm_models import timm_preprocessing
from potstill.training.processes import process_count
from potstill.types import Evaluation, Preprocessing, Progress, Ranking, SourceSpec, SourceWeights, Target, no_progress
from potstill.weighting import drop_weak

log = logging.getLogger(__name__)


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
        method: a name of METHODS, or one with an ending (see `methods.MethodChoice`).
        target: the label draw.
        material: source outputs over the target's images.
        ranking: of the sources on this label draw.
        config: resolved (image size, device and steps are set).
        directory: the run directory; a checkpoint in it is continued.
        weights: source weights instead of those that the method makes from the ranking; weak ones are dropped alike.
        progress: told after each step.
    """
    recipe = settle_recipe(method, target, material, ranking, config)
    return train_recipe(recipe, target, material, ranking, directory=directory, weights=weights, progress=progress)


def train_recipe(
    recipe: Recipe,
    target: Target,
    material: Material,
    ranking: Ranking,
    *,
    directory: Path,
    weights: SourceWeights | None = None,
    progress: Progress = no_progress,
) -> StudentRun:
    """`train_method` for a method whose settings are known; the arguments are those of that function."""
    choice, config = recipe.choice, recipe.config
    if recipe.reason is not None:
        log.info("%s is %s: %s", recipe.asked.name, choice.name, recipe.reason)
    if choice.method.reads_hidden_labels:
        target = _with_all_labels(target)
    if weights is None:
        weights = source_weights(choice, ranking, config)
    else:
        weights = drop_weak(weights, minimum=config.min_weight)
    stack = None
    if choice.method.taught_by == "stack" and weights is not None:
        pool, names = tuple(sorted(target.split.pool)), stackable_sources(weights, material)
        stack = settle_stack(material, target, names, pool, cache_dir_of(config), shuffled=choice.shuffled)
        weights = drop_weak(SourceWeights("stack", stack.shares), minimum=config.min_weight)
    preprocessing = student_preprocessing(config)
    if choice.method.starts_at_source and weights is not None:
        start = source_to_start_at(choice, weights, material, config)
        weights = SourceWeights("nearest", {start: 1.0})
        if choice.method.becomes_source:
            config, preprocessing = _as_source(config, material.zoo.sources[start])
    write_plan(directory, target, material, ranking, weights, config)
    started = time.monotonic()
    if choice.method.rows is None:
        trained = fit_probe_student(target, config, preprocessing, progress)
    else:
        if weights is not None and choice.method.imitates and process_count() > 1:
            # Before the others are told to train: they read what is kept.
            settle_clusters(material, weights.used, tuple(sorted(target.split.pool)), cache_dir_of(config))
        trained = train_together(
            choice, target, material, weights, config, preprocessing, directory=directory, progress=progress
        )
    seconds = max(trained.seconds, time.monotonic() - started)
    name = config.student
    save_student(trained.model, directory / "student", name=name, classes=target.classes, preprocessing=preprocessing)
    student = load_student(directory, device=config.device)
    evaluation = evaluate_student(student, target, target.split.test, workers=config.workers)
    val = None
    if config.use_val and target.split.val:
        val = evaluate_student(student, target, target.split.val, workers=config.workers)
    record: dict[str, Any] = {
        "method": recipe.asked.name,
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
        **({"stack": stack.record()} if stack else {}),
        **recipe.said,
        "split_sha256": split_digest(target),
        "data_sha256": target_fingerprint(target),
    }
    write_outcome(directory, target, trained, evaluation, record)
    accuracy = "no test part" if record["accuracy"] is None else f"accuracy {100 * record['accuracy']:.1f} %"
    log.info("%s, seed %d: %s after %.1f s", recipe.asked.name, target.split.seed, accuracy, seconds)
    return StudentRun(record, evaluation, student, directory)


def announce_students(count: int, config: RunConfig) -> None:
    """Say how many students a command is to train and, as a limit of minutes holds for each, what that makes."""
    if count == 0:
        return
    message = "1 student is to be trained" if count == 1 else f"{count} students are to be trained"
    if config.minutes is not None:
        message += f", within {config.minutes:g} minutes"
        if count > 1:
            message += f" each: up to about {count * config.minutes:g} minutes in all"
    log.info("%s", message)


def _as_source(config: RunConfig, spec: SourceSpec) -> tuple[RunConfig, Preprocessing]:
    """The configuration of a student that is the source, and its input: the source's, but the whole image is seen."""
    preprocessing = replace(timm_preprocessing(spec), crop=1.0)
    config = replace(config, student=spec.model, student_weights=spec.weights, image_size=preprocessing.image_size)
    return config, preprocessing


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
