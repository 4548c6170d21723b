"""Stored views: weak views that a source and the student see alike, so that its answer fits what the student sees.

View v of an image is fixed by the content of its file and by v alone. Its geometry lives in coordinates from -1 to 1,
so the same crop is rendered at the size of each source, whose answer is cached, and later at the size of the student.
View 0 is the plain evaluation view and needs none of this.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from potstill.data.augmentation import WEAK_NUMBERS, weak_views
from potstill.data.hashing import uniforms
from potstill.data.rendering import render_in_chunks
from potstill.errors import UsageError

# Part of the cache key of stored views: raise it whenever the same numbers would give another picture.
VIEW_VERSION = 1


def view_numbers(digests: Sequence[str], view: int | npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The random numbers of stored views, float64 `(N, WEAK_NUMBERS)` in [0, 1); row i is for `digests[i]`.

    digests: sha256 hex digests of the image files, as in `Target.digests`. view: the number of the view, from 1, of all
    rows or int64 `(N,)`. Neither the order of the images, nor their names, nor any seed has a part in it.

    Raises UsageError for a view below 1.

    >>> numbers = view_numbers(["00" * 32, "ab" * 32], 1)
    >>> numbers.shape, bool((view_numbers(["ab" * 32], 1)[0] == numbers[1]).all())
    ((2, 10), True)
    """
    if np.min(view, initial=1) < 1:
        raise UsageError(f"Stored views are numbered from 1 (0 is the plain view), got {np.min(view)}.")
    return uniforms(_content_keys(digests), (VIEW_VERSION, view), WEAK_NUMBERS)


def _content_keys(digests: Sequence[str]) -> npt.NDArray[np.uint64]:
    # A digest is uniformly distributed already: its first 64 bits name the image as well as a hash of it would.
    return np.array([int(digest[:16], 16) for digest in digests], dtype=np.uint64)


class StoredViews:
    """The stored views 1 .. `count` of N images, which a student sees in turn, one in each pass over them.

    digests: N sha256 hex digests of the image files. Raises UsageError for a count below 1.
    """

    def __init__(self, digests: Sequence[str], count: int) -> None:
        if count < 1:
            raise UsageError(f"Expected at least one stored view, got {count}.")
        self._count = count
        self._keys = _content_keys(digests)

    def numbers(self, rows: npt.NDArray[np.int64], passes: npt.NDArray[np.int64] | int) -> npt.NDArray[np.float64]:
        """`view_numbers` of images `(B,)` for the views that come in the given passes, from 0, `(B, WEAK_NUMBERS)`."""
        return uniforms(self._keys[rows], (VIEW_VERSION, 1 + np.asarray(passes) % self._count), WEAK_NUMBERS)


def render_view(
    pixels: torch.Tensor, numbers: npt.NDArray[np.float64], *, size: int, flip: bool = False
) -> torch.Tensor:
    """The weak view with these numbers, uint8 `(B, size, size, 3)` on the device of the pixels.

    pixels: uint8 `(B, S, S, 3)`, the whole squares (`fit_square` with crop 1). S should be `size` or somewhat more: a
    view is sampled without antialiasing, so squares of more than 1.5 * `size` are refused. numbers: `(B, WEAK_NUMBERS)`
    of `view_numbers`. flip: whether every other view is mirrored; the source and the student must agree on it.

    Raises UsageError for shapes that do not fit.
    """
    count, side = pixels.shape[0], pixels.shape[1] if pixels.ndim == 4 else 0
    if pixels.dtype != torch.uint8 or pixels.shape != (count, side, side, 3) or not size <= side <= 1.5 * size:
        raise UsageError(
            f"Expected squares uint8 (B, S, S, 3) with S from {size} to {int(1.5 * size)}, "
            f"got {pixels.dtype} {tuple(pixels.shape)}."
        )
    if numbers.shape != (count, WEAK_NUMBERS):
        raise UsageError(f"Expected numbers ({count}, {WEAK_NUMBERS}), got {numbers.shape}.")
    views = torch.empty(count, size, size, 3, dtype=torch.uint8, device=pixels.device)
    for part, rendered in render_in_chunks(pixels, numbers, weak_views, size=size, flip=flip):
        views[part] = rendered.permute(0, 2, 3, 1)
    return views
