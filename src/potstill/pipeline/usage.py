"""Using a trained student: on labeled data, and on any images."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from potstill.config import RunConfig, build_config, check_data_path
from potstill.data import list_images, open_target, target_fingerprint
from potstill.deployment.student_directory import load_student
from potstill.errors import DataError
from potstill.evaluation import classification_metrics
from potstill.pipeline.preparation import cache_dir_of, open_configured
from potstill.pipeline.student_evaluation import student_probs
from potstill.reporting import read_json
from potstill.types import Progress, Target, no_progress


def evaluate(run_directory: Path, data: Path, *, progress: Progress = no_progress) -> dict[str, Any]:
    """Evaluate a trained student on labeled data.

    On the data that the run was trained on, only the run's test images count; on other data every labeled image
    does. Classes are matched by name.

    Returns:
        `{schema, run, target, part, images, trained_on, accuracy, macro_f1, balanced_accuracy, ece, nll}`;
        `trained_on` counts evaluated images of other data whose path is that of a training image of the run.

    Raises:
        CheckpointError: no student, or a damaged one.
        DataError: a class that the student does not know, or own data without a test part.
    """
    student = load_student(run_directory)
    stored = build_config({}, file=run_directory / "config.yaml")
    target = _reopened(data, stored, read_json(run_directory / "results.json").get("data_sha256"), progress)
    parts = _parts_of(run_directory)
    if target is not None:
        part, image_ids, trained_on = "test part", parts["test"], 0
        if not image_ids:
            raise DataError(
                f"{run_directory.name} trained on every label of {data.name} and keeps no test part; its "
                "cross-validated figure is in results.json. Evaluate it on other data."
            )
    else:
        cache_dir, workers = cache_dir_of(stored), stored.workers
        target = open_target(check_data_path(data), cache_dir=cache_dir, workers=workers, progress=progress)
        part, image_ids = "all labeled images", tuple(sorted(target.labels))
        trained_on = len(set(image_ids) & {*parts["train"], *parts["unlabeled"]})
    unknown = sorted(set(target.classes) - set(student.classes))
    if unknown:
        raise DataError(
            f"The student does not know the class(es) {', '.join(unknown)}; it knows {', '.join(student.classes)}. "
            "Rename the folders, or evaluate on data with its classes."
        )
    position = np.array([student.classes.index(name) for name in target.classes])
    probs = student_probs(student, target.files, image_ids, workers=stored.workers)
    return {
        "schema": 1,
        "run": run_directory.name,
        "target": target.name,
        "part": part,
        "images": len(image_ids),
        "trained_on": trained_on,
        **classification_metrics(probs, position[target.labels_of(image_ids)]),
    }


def _reopened(data: Path, stored: RunConfig, fingerprint: str | None, progress: Progress) -> Target | None:
    """The run's own data, opened as the run opened it but with every label visible; None for other data."""
    own = replace(stored, label_fraction=None, labels_per_class=None)
    if own.unlabeled is not None and not own.unlabeled.exists():
        return None
    try:
        target = open_configured(data, own, progress)
    except DataError:
        return None
    return target if target_fingerprint(target) == fingerprint else None


def _parts_of(run_directory: Path) -> dict[str, tuple[str, ...]]:
    """Image ids of the run's parts: train (labels used or hidden), unlabeled, val, test."""
    parts: dict[str, list[str]] = {"train": [], "unlabeled": [], "val": [], "test": []}
    with (run_directory / "splits.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            parts[row["split"]].append(row["image_id"])
    return {part: tuple(ids) for part, ids in parts.items()}


def predict(run_directory: Path, images: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Classify image files or folders of them.

    Yields:
        One `{path, class, confidence, probs: {class: p}}` an image, in the order given; `{path, error}` for a file
        that cannot be read.

    Raises:
        CheckpointError: no student, or a damaged one.
        DataError: no image among `images`.
    """
    student = load_student(run_directory)
    missing = [str(path) for path in images if not path.exists()]
    if missing:
        raise DataError(f"There is no {', '.join(missing)}. Give image files or folders of them.")
    files = [file for path in images for file in (list_images(path).images if path.is_dir() else (path,))]
    if not files:
        raise DataError(f"No image in {', '.join(str(path) for path in images)}. Give image files or folders of them.")
    for path in files:
        try:
            (probs,) = student_probs(student, {str(path): path}, [str(path)], workers=0)
        except DataError as error:
            yield {"path": str(path), "error": str(error)}
            continue
        best = int(probs.argmax())
        yield {
            "path": str(path),
            "class": student.classes[best],
            "confidence": float(probs[best]),
            "probs": {name: float(p) for name, p in zip(student.classes, probs, strict=True)},
        }
