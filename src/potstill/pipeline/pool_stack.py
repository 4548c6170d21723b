"""The stack of a method's sources over the pool: what they say together about the target's classes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from potstill.distillation.stacking import Stack, stack_sources
from potstill.errors import UsageError
from potstill.pipeline.preparation import Material
from potstill.types import Target

log = logging.getLogger(__name__)


def stack_over_pool(
    material: Material, target: Target, sources: Sequence[str], pool: tuple[str, ...], *, shuffled: bool = False
) -> Stack:
    """Fit the stack of those sources that have features, on the labeled images of the label draw.

    Args:
        material: source outputs over the target's images.
        target: the label draw.
        sources: the best-ranked one first.
        pool: image ids in the order of the rows.
        shuffled: give every image the features of another one, the same for all sources.

    Raises:
        UsageError: no source has features.
    """
    started = time.monotonic()
    outputs = {name: material.outputs[name] for name in sources if material.outputs[name].features is not None}
    if not outputs:
        raise UsageError("No source has features, so the target's classes cannot be read from them. Use weighted.")
    shown = tuple(np.random.default_rng(0).permutation(np.array(pool, dtype=object))) if shuffled else pool
    position = {image_id: row for row, image_id in enumerate(pool)}
    labeled = target.split.labeled
    stack = stack_sources(
        {
            name: np.asarray(each.features[each.rows(shown)])
            for name, each in outputs.items()
            if each.features is not None
        },
        np.array([position[image_id] for image_id in labeled], dtype=np.int64),
        target.labels_of(labeled),
        len(target.classes),
        groups=[target.groups.get(image_id, image_id) for image_id in labeled],
    )
    log.info(
        "stack of %s: %s of held-out labels are right (%.1f s)",
        ", ".join(f"{name} {100 * share:.0f} %" for name, share in stack.shares.items()),
        "none" if stack.accuracy is None else f"{100 * stack.accuracy:.0f} %",
        time.monotonic() - started,
    )
    return stack
