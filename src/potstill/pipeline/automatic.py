"""`auto`: the stack of the sources teaches the student where it knows the target better than the student does."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.config import RunConfig
from potstill.distillation.stacking import Stack, stack_sources
from potstill.pipeline.methods import MethodChoice, parse_method
from potstill.pipeline.pool_stack import settle_stack
from potstill.pipeline.pool_views import rows_of
from potstill.pipeline.preparation import Material, cache_dir_of
from potstill.pipeline.relatedness import student_features
from potstill.pipeline.source_use import require_usable_sources, source_weights
from potstill.types import Ranking, Target


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
    features do, stacked in the same way over the same pool; else `transfer`, which uses no source. The weights of the
    sources have seen these labels, so the comparison is a little kind to many sources. Where all pool images are
    labeled there is nothing that a stack could add a label to, and `weighted` takes its place; so it does where no
    source has features. With one label a class nothing can be held out, and the sources are trusted.

    Args:
        choice: `auto`, perhaps with an ending: it is handed on to the method, and what it does to the sources is done
            to them here, too.
        target: the label draw.
        material: source outputs over the target's images.
        ranking: of the sources on this label draw.
        config: resolved.

    Raises:
        UnknownNameError: an ending names a source that is not there.
        UsageError: the sources that `weighted` would take cannot be softened as the configuration asks.
    """
    if not ranking.scores():
        return AutomaticChoice("transfer", f"no source has a {ranking.metric} score")
    weights = source_weights(choice, ranking, config)
    ending = choice.name.removeprefix(choice.base)
    names = [name for name in (weights.used if weights else ()) if material.outputs[name].features is not None]
    method = f"stacked{ending}" if target.split.unlabeled and names else f"weighted{ending}"
    if method.startswith("weighted"):
        require_usable_sources(parse_method(method), ranking, material, config)
    if not names:
        return AutomaticChoice(method, "no source has features, so their answers are all there is")
    pool = tuple(sorted(target.split.pool))
    stack = settle_stack(material, target, names, pool, cache_dir_of(config), shuffled=choice.shuffled)
    own = _own_stack(target, pool, config)
    if stack.loss is None or own.loss is None:
        return AutomaticChoice(method, "the labels are too few to tell whether the sources help, so they are trusted")
    figures = (
        f"cross-entropy of held-out labels: {stack.loss:.2f} nats by the sources, {own.loss:.2f} by the features that "
        "the student starts with"
    )
    if stack.loss < own.loss:
        return AutomaticChoice(method, f"the sources know your classes better than the student does ({figures})")
    return AutomaticChoice("transfer", f"the sources know your classes no better than the student does ({figures})")


def _own_stack(target: Target, pool: tuple[str, ...], config: RunConfig) -> Stack:
    """The stack whose only source are the student's initial features; it costs a forward pass over the pool."""
    labeled = target.split.labeled
    return stack_sources(
        {"student": student_features(target, pool, config)},
        rows_of(labeled, pool),
        target.labels_of(labeled),
        len(target.classes),
        groups=[target.groups.get(image_id, image_id) for image_id in labeled],
    )
