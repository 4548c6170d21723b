"""What a method takes from the sources: how much each counts, and its answers over the pool."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from potstill.config import RunConfig, overridden
from potstill.distillation.answers import PoolAnswers, SourceAnswers
from potstill.distillation.clusters import Clusters
from potstill.distillation.softening import (
    Indices,
    confidence_weights,
    entropy_temperature,
    mean_entropy_share,
    require_softening,
)
from potstill.errors import UsageError, unknown_name
from potstill.pipeline.methods import MethodChoice
from potstill.pipeline.pool_clusters import require_features
from potstill.pipeline.preparation import Material
from potstill.similarity import RANKERS, SIMILARITIES
from potstill.types import RankedSource, Ranking, SourceLogits, SourceOutputs, SourceSpec, SourceWeights
from potstill.weighting import drop_weak, weigh

log = logging.getLogger(__name__)


def source_weights(choice: MethodChoice, ranking: Ranking, config: RunConfig) -> SourceWeights | None:
    """The source weights of a method, None for one without sources.

    Raises:
        UnknownNameError: a left-out source that is not in the zoo.
        WeightingError: the scores do not suit the scheme.
    """
    if choice.method.scheme is None:
        return None
    config = overridden(config, choice.name, choice.base)
    scores = ranking.scores()
    for named, what in ((choice.left_out, "source to leave out"), (choice.only, "source to use alone")):
        if named is not None and named not in {row.name for row in ranking.sources}:
            raise unknown_name(what, named, scores)
    scores = {name: score for name, score in scores.items() if name != choice.left_out and choice.only in (None, name)}
    if not scores:
        reasons = {reason for row in ranking.sources if (reason := _why_unscored(row, ranking.metric))}
        raise UsageError(
            f"No source has a {ranking.metric} score, so there is nothing to distil. {' '.join(sorted(reasons))} "
            "Sources without features are scored by --metric leep, with --scheme softmax or equal."
        )
    scheme = config.scheme if choice.method.scheme == "config" else choice.method.scheme
    if scheme == "power" and max(scores.values()) <= 0 and _zero_means_unrelated(ranking.metric):
        log.warning("No source has a positive %s score, so %s trusts all of them alike.", ranking.metric, choice.name)
        scheme = "equal"
    weights = weigh(
        scores, scheme=scheme, power=config.power, temperature=config.softmax_temperature, top_k=config.top_k
    )
    return drop_weak(weights, minimum=config.min_weight)


def _zero_means_unrelated(metric: str) -> bool:
    """Whether no positive score tells of the sources, not of the metric: a score in log units has no such zero."""
    known = SIMILARITIES.get(metric) or RANKERS.get(metric)
    return known is not None and all(math.isfinite(end) for end in known.bounds)


def require_usable_sources(choice: MethodChoice, ranking: Ranking, material: Material, config: RunConfig) -> None:
    """Notice before anything is trained that a method cannot use its sources as the configuration asks.

    Raises:
        UsageError: a source that the method takes cannot be softened so, none has features, or none can be started at.
        UnknownNameError, WeightingError: as in `source_weights`.
    """
    if choice.method.chooses and not ranking.scores():
        return  # it does without them
    weights = source_weights(choice, ranking, config)
    config = overridden(config, choice.name, choice.base)
    if weights is not None and choice.method.taught_by == "stack":
        stackable_sources(weights, material)
    if weights is not None and choice.method.starts_at_source:
        source_to_start_at(choice, weights, material, config)
    for name in weights.used if weights and choice.method.imitates else ():
        outputs = material.outputs[name]
        if outputs.logits is None:  # clusters can be softened in any way
            require_features(outputs)
            continue
        try:
            require_softening(outputs.logits, temperature=config.temperature, standardise=config.standardise_logits)
        except UsageError as error:
            raise UsageError(f"{choice.name} cannot use source {name}. {error}") from None


def stackable_sources(weights: SourceWeights, material: Material) -> tuple[str, ...]:
    """The used sources that have features.

    Raises:
        UsageError: there is none.
    """
    names = tuple(name for name in weights.used if material.outputs[name].features is not None)
    if not names:
        raise UsageError("No source has features, so the target's classes cannot be read from them. Use weighted.")
    return names


def source_to_start_at(choice: MethodChoice, weights: SourceWeights, material: Material, config: RunConfig) -> str:
    """The best-ranked source that a student can start at: one of its own architecture that has a weights file.

    For a student that becomes its source any model of timm serves.

    Raises:
        UsageError: there is none.
    """
    for name in weights.values:
        spec = material.zoo.sources[name]
        if spec.model.startswith("timm/") if choice.method.becomes_source else _is_start_of(config.student, spec):
            return name
    if choice.method.becomes_source:
        raise UsageError("No source of the zoo is a model of timm, so none can be fine-tuned.")
    raise UsageError(f"No source of the zoo is a {config.student} with a weights file, so no student can start at one.")


def _is_start_of(student: str, spec: SourceSpec) -> bool:
    return spec.model == student and spec.weights is not None


def _why_unscored(row: RankedSource, metric: str) -> str | None:
    score = row.scores.get(metric)
    return row.error or (score.error if score else None)


def source_answers(
    material: Material,
    weights: SourceWeights,
    pool: tuple[str, ...],
    config: RunConfig,
    *,
    clusters: Mapping[str, Clusters],
    shuffled: bool = False,
) -> SourceAnswers:
    """The answers over the pool of every source with a weight; `clusters` stand in for classes that a source lacks.

    When `shuffled`, every image gets the answers to another one, the same for all sources.
    """
    if shuffled:
        pool = tuple(np.random.default_rng(0).permutation(np.array(pool, dtype=object)))
    views = {name: _views_of(material.outputs[name], pool, clusters.get(name)) for name in weights.used}
    temperatures = dict.fromkeys(views, config.temperature)
    if config.source_temperature == "entropy":
        temperatures = _equally_certain(views, config)
    return SourceAnswers(
        {
            name: PoolAnswers(
                each,
                temperature=temperatures[name],
                standardise=config.standardise_logits,
                confidences=_confidences(each, config, temperatures[name]),
            )
            for name, each in views.items()
        }
    )


def _views_of(
    outputs: SourceOutputs, pool: tuple[str, ...], clusters: Clusters | None
) -> list[tuple[SourceLogits, Indices]]:
    """Logits and the pool's rows in them, one pair for every view that was stored, else one for the plain view."""
    rows = outputs.rows(pool)
    if outputs.logits is not None:
        return [(logits, rows) for logits in (outputs.views or (outputs.logits,))]
    if clusters is None:
        raise ValueError(f"source {outputs.source} has no classes, so it needs clusters")
    every = np.arange(len(pool))
    features = outputs.view_features or ((outputs.features,) if outputs.features is not None else ())
    return [(clusters.logits(each, rows), every) for each in features]


def _equally_certain(views: Mapping[str, list[tuple[SourceLogits, Indices]]], config: RunConfig) -> dict[str, float]:
    """For each source the temperature at which its answers are as certain as all are on average at the common one."""
    shares = {
        name: mean_entropy_share(*each[0], temperature=config.temperature, standardise=config.standardise_logits)
        for name, each in views.items()
    }
    # A share of exactly 0 or 1 cannot be reached by any temperature.
    wanted = float(np.clip(np.mean(list(shares.values())), 0.01, 0.99))
    return {
        name: entropy_temperature(*each[0], target_share=wanted, standardise=config.standardise_logits)
        for name, each in views.items()
    }


def _confidences(
    views: list[tuple[SourceLogits, Indices]], config: RunConfig, temperature: float
) -> list[npt.NDArray[np.float32]]:
    found = [
        confidence_weights(
            *view, kind=config.confidence, temperature=temperature, standardise=config.standardise_logits
        )
        for view in views
    ]
    return [each for each in found if each is not None]
