"""What a method takes from the sources: how much each counts, and its answers over the pool."""

from __future__ import annotations

import numpy as np

from potstill.config import RunConfig, overridden
from potstill.distillation.clusters import pseudo_classes
from potstill.distillation.objective import SourceTargets
from potstill.errors import UsageError, unknown_name
from potstill.pipeline.methods import MethodChoice
from potstill.pipeline.preparation import Material
from potstill.types import RankedSource, Ranking, SourceWeights
from potstill.weighting import weigh


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
    if choice.left_out is not None:
        if choice.left_out not in {row.name for row in ranking.sources}:
            raise unknown_name("source to leave out", choice.left_out, scores)
        scores.pop(choice.left_out, None)
    if not scores:
        reasons = {reason for row in ranking.sources if (reason := _why_unscored(row, ranking.metric))}
        raise UsageError(
            f"No source has a {ranking.metric} score, so there is nothing to distil. {' '.join(sorted(reasons))}"
        )
    scheme = config.scheme if choice.method.scheme == "config" else choice.method.scheme
    return weigh(scores, scheme=scheme, power=config.power, temperature=config.softmax_temperature, top_k=config.top_k)


def _why_unscored(row: RankedSource, metric: str) -> str | None:
    score = row.scores.get(metric)
    return row.error or (score.error if score else None)


def source_targets(
    material: Material, weights: SourceWeights | None, pool: tuple[str, ...]
) -> dict[str, SourceTargets]:
    """The answers over the pool of every source with a weight; clusters stand in for classes that a source lacks."""
    targets: dict[str, SourceTargets] = {}
    for name, weight in (weights.values if weights else {}).items():
        if weight == 0:
            continue
        outputs = material.outputs[name]
        rows = outputs.rows(pool)
        if outputs.logits is not None:
            targets[name] = SourceTargets(outputs.logits, rows)
        elif outputs.features is not None:
            targets[name] = SourceTargets(pseudo_classes(outputs.features[rows]), np.arange(len(pool)))
        else:
            raise UsageError(f"Source {name} has neither logits nor features, so it cannot be distilled. Leave it out.")
    return targets
