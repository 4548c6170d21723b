"""All images of a target as squares: one array, decoded once and mapped from disk afterwards, where that fits."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import PIL

from potstill.data.images import Pixels
from potstill.data.preprocessing import read_square
from potstill.data.squares import FileSquares, PackedSquares, Squares
from potstill.data.threads import map_in_threads
from potstill.files import replacing
from potstill.types import Progress, Target, no_progress

logger = logging.getLogger(__name__)

MAX_PACKED_BYTES = 8 << 30
"""Larger targets are decoded batch by batch: 8 GiB are 134,000 images at 146 pixels, or 43,000 at 256."""


def packed_bytes(count: int, size: int) -> int:
    """What `pack_pixels` needs for `count` images, on disk or in memory.

    >>> packed_bytes(100_000, 146) / 2**30
    5.95...
    """
    return count * size * size * 3


def open_squares(
    target: Target,
    image_ids: Sequence[str],
    size: int,
    *,
    interpolation: str = "bicubic",
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int = 0,
    max_packed_bytes: int = MAX_PACKED_BYTES,
    progress: Progress = no_progress,
) -> Squares:
    """The images as squares: packed if they need no more than `max_packed_bytes`, otherwise decoded when wanted.

    Both give the same pixels; 0 packs nothing. Arguments and errors are otherwise those of `pack_pixels`.
    """
    if packed_bytes(len(image_ids), size) > max_packed_bytes:
        files = [target.files[image_id] for image_id in image_ids]
        return FileSquares(files, side=size, interpolation=interpolation)
    return PackedSquares(
        pack_pixels(
            target,
            image_ids,
            size,
            interpolation=interpolation,
            cache_dir=cache_dir,
            workers=workers,
            progress=progress,
        )
    )


def pack_pixels(
    target: Target,
    image_ids: Sequence[str],
    size: int,
    *,
    interpolation: str = "bicubic",
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int = 0,
    progress: Progress = no_progress,
) -> Pixels:
    """Decode images and fit each into a square, uint8 `(N, size, size, 3)`; row i is `image_ids[i]`.

    The square is the centre of the image (`fit_square` with crop 1). With `cache_dir` the array is a read-only memory
    map of `cache_dir/pixels/<digest>.npy`, where the digest covers the contents of the images in their order, the size,
    the interpolation and the Pillow version, so a second call decodes nothing. Without, it lies in memory.

    Costs size * size * 3 bytes an image. Raises DataError for an image that cannot be read, OutputError if the cache
    cannot be written.
    """
    shape = (len(image_ids), size, size, 3)
    if cache_dir is None or not image_ids:
        pixels: Pixels = np.empty(shape, dtype=np.uint8)
        _fill(pixels, target, image_ids, size, interpolation, workers, progress)
        return pixels
    digest = hashlib.sha256(f"{size} {interpolation} {PIL.__version__}".encode())
    for image_id in image_ids:
        digest.update(bytes.fromhex(target.digests[image_id]))
    file = Path(cache_dir) / "pixels" / f"{digest.hexdigest()[:32]}.npy"
    packed = _open_packed(file, shape)
    if packed is None:
        with replacing(file) as temporary:
            pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            _fill(pixels, target, image_ids, size, interpolation, workers, progress)
            pixels.flush()
            del pixels  # Windows replaces no file that is mapped
        packed = np.load(file, mmap_mode="r", allow_pickle=False)
    return packed


def _fill(
    pixels: Pixels,
    target: Target,
    image_ids: Sequence[str],
    size: int,
    interpolation: str,
    workers: int,
    progress: Progress,
) -> None:
    read = partial(read_square, size=size, interpolation=interpolation, crop=1.0)
    squares = map_in_threads(read, (target.files[image_id] for image_id in image_ids), workers=workers)
    for row, square in enumerate(squares):
        pixels[row] = square
        progress("decode images", row + 1, len(image_ids))


def _open_packed(file: Path, shape: tuple[int, ...]) -> Pixels | None:
    """The packed array, or None if it is absent or damaged."""
    if not file.exists():
        return None
    try:
        packed: Pixels = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        logger.warning("The packed images %s are damaged (%s); they are decoded again.", file.name, error)
        return None
    if packed.shape != shape or packed.dtype != np.uint8:
        logger.warning("The packed images %s have the wrong shape %s; they are decoded again.", file.name, packed.shape)
        return None
    return packed
