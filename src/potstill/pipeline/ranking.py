"""How related is each source? `potstill rank`, and the ranking that every other command starts from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from potstill.config import RunConfig
from potstill.data import normalise, prepare_images, scoring_ids
from potstill.errors import SourceError, UsageError, unknown_name
from potstill.pipeline.kept_rankings import kept_ranking, ranking_question
from potstill.pipeline.preparation import Material, cache_dir_of, device_of, gather_material, open_configured
from potstill.similarity import AUTO_BESIDE, Given, find_metric, rank_sources
from potstill.sources import open_untrained
from potstill.types import Progress, RankedSource, Ranking, SourceSpec, Target, no_progress

log = logging.getLogger(__name__)

BATCH_SIZE = 64


def rank_zoo(
    data: Path, *, config: RunConfig, scoring_only: bool = False, progress: Progress = no_progress
) -> dict[str, Any]:
    """Rank the configured zoo on the target.

    Every image of the target goes once through every source and is kept for distillation; with `scoring_only` just
    the images on which similarity is computed do.

    Returns:
        The JSON of `potstill rank`.
    """
    target = open_configured(data, config, progress)
    ids = scoring_ids(target, limit=config.scoring_images, seed=config.seed) if scoring_only else None
    material = gather_material(target, config, progress, image_ids=ids)
    return ranking_record(rank_material(material, target, with_companions(config), progress=progress), material)


def with_companions(config: RunConfig) -> RunConfig:
    """With a table of several metrics where the user did not say which."""
    return replace(config, metric=",".join(("auto", *AUTO_BESIDE))) if config.metric == "auto" else config


def rank_material(
    material: Material,
    target: Target,
    config: RunConfig,
    *,
    scores_only: bool = False,
    progress: Progress = no_progress,
) -> Ranking:
    """Rank the sources on the labeled training images of `target` (a label draw of the material's target).

    `scores_only` leaves out intervals, p-values and the metrics that stand beside the first one. A ranking that was
    computed before is taken from the cache.
    """
    metric, *also = [name.strip() for name in config.metric.split(",")]
    if not material.zoo.sources:
        return Ranking(metric, 0, ())
    if scores_only:
        also = []
    ids = scoring_ids(target, limit=config.scoring_images, seed=config.seed)
    resamples = 0 if scores_only else None
    settings = {"draws": resamples, "permutations": resamples, "seed": config.seed, "reference": config.reference}

    def rank() -> Ranking:
        return rank_sources(
            material.outputs,
            ids,
            target.labels_of(ids),
            metric=metric,
            also=tuple(also),
            errors=material.errors,
            given=_given(material, target, ids, (metric, *also), config),
            draws=resamples,
            permutations=resamples,
            seed=config.seed,
            progress=progress,
        )

    question = ranking_question(material, target, ids, (metric, *also), settings)
    return rank() if question is None else kept_ranking(cache_dir_of(config), question, rank)


def _given(material: Material, target: Target, ids: Sequence[str], metrics: Sequence[str], config: RunConfig) -> Given:
    """What the named metrics need beside the outputs of the sources."""
    needs = {need for name in metrics for need in find_metric(name)[1].needs}
    stated = {
        name: float(spec.accuracy["value"])
        for name, spec in material.zoo.sources.items()
        if spec.accuracy and "value" in spec.accuracy
    }
    return Given(
        reference_features=_reference_features(material, ids, config) if "reference_features" in needs else None,
        reference=config.reference,
        random_features=_random_features(material, target, ids, config) if "random_features" in needs else {},
        stated_accuracy=stated,
    )


def _reference_features(material: Material, ids: Sequence[str], config: RunConfig) -> npt.NDArray[np.floating] | None:
    """The features of the source that the configuration names as reference."""
    name = config.reference
    if name is None:
        return None
    if name not in material.zoo.sources:
        raise unknown_name("reference source", name, material.zoo.sources)
    outputs = material.outputs.get(name)
    if outputs is None or outputs.features is None:
        raise UsageError(
            f"The reference source '{name}' has no features: {material.errors.get(name, 'it stores none')}."
        )
    return outputs.features[outputs.rows(ids)]


def _random_features(
    material: Material, target: Target, ids: Sequence[str], config: RunConfig
) -> dict[str, npt.NDArray[np.floating]]:
    """Features of each source's architecture with random weights; a source that cannot be built so is left out."""
    found = {}
    for name in material.outputs:
        try:
            found[name] = _features_untrained(material.zoo.sources[name], target, ids, config)
        except SourceError as error:
            log.warning("%s", error)
    return found


def _features_untrained(
    spec: SourceSpec, target: Target, ids: Sequence[str], config: RunConfig
) -> npt.NDArray[np.floating]:
    source = open_untrained(spec, device=device_of(config))
    at = source.preprocessing
    parts = []
    for _, pixels in prepare_images(target.files, ids, preprocessing=at, workers=config.workers):
        for batch in torch.split(normalise(pixels, at.mean, at.std), BATCH_SIZE):
            features, _ = source.outputs(batch.to(source.device))
            if features is None:
                raise ValueError("a model without a classifier has features")
            parts.append(features.cpu().numpy())
    return np.concatenate(parts)


def ranking_record(ranking: Ranking, material: Material) -> dict[str, Any]:
    """The ranking as the JSON of `potstill rank`."""
    return {
        "schema": 1,
        "target": material.target.name,
        "metric": ranking.metric,
        "scoring_images": ranking.scoring_images,
        "forwards": material.forwards,
        "resamples": ranking.resamples,
        "decided": ranking.decided,
        "tied_with_first": list(ranking.tied_with_first),
        "permutations": ranking.permutations,
        "related": ranking.related,
        "agreement": ranking.agreement,
        "sources": [_source_record(row, ranking.metric, material) for row in ranking.sources],
    }


def _source_record(row: RankedSource, metric: str, material: Material) -> dict[str, Any]:
    outputs = material.outputs.get(row.name)
    own = row.scores.get(metric)
    scores: Mapping[str, Any] = {
        name: {"score": each.score, "ci95": each.ci95, "error": each.error} for name, each in row.scores.items()
    }
    ranks = row.rank_probabilities
    return {
        "name": row.name,
        "score": row.score,
        "ci95": own.ci95 if own else None,
        "scores": scores,
        "rank_probability": None if ranks is None else ranks[0],
        "rank_probabilities": ranks,
        "p_value": row.p_value,
        "baselines": dict(row.baselines),
        "seconds": round(row.seconds, 4),
        "extract_seconds": round(outputs.cost.seconds, 3) if outputs else None,
        "params": outputs.cost.params if outputs else None,
        "license": material.zoo.sources[row.name].license,
        "error": row.error,
    }
