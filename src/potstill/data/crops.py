"""The `crop` view: a random resized crop, mirrored or not, computed on bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from potstill.data.geometry import Floats
from potstill.data.images import Pixels

CROP_NUMBERS = 5
AREA = (0.6, 1.0)
ASPECT = 4.0 / 3.0

# Natively resized uint8 with `out` took 3 to 5 ms for 64 crops of 146 to 128 pixels on one core; Pillow's resize 13 ms
# and float32 `grid_sample` in chunks 18 ms. Antialiasing is part of it: without, the same call took 3 ms.
_RESIZE = torch.ops.aten._upsample_bilinear2d_aa.out


def crop_shapes(area: Floats, aspect: Floats) -> tuple[Floats, Floats]:
    """Width and height, as shares of the side, of crops whose area and aspect follow from numbers in [0, 1)."""
    areas = AREA[0] + area * (AREA[1] - AREA[0])
    ratios = np.exp((2.0 * aspect - 1.0) * np.log(ASPECT))
    return np.minimum(np.sqrt(areas * ratios), 1.0), np.minimum(np.sqrt(areas / ratios), 1.0)


def crop_boxes(numbers: Floats, side: int) -> npt.NDArray[np.int64]:
    """Left, top, width and height in whole pixels, int64 `(B, 4)`; `numbers` in [0, 1), `(B, CROP_NUMBERS)`."""
    shares = np.stack(crop_shapes(numbers[:, 0], numbers[:, 1]), axis=1)
    lengths = np.maximum(1, np.rint(shares * side)).astype(np.int64)
    starts = np.floor(numbers[:, 2:4] * (side - lengths + 1)).astype(np.int64)
    return np.concatenate([starts, lengths], axis=1)


def crop_views(squares: Pixels, numbers: Floats, views: torch.Tensor, *, flip: bool) -> None:
    """Fill `views`, uint8 `(B, 3, size, size)` in channels_last order, from squares uint8 `(B, S, S, 3)`.

    The resampling is that of torchvision's antialiased `RandomResizedCrop` on a uint8 tensor.
    """
    size = list(views.shape[2:])
    images = torch.from_numpy(squares).permute(0, 3, 1, 2)
    mirrored = numbers[:, 4] < 0.5 if flip else np.zeros(len(numbers), dtype=bool)
    for row, (left, top, width, height) in enumerate(crop_boxes(numbers, squares.shape[1]).tolist()):
        image, view = images[row : row + 1, :, top : top + height, left : left + width], views[row : row + 1]
        _RESIZE(image, size, False, None, None, out=view)
        if mirrored[row]:
            view.copy_(view.flip(3))
