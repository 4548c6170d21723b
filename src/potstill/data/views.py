"""Views: squares of pixels turned into batches, plain or augmented. Bytes stay bytes until they are on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch

from potstill.data.augmentation import STRONG_NUMBERS, WEAK_NUMBERS, strong_views, weak_views
from potstill.data.crops import CROP_NUMBERS, crop_views
from potstill.data.geometry import Floats
from potstill.data.hashing import hash_ids, uniforms
from potstill.data.images import Pixels
from potstill.data.preprocessing import normalisation_factors, normalise
from potstill.data.rendering import Augment, render_in_chunks
from potstill.data.squares import PackedSquares, Rows, Squares
from potstill.data.stored_views import StoredViews
from potstill.errors import UsageError, unknown_name
from potstill.types import ViewKind

# The position of a kind is part of its random stream: new kinds go to the end.
KINDS: tuple[ViewKind, ...] = get_args(ViewKind)


class ViewDataset:
    """Images by row number, in any view.

    squares: what `pack_pixels` or `open_squares` gives: uint8 `(N, S, S, 3)`, an array or a memory map, or Squares that
    decode files; S is at least `image_size`. For a model with crop c, S is `resized_size(image_size, c)`: the plain
    view, the centre, is then the evaluation transform, and the random crops of the other views see the whole square.
    image_ids: N names; they, not the row numbers, decide the random numbers. mean, std: three values each.
    flip: whether augmented views may be mirrored (not for letters and digits). stored: views that sources saw too, for
    the kind `stored`.

    It can be pickled; a memory map is then mapped again, not copied (see PackedSquares). Calls from several threads are
    safe. Raises UsageError for shapes that do not fit.
    """

    def __init__(
        self,
        squares: Pixels | Squares,
        image_ids: Sequence[str],
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        flip: bool = False,
        stored: StoredViews | None = None,
    ) -> None:
        self._squares = PackedSquares(squares) if isinstance(squares, np.ndarray) else squares
        if len(self._squares) != len(image_ids) or self._squares.side < image_size:
            raise UsageError(
                f"Expected {len(image_ids)} squares of at least {image_size} pixels, one for each image id, "
                f"got {len(self._squares)} of {self._squares.side}."
            )
        normalisation_factors(mean, std, torch.device("cpu"))  # complains now rather than in the first step
        self.image_size = image_size
        self._mean, self._std = tuple(mean), tuple(std)
        self._seed = seed
        self._flip = flip
        self._keys = hash_ids(image_ids)
        self._stored = stored

    def __len__(self) -> int:
        return len(self._squares)

    def views(self, rows: Rows, kind: ViewKind, *, epoch: int | Rows = 0, draw: int = 0) -> torch.Tensor:
        """One view of each of the given images, uint8 `(B, 3, image_size, image_size)` in channels_last order, on the
        CPU; `normalise` makes it the input of a model.

        rows: int64 `(B,)`. kind: `plain`, the evaluation view; `crop`, a random resized crop and flip alone; `weak` and
        `strong` as `potstill.data.augmentation` has them; `stored`, the weak view that sources saw too, whose number
        follows from the epoch and nothing else. epoch: of all rows, or int64 `(B,)`.

        The random parameters are a function of the seed, the image's `epoch`, `draw`, the kind and the image id and of
        nothing else: neither the batch, nor the order, nor earlier calls. No random state is read or changed.

        Raises UnknownNameError for another kind, and what the squares raise for a file that cannot be read.
        """
        if kind not in KINDS:
            raise unknown_name("kind of view", kind, KINDS)
        rows = np.asarray(rows, dtype=np.int64)
        squares = self._squares.take(rows)
        if kind == "plain":
            start = (self._squares.side - self.image_size) // 2
            window = slice(start, start + self.image_size)
            return torch.from_numpy(np.ascontiguousarray(squares[:, window, window])).permute(0, 3, 1, 2)
        views = _empty_views(len(rows), self.image_size)
        numbers = self._numbers(rows, kind, epoch, draw)
        if kind == "crop":
            crop_views(squares, numbers, views, flip=self._flip)
        else:
            _augment(squares, numbers, views, strong_views if kind == "strong" else weak_views, flip=self._flip)
        return views

    def _numbers(self, rows: Rows, kind: ViewKind, epoch: int | Rows, draw: int) -> Floats:
        if kind == "stored":
            if self._stored is None:
                raise UsageError("Expected stored views for the kind 'stored'; give ViewDataset some.")
            return self._stored.numbers(rows, epoch)
        columns = {"crop": CROP_NUMBERS, "weak": WEAK_NUMBERS, "strong": STRONG_NUMBERS}[kind]
        return uniforms(self._keys[rows], (self._seed, epoch, draw, KINDS.index(kind)), columns)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """(images / 255 - mean) / std: uint8 `(B, 3, H, W)` on any device to float32 there, channels_last."""
        return normalise(images.permute(0, 2, 3, 1), self._mean, self._std)


def _empty_views(count: int, size: int) -> torch.Tensor:
    return torch.empty(count, size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)


def _augment(squares: Pixels, numbers: Floats, views: torch.Tensor, augment: Augment, *, flip: bool) -> None:
    """Fill `views`, uint8 `(B, 3, size, size)`, from squares uint8 `(B, S, S, 3)`."""
    bytes_out: npt.NDArray[np.uint8] = views.numpy()
    for part, rendered in render_in_chunks(
        torch.from_numpy(squares), numbers, augment, size=views.shape[-1], flip=flip
    ):
        levels = rendered.numpy()
        for channel in range(3):  # three copies of one channel take half the time of one copy of all
            bytes_out[part, channel] = levels[:, channel]
