"""Asking a trained student about labeled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from potstill.data import normalise, prepare_images
from potstill.deployment.student_directory import SavedStudent
from potstill.evaluation import classification_metrics
from potstill.evaluation.metrics import METRICS
from potstill.types import Evaluation, Target

BATCH = 128


def student_probs(
    student: SavedStudent, files: Mapping[str, Path], image_ids: Sequence[str], *, workers: int
) -> npt.NDArray[np.float32]:
    """Class probabilities of the given images, `(N, C)`, in the order of the ids."""
    preprocessing = student.preprocessing
    batches = prepare_images(files, image_ids, preprocessing=preprocessing, batch_size=BATCH, workers=workers)
    empty = np.zeros((0, len(student.classes)), dtype=np.float32)
    parts = [student.probs(normalise(pixels, preprocessing.mean, preprocessing.std)) for _, pixels in batches]
    return np.concatenate([empty, *parts])


def evaluate_student(student: SavedStudent, target: Target, image_ids: tuple[str, ...], *, workers: int) -> Evaluation:
    """Predictions of a student on images with known labels, and the figures computed from them.

    Without images the figures are None.
    """
    labels = target.labels_of(image_ids)
    probs = student_probs(student, target.files, image_ids, workers=workers)
    metrics = classification_metrics(probs, labels) if image_ids else dict.fromkeys(METRICS)
    return Evaluation(image_ids, labels, probs, metrics)
