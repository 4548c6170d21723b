"""The stack of a method's sources over the pool: fitted once for a label draw, kept in the cache, used by all."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from potstill.cache import keep_derived, kept_derived
from potstill.cache.encoding import Arrays
from potstill.distillation.stacking import STACK_VERSION, Stack, stack_sources
from potstill.errors import OutputError
from potstill.pipeline.pool_views import rows_of
from potstill.pipeline.preparation import Material
from potstill.types import Target

log = logging.getLogger(__name__)


def settle_stack(
    material: Material,
    target: Target,
    sources: Sequence[str],
    pool: tuple[str, ...],
    cache_dir: Path,
    *,
    shuffled: bool = False,
) -> Stack:
    """The stack of the sources, on the labeled images of the label draw.

    It is kept beside the outputs of the first source, under a digest of all that it depends on.

    Args:
        material: source outputs over the target's images.
        target: the label draw.
        sources: names; each has features.
        pool: image ids in the order of the rows.
        cache_dir: the cache.
        shuffled: give every image the features of another one, the same for all sources.

    Raises:
        CacheError: the kept stack is damaged.
    """
    names = tuple(sources)
    key = material.outputs[names[0]].key
    kept_as = f"stack-{_digest(material, target, names, pool, shuffled)}"
    arrays = kept_derived(cache_dir, key, kept_as)
    if arrays is None:
        arrays = _arrays_of(_fitted(material, target, names, pool, shuffled=shuffled), names)
        try:
            arrays = keep_derived(cache_dir, key, kept_as, arrays)
        except OutputError as error:
            log.warning("The stack is not kept: %s", error)
    return _stack_of(arrays, names)


def _fitted(
    material: Material, target: Target, names: tuple[str, ...], pool: tuple[str, ...], *, shuffled: bool
) -> Stack:
    started = time.monotonic()
    shown = tuple(np.random.default_rng(0).permutation(np.array(pool, dtype=object))) if shuffled else pool
    labeled = target.split.labeled
    outputs = {name: material.outputs[name] for name in names}
    stack = stack_sources(
        {
            name: np.asarray(each.features[each.rows(shown)])
            for name, each in outputs.items()
            if each.features is not None
        },
        rows_of(labeled, pool),
        target.labels_of(labeled),
        len(target.classes),
        groups=[target.groups.get(image_id, image_id) for image_id in labeled],
    )
    best_first = sorted(stack.shares.items(), key=lambda item: -item[1])
    log.info(
        "stack of %s: %s of held-out labels are right (%.1f s)",
        ", ".join(f"{name} {100 * share:.0f} %" for name, share in best_first if share >= 0.01),
        "none" if stack.accuracy is None else f"{100 * stack.accuracy:.0f} %",
        time.monotonic() - started,
    )
    return stack


def _digest(material: Material, target: Target, names: tuple[str, ...], pool: tuple[str, ...], shuffled: bool) -> str:
    labeled = target.split.labeled
    parts = [
        STACK_VERSION,
        [(name, material.outputs[name].key) for name in names],
        [target.digests[image_id] for image_id in pool],
        [target.digests[image_id] for image_id in labeled],
        target.labels_of(labeled).tolist(),
        len(target.classes),
        [target.groups.get(image_id, image_id) for image_id in labeled],
        shuffled,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _arrays_of(stack: Stack, names: tuple[str, ...]) -> Arrays:
    held_out = [] if stack.loss is None or stack.accuracy is None else [stack.loss, stack.accuracy]
    return {
        "probs": stack.probs,
        "shares": np.array([stack.shares[name] for name in names], dtype=np.float32),
        "propagation": np.array([stack.propagation], dtype=np.float32),
        "held_out": np.array(held_out, dtype=np.float32),
    }


def _stack_of(arrays: Arrays, names: tuple[str, ...]) -> Stack:
    shares = np.asarray(arrays["shares"], dtype=np.float64)
    loss, accuracy = (float(each) for each in arrays["held_out"]) if len(arrays["held_out"]) else (None, None)
    return Stack(
        probs=np.array(arrays["probs"]),
        shares=dict(zip(names, (shares / shares.sum()).tolist(), strict=True)),
        propagation=float(arrays["propagation"][0]),
        loss=loss,
        accuracy=accuracy,
    )
