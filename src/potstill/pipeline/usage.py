"""Using a trained student: on labeled data, and on any images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill.config import RunConfig
from potstill.data import list_images, open_target, prepare_images, split_digest
from potstill.data.preprocessing import normalise
from potstill.deployment.student_directory import load_student
from potstill.errors import DataError
from potstill.evaluation import classification_metrics
from potstill.pipeline.preparation import cache_dir_of, open_configured
from potstill.reporting import read_json
from potstill.types import Progress, Target, no_progress


def evaluate(
    run_directory: Path, data: Path, *, config: RunConfig | None = None, progress: Progress = no_progress
) -> dict[str, Any]:
    """Evaluate a trained student on labeled data.

    On the data that the run was trained on (the same split), only its test images count; on other data every labeled
    image does. Classes are matched by name.

    Returns:
        `{schema, run, target, images, part, accuracy, macro_f1, balanced_accuracy, ece, nll}`.

    Raises:
        CheckpointError: no student, or a damaged one.
        DataError: a class that the student does not know.
    """
    student = load_student(run_directory)
    stored = _stored_config(run_directory)
    config = config or stored
    target = open_configured(data, stored, progress)
    result = read_json(run_directory / "results.json")
    same = split_digest(target) == result.get("split_sha256")
    if same and target.split.test:
        image_ids, part = target.split.test, "test"
    else:
        target = _open_fully_labeled(data, config, progress)
        image_ids, part = target.split.pool + target.split.test + target.split.val, "all labeled images"
        image_ids = tuple(image_id for image_id in image_ids if image_id in target.labels)
    unknown = sorted(set(target.classes) - set(student.classes))
    if unknown:
        raise DataError(
            f"The student does not know the class(es) {', '.join(unknown)}; it knows {', '.join(student.classes)}. "
            "Rename the folders, or evaluate on data with its classes."
        )
    position = np.array([student.classes.index(name) for name in target.classes])
    labels = position[target.labels_of(image_ids)]
    probs = np.concatenate(
        [
            student.probs(normalise(pixels, student.preprocessing.mean, student.preprocessing.std))
            for _, pixels in prepare_images(
                target.files, image_ids, preprocessing=student.preprocessing, workers=config.workers
            )
        ]
    )
    return {
        "schema": 1,
        "run": run_directory.name,
        "target": target.name,
        "part": part,
        "images": len(image_ids),
        **classification_metrics(probs, labels),
    }


def predict(run_directory: Path, images: Sequence[Path], *, workers: int = 2) -> Iterator[dict[str, Any]]:
    """Classify image files or folders of them.

    Yields:
        One `{path, class, confidence, probs: {class: p}}` an image, in the order given; `{path, error}` for a file
        that cannot be read.

    Raises:
        CheckpointError: no student, or a damaged one.
        DataError: no image among `images`.
    """
    student = load_student(run_directory)
    files = [file for path in images for file in (list_images(path).images if path.is_dir() else (path,))]
    if not files:
        raise DataError(f"No image in {', '.join(str(path) for path in images)}. Give image files or folders of them.")
    for path in files:
        try:
            name = str(path)
            ((_, pixels),) = prepare_images({name: path}, [name], preprocessing=student.preprocessing)
        except DataError as error:
            yield {"path": str(path), "error": str(error)}
            continue
        (probs,) = student.probs(normalise(pixels, student.preprocessing.mean, student.preprocessing.std))
        best = int(probs.argmax())
        yield {
            "path": str(path),
            "class": student.classes[best],
            "confidence": float(probs[best]),
            "probs": {name: float(p) for name, p in zip(student.classes, probs, strict=True)},
        }


def _stored_config(run_directory: Path) -> RunConfig:
    from potstill.config import build_config

    return build_config({}, file=run_directory / "config.yaml")


def _open_fully_labeled(data: Path, config: RunConfig, progress: Progress) -> Target:
    """Other data: no label is hidden."""
    return open_target(data, cache_dir=cache_dir_of(config), workers=config.workers, progress=progress)
