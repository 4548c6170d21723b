"""From a method to the objective by which its student is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable

from potstill.baselines.fixmatch import fixmatch_objective
from potstill.baselines.pseudo_label import pseudo_label_objective
from potstill.baselines.softmatch import SoftMatch
from potstill.baselines.supervised import supervised_objective
from potstill.config import RunConfig
from potstill.distillation.answers import SourceAnswers
from potstill.distillation.objective import source_space_objective
from potstill.distillation.soft_labels import soft_label_objective
from potstill.pipeline.methods import MethodChoice
from potstill.training.loop import Objective
from potstill.training.mixing import mixed
from potstill.types import SourceWeights

log = logging.getLogger(__name__)


def objective_of(
    choice: MethodChoice,
    num_classes: int,
    answers: SourceAnswers | None,
    weights: SourceWeights | None,
    config: RunConfig,
) -> Objective:
    """The objective of a method; `answers` and `weights` are those of its sources, None for one without."""
    rivals: dict[str, Callable[[], Objective]] = {
        "pseudo-label": pseudo_label_objective,
        "fixmatch": lambda: fixmatch_objective(threshold=config.threshold),
        "softmatch": lambda: SoftMatch(num_classes),
    }
    unused = [name for name in ("mixup", "label_smoothing") if getattr(config, name)]
    if unused and (choice.base in rivals or choice.method.taught_by):
        log.warning("%s takes no part in %s: it makes labels for images", choice.name, " and ".join(unused))
    if choice.base in rivals:
        return rivals[choice.base]()
    if choice.method.taught_by:
        return soft_label_objective()
    if answers is not None and weights is not None:
        objective = source_space_objective(
            [weights.values[name] for name in answers.sources],
            label_weight=config.label_weight,
            temperatures=list(answers.temperatures.values()),
            label_smoothing=config.label_smoothing,
            standardise=config.standardise_logits,
        )
    else:
        objective = supervised_objective(label_smoothing=config.label_smoothing)
    return mixed(objective, alpha=config.mixup) if config.mixup else objective
