"""`potstill run`: from a folder of images to an evaluated student and a report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from potstill.config import RunConfig
from potstill.data import cross_validation_folds
from potstill.errors import DataError, UsageError
from potstill.pipeline.methods import parse_method
from potstill.pipeline.preparation import Material, gather_material, open_configured
from potstill.pipeline.ranking import rank_material, ranking_record, with_companions
from potstill.pipeline.relatedness import judge_relatedness
from potstill.pipeline.run_files import finished_on
from potstill.pipeline.settling import settle_config
from potstill.pipeline.source_use import require_usable_sources
from potstill.pipeline.student_runs import announce_students, train_method
from potstill.reporting import claim_directory, logged_to, read_json, write_json, write_report
from potstill.types import Progress, Ranking, Target, no_progress

log = logging.getLogger(__name__)

AUTO = "auto"
SMALL_TEST = 200
"""Below so many test images the accuracy of one test part is too uncertain (standard error above 3 points)."""

FOLDS, REPEATS = 3, 2


def run(
    data: Path,
    output: Path,
    *,
    config: RunConfig,
    method: str = AUTO,
    overwrite: bool = False,
    resume: bool = False,
    cross_validate: bool | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Check, extract, rank, distil, evaluate, report.

    Where the test part is small, the figure is a repeated cross-validation over all labels instead: students are
    trained on parts of the labels and asked about the rest, and the student that is kept is trained on every label.

    Args:
        data: the target.
        output: the run directory.
        config: settings.
        method: a method; `auto` chooses one (see `automatic.choose_method`), in a cross-validation for each student.
        overwrite: start again where a run is.
        resume: go on where a run is.
        cross_validate: True or False to decide it; None decides by the size of the test part.
        progress: told about every long task.

    Returns:
        The content of results.json, with `findings` in words.
    """
    parse_method(method)
    claim_directory(output, overwrite=overwrite, resume=resume)
    with logged_to(output):
        return _run(data, output, config, method, cross_validate, progress)


def _run(
    data: Path, output: Path, config: RunConfig, method: str, cross_validate: bool | None, progress: Progress
) -> dict[str, Any]:
    target = open_configured(data, config, progress)
    small, reason = _decide_validation(target, config, cross_validate)
    command = {"command": "run", "method": method, "cross_validate": small}
    config = settle_config(config, target, data=data, output=output, command=command)
    material = gather_material(target, config, progress)
    ranking = rank_material(material, target, with_companions(config), progress=progress)
    verdict = judge_relatedness(material, target, ranking, config)
    write_json(output / "ranking.json", ranking_record(ranking, material))
    final = _all_labels_for_training(target) if small else target
    folds = _draw_folds(material, final, config, output) if small else []
    if small:
        ranking = rank_material(material, final, config)
    done = finished_on(output, final)
    waiting = [fold.ranking for fold in folds if fold.ranking is not None] + ([] if done else [ranking])
    for each in waiting:
        require_usable_sources(parse_method(method), each, material, config)
    announce_students(len(waiting), config)
    validation = _cross_validate(method, material, folds, progress) if small else None
    record = (
        read_json(output / "results.json")
        if done
        else train_method(method, final, material, ranking, config, directory=output, progress=progress).record
    )
    findings = [*target.notes, verdict.sentence, _choice_sentence(record), reason]
    record = {**record, "schema": 1, "target": target.name, "classes": list(target.classes), "findings": findings}
    if validation:
        record = {**record, "cross_validation": validation}
    write_json(output / "results.json", record)
    write_report(output)
    return record


def _decide_validation(target: Target, config: RunConfig, asked: bool | None) -> tuple[bool, str]:
    """Whether to cross-validate, and why in words.

    Only a test part that we drew may join the training labels, and not where the user limits the labels.
    """
    size = len(target.split.test)
    free = target.test_drawn and config.label_fraction is None and config.labels_per_class is None
    if asked and not free:
        raise UsageError(
            "Cross-validation would train on the test part that came with the data, or exceed the label limit that "
            "you set. Leave out --cross-validate, or the test part or limit."
        )
    if asked is None and free and size < SMALL_TEST:
        return True, f"Evaluation: cross-validated over all labels, because {size} test images are too few."
    if asked:
        return True, "Evaluation: cross-validated over all labels, as asked."
    error = 100 * 0.5 / max(size, 1) ** 0.5
    return (
        False,
        f"Evaluation: on {size} test images; the accuracy has a standard error of up to {error:.1f} points.",
    )


def _choice_sentence(record: Mapping[str, Any]) -> str:
    if "chosen" not in record:
        return f"Method: {record['method']}, as asked."
    return f"Method: {record['chosen']}; {record['reason']}."


@dataclass(frozen=True)
class _Fold:
    """One student of the cross-validation: the target whose test part it never sees, and what it is made of.

    `ranking` is None for a student that was finished earlier.
    """

    target: Target
    config: RunConfig
    directory: Path
    ranking: Ranking | None


def _draw_folds(material: Material, target: Target, config: RunConfig, output: Path) -> list[_Fold]:
    """The folds of every repeat; the seed of a fold is the number of its repeat."""
    folds = []
    for repeat in range(REPEATS):
        own = replace(config, seed=repeat)
        parts = cross_validation_folds(target, FOLDS, seed=repeat)
        if not any(part.split.test for part in parts):
            raise DataError("No image can be tested without emptying its class: label two images or groups a class.")
        for number, part in enumerate(parts):
            if part.split.test:
                directory = output / "folds" / f"repeat{repeat}-fold{number}"
                done = finished_on(directory, part)
                ranking = None if done else rank_material(material, part, own, scores_only=True)
                folds.append(_Fold(part, own, directory, ranking))
    return folds


def _cross_validate(method: str, material: Material, folds: list[_Fold], progress: Progress) -> dict[str, Any]:
    """Accuracy over all labeled images, each predicted by students that never saw its label."""
    right, tested = [0.0] * REPEATS, [0] * REPEATS
    for fold in folds:
        if fold.ranking is not None:
            fold.directory.mkdir(parents=True, exist_ok=True)
            train_method(
                method,
                fold.target,
                material,
                fold.ranking,
                fold.config,
                directory=fold.directory,
                progress=progress,
            )
        images = len(fold.target.split.test)
        right[fold.config.seed] += read_json(fold.directory / "results.json")["accuracy"] * images
        tested[fold.config.seed] += images
    accuracies = [hits / images for hits, images in zip(right, tested, strict=True)]
    return {
        "folds": FOLDS,
        "repeats": REPEATS,
        "accuracy": float(np.mean(accuracies)),
        "accuracy_by_repeat": accuracies,
        "images": tested[-1],
    }


def _all_labels_for_training(target: Target) -> Target:
    """The test part joins the training labels: its figure was cross-validated, and every label is worth having."""
    split = target.split
    return replace(target, split=replace(split, labeled=split.labeled + split.test, test=()))
