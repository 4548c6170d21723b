"""`auto`: the stack of the sources teaches the student where it knows the target better than the student does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from potstill.config import RunConfig
from potstill.distillation.stacking import Stack, stack_sources
from potstill.errors import UsageError
from potstill.pipeline.methods import MethodChoice
from potstill.pipeline.pool_stack import settle_stack
from potstill.pipeline.pool_views import rows_of
from potstill.pipeline.preparation import Material, cache_dir_of
from potstill.pipeline.relatedness import student_features
from potstill.pipeline.source_use import source_weights
from potstill.types import Ranking, Target

OWN_STACK_IMAGES = 1000
"""Unlabeled images beside the labeled ones that the student's own features are judged on."""


@dataclass(frozen=True)
class AutomaticChoice:
    """A method by name, and why in words."""

    method: str
    reason: str


def choose_method(
    choice: MethodChoice, target: Target, material: Material, ranking: Ranking, config: RunConfig
) -> AutomaticChoice:
    """What `auto` means on this label draw; labeled training images alone are asked.

    `stacked` if the stack of the sources gives held-out labels a lower cross-entropy than the student's own initial
    features do, stacked in the same way; else `transfer`, which no source can harm. Where all pool images are labeled
    there is nothing that a stack could add a label to, and `weighted` takes its place; so it does where no source has
    features.

    Args:
        choice: `auto`, perhaps with an ending: it is handed on to the method, and what it does to the sources is done
            to them here, too.
        target: the label draw.
        material: source outputs over the target's images.
        ranking: of the sources on this label draw.
        config: resolved.
    """
    try:
        weights = source_weights(choice, ranking, config)
    except UsageError as error:
        return AutomaticChoice("transfer", f"no source can be used: {error}")
    ending = choice.name.removeprefix(choice.base)
    names = [name for name in (weights.used if weights else ()) if material.outputs[name].features is not None]
    if not names:
        return AutomaticChoice(f"weighted{ending}", "no source has features, so their answers are all there is")
    method = f"stacked{ending}" if target.split.unlabeled else f"weighted{ending}"
    pool = tuple(sorted(target.split.pool))
    stack = settle_stack(material, target, names, pool, cache_dir_of(config), shuffled=choice.shuffled)
    own = _own_stack(target, config)
    if stack.loss is None or own.loss is None:
        return AutomaticChoice(method, "the labels are too few to tell whether the sources help, so they are trusted")
    figures = (
        f"cross-entropy of held-out labels: {stack.loss:.2f} nats by the sources, {own.loss:.2f} by the features that "
        "the student starts with"
    )
    if stack.loss < own.loss:
        return AutomaticChoice(method, f"the sources know your classes better than the student does ({figures})")
    return AutomaticChoice("transfer", f"the sources know your classes no better than the student does ({figures})")


def _own_stack(target: Target, config: RunConfig) -> Stack:
    """The stack whose only source are the student's initial features."""
    labeled, unlabeled = target.split.labeled, tuple(sorted(target.split.unlabeled))
    if len(unlabeled) > OWN_STACK_IMAGES:
        drawn = np.random.default_rng(config.seed).choice(len(unlabeled), OWN_STACK_IMAGES, replace=False)
        unlabeled = tuple(unlabeled[row] for row in sorted(drawn))
    shown = (*labeled, *unlabeled)
    return stack_sources(
        {"student": student_features(target, shown, config)},
        rows_of(labeled, shown),
        target.labels_of(labeled),
        len(target.classes),
        groups=[target.groups.get(image_id, image_id) for image_id in labeled],
    )
