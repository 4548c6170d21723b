"""Is any source related to the target at all? Asked of the labels, before time is spent on distillation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from potstill.config import RunConfig
from potstill.data import prepare_images, scoring_ids
from potstill.data.preprocessing import normalise
from potstill.models import create_model, features_of
from potstill.pipeline.preparation import Material, device_of, student_preprocessing
from potstill.probes import out_of_fold_probs
from potstill.types import Ranking, Target

CANDIDATES = 3


@dataclass(frozen=True)
class Relatedness:
    """Whether the best source separates the classes better than the student's own initial features do.

    `related` is None where there are too few labels to tell. `gain` is the difference of out-of-fold probe accuracies,
    with its paired 95 % interval `ci95`.
    """

    related: bool | None
    sentence: str
    source: str | None = None
    gain: float | None = None
    ci95: tuple[float, float] | None = None


def judge_relatedness(material: Material, target: Target, ranking: Ranking, config: RunConfig) -> Relatedness:
    """Compare out-of-fold probes on the best-ranked sources with one on the student's initial features.

    Labeled training images only. The sources compared are the few that rank first, so the gain of the best of them
    is slightly optimistic; the interval is that of the paired difference over images.
    """
    names = [name for name in ranking.scores() if material.outputs[name].features is not None][:CANDIDATES]
    ids = scoring_ids(target, limit=config.scoring_images, seed=config.seed)
    labels = target.labels_of(ids)
    if not names:
        return Relatedness(None, "No source has features and a score, so nothing can be said about relatedness.")
    if np.unique(labels, return_counts=True)[1].min() < 2:
        return Relatedness(
            None,
            f"Some classes have a single labeled image: too few to tell whether {names[0]}, which ranks first, is "
            "really related.",
        )
    own = _right_out_of_fold(student_features(target, ids, config), labels, target)
    right = {name: _right_out_of_fold(_source_features(material, name, ids), labels, target) for name in names}
    best = max(names, key=lambda name: right[name].mean())
    difference = right[best].astype(float) - own
    gain = float(difference.mean())
    margin = 1.96 * float(difference.std(ddof=1)) / np.sqrt(len(difference))
    low, high = gain - margin, gain + margin
    figures = (
        f"({100 * right[best].mean():.1f} % against {100 * own.mean():.1f} % out of fold on {len(ids)} labeled images; "
        f"difference {100 * gain:+.1f} points, 95 % {100 * low:+.1f} to {100 * high:+.1f})"
    )
    if low > 0:
        sentence = f"{best} is related: it separates your classes better than the student's initial features {figures}."
    else:
        sentence = (
            f"No source is clearly related: the best one, {best}, does not separate your classes clearly better than "
            f"the student's initial features {figures}."
        )
    return Relatedness(low > 0, sentence, best, gain, (low, high))


def _right_out_of_fold(
    features: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], target: Target
) -> npt.NDArray[np.bool_]:
    probs = out_of_fold_probs(features, labels, len(target.classes))
    return np.asarray(probs.argmax(axis=1) == labels)


def _source_features(material: Material, name: str, ids: Sequence[str]) -> npt.NDArray[np.float64]:
    outputs = material.outputs[name]
    if outputs.features is None:
        raise ValueError(f"source {name} has no features")
    return np.asarray(outputs.features[outputs.rows(ids)], dtype=np.float64)


def student_features(target: Target, ids: Sequence[str], config: RunConfig) -> npt.NDArray[np.float64]:
    """Features `(len(ids), D)` of images by the student as it is before training."""
    weights: Path | None = config.student_weights
    model = create_model(
        config.student,
        weights=weights,
        pretrained=weights is None,
        num_classes=0,
        image_size=config.image_size,
        ignore_classifier=True,
        offline=config.offline,
    ).eval()
    device = torch.device(device_of(config))
    model = model.to(device)
    preprocessing = student_preprocessing(config)
    with torch.inference_mode():
        parts = [
            features_of(model, normalise(pixels, preprocessing.mean, preprocessing.std).to(device)).cpu().numpy()
            for _, pixels in prepare_images(target.files, ids, preprocessing=preprocessing, workers=config.workers)
        ]
    return np.concatenate(parts).astype(np.float64)
