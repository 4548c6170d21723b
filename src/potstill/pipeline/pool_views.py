"""The pool's images as a student sees them, and their rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from potstill.config import RunConfig
from potstill.data import StoredViews, ViewDataset, open_squares, resized_size
from potstill.pipeline.preparation import cache_dir_of
from potstill.types import Preprocessing, Progress, Target


def pool_views(
    target: Target, config: RunConfig, preprocessing: Preprocessing, progress: Progress
) -> tuple[tuple[str, ...], ViewDataset]:
    """The pool's images in an order that does not depend on the label draw, and their views."""
    pool = tuple(sorted(target.split.pool))
    squares = open_squares(
        target,
        pool,
        resized_size(preprocessing.image_size, preprocessing.crop),
        interpolation=preprocessing.interpolation,
        cache_dir=cache_dir_of(config),
        workers=config.workers,
        max_packed_bytes=int(config.packed_gb * 1e9),
        progress=progress,
    )
    dataset = ViewDataset(
        squares,
        pool,
        image_size=preprocessing.image_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        seed=target.split.seed,
        flip=config.flip,
        stored=_stored_views(target, pool, config),
    )
    return pool, dataset


def _stored_views(target: Target, pool: tuple[str, ...], config: RunConfig) -> StoredViews | None:
    if config.stored_views == 0:
        return None
    return StoredViews([target.digests[image_id] for image_id in pool], config.stored_views)


def rows_of(image_ids: tuple[str, ...], pool: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Rows of images in the pool `(N,)`."""
    position = {image_id: row for row, image_id in enumerate(pool)}
    return np.array([position[image_id] for image_id in image_ids], dtype=np.int64)
