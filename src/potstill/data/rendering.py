"""Squares of pixels turned into augmented views, a few images at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from potstill.data.geometry import Floats

Augment = Callable[..., torch.Tensor]
"""(images float32 `(B, 3, S, S)` in 0 .. 1, numbers, size=, flip=) -> views `(B, 3, size, size)` in 0 .. 1."""

_CHUNK = 1 << 18  # pixels: 3 MiB of float32 values


def render_in_chunks(
    squares: torch.Tensor, numbers: Floats, augment: Augment, *, size: int, flip: bool
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Augmented views of some of the squares after the other: the rows, and their views uint8 `(b, 3, size, size)`.

    A view depends on its row alone, not on the cut. On a CPU a few images at a time stay in the cache of the processor,
    a whole batch of large ones does not; another device takes all at once.

    squares: uint8 `(B, S, S, 3)`; the views are on their device. numbers: `(B, K)`, those that `augment` takes.
    """
    count, side = len(squares), squares.shape[1]
    chunk = max(1, _CHUNK // side**2 if squares.device.type == "cpu" else count)
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        images = _shrink(_channels_first(squares[part]).to(torch.float32).div_(255.0), size)
        yield part, augment(images, numbers[part], size=size, flip=flip).mul_(255.0).round_().to(torch.uint8)


def _channels_first(squares: torch.Tensor) -> torch.Tensor:
    if squares.device.type != "cpu":
        return squares.permute(0, 3, 1, 2).contiguous()
    # numpy reorders bytes several times faster than torch does.
    return torch.from_numpy(np.ascontiguousarray(squares.numpy().transpose(0, 3, 1, 2)))


def _shrink(images: torch.Tensor, size: int) -> torch.Tensor:
    """Make `(B, 3, S, S)` images small enough to be sampled at `size` without aliasing."""
    if images.shape[-1] <= 1.5 * size:
        return images
    return F.interpolate(images, size=round(1.25 * size), mode="bilinear", antialias=True, align_corners=False)
