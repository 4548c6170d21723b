"""Views: stored squares of pixels turned into normalised batches, plain or augmented."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from potstill.data.augmentation import STRONG_NUMBERS, WEAK_NUMBERS, strong_views, weak_views
from potstill.data.hashing import hash_ids, uniforms
from potstill.data.images import Pixels
from potstill.data.preprocessing import normalisation_factors, normalise
from potstill.errors import UsageError, unknown_name

ViewKind = Literal["plain", "weak", "strong"]

_CHUNK = 1 << 18  # pixels: 3 MiB of float32 values


class ViewDataset:
    """Images by row number, in any view.

    pixels: uint8 `(N, S, S, 3)`, an array or a memory map, as from `pack_pixels`; S is at least `image_size`. For a
    model with crop c, pack squares of `resized_size(image_size, c)`: the plain view, their centre, is then the
    evaluation transform, and the random crops of the augmented views see the whole square.
    image_ids: N names; they, not the row numbers, decide the random numbers. mean, std: three values each.
    flip: whether augmented views may be mirrored (not for letters and digits). device: where views are computed.

    Raises UsageError for shapes that do not fit.
    """

    def __init__(
        self,
        pixels: Pixels,
        image_ids: Sequence[str],
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        flip: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        side = pixels.shape[1] if pixels.ndim == 4 else 0
        if pixels.dtype != np.uint8 or pixels.shape != (len(image_ids), side, side, 3) or side < image_size:
            raise UsageError(
                f"Expected pixels uint8 ({len(image_ids)}, S, S, 3) with S >= {image_size}, "
                f"got {pixels.dtype} {pixels.shape}."
            )
        self.image_size = image_size
        self.device = torch.device(device)
        self._pixels = pixels
        self._mean, self._std = tuple(mean), tuple(std)
        self._scale, self._shift = normalisation_factors(mean, std, self.device)
        self._seed = seed
        self._flip = flip
        self._keys = hash_ids(image_ids)

    def __len__(self) -> int:
        return len(self._pixels)

    def views(self, rows: npt.NDArray[np.int64], kind: ViewKind, *, epoch: int = 0, draw: int = 0) -> torch.Tensor:
        """One view of each of the given images, normalised float32 `(B, 3, image_size, image_size)`.

        rows: int64 `(B,)`. The random parameters are a function of the seed, `epoch`, `draw`, the kind and the image id
        and of nothing else: neither the batch, nor the order, nor earlier calls. No random state is read or changed.

        Raises UnknownNameError for another kind.
        """
        if kind == "plain":
            start = (self._pixels.shape[1] - self.image_size) // 2
            window = slice(start, start + self.image_size)
            pixels = torch.from_numpy(np.ascontiguousarray(self._pixels[rows, window, window])).to(self.device)
            return normalise(pixels, self._mean, self._std)
        if kind not in get_args(ViewKind):
            raise unknown_name("kind of view", kind, get_args(ViewKind))
        rows = np.asarray(rows, dtype=np.int64)
        columns = WEAK_NUMBERS if kind == "weak" else STRONG_NUMBERS
        numbers = uniforms(self._keys[rows], (self._seed, epoch, draw, get_args(ViewKind).index(kind)), columns)
        augment = weak_views if kind == "weak" else strong_views
        views = torch.empty(len(rows), 3, self.image_size, self.image_size, device=self.device)
        # On a CPU a few images at a time stay in the cache of the processor; a whole batch of large ones does not.
        chunk = max(1, _CHUNK // self._pixels.shape[1] ** 2) if self.device.type == "cpu" else max(1, len(rows))
        for start in range(0, len(rows), chunk):
            part = slice(start, start + chunk)
            images = _shrink(self._take(rows[part]), self.image_size)
            images = augment(images, numbers[part], size=self.image_size, flip=self._flip)
            torch.sub(images.mul_(self._scale), self._shift, out=views[part])
        return views

    def _take(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """float32 `(B, 3, S, S)` in [0, 1]."""
        # numpy reorders bytes several times faster than torch does.
        channels_first = np.ascontiguousarray(self._pixels[rows].transpose(0, 3, 1, 2))
        return torch.from_numpy(channels_first).to(self.device).to(torch.float32).div_(255.0)


def _shrink(images: torch.Tensor, image_size: int) -> torch.Tensor:
    """Make `(B, 3, S, S)` images small enough to be sampled at `image_size` without aliasing."""
    if images.shape[-1] <= 1.5 * image_size:
        return images
    return F.interpolate(images, size=round(1.25 * image_size), mode="bilinear", antialias=True, align_corners=False)
