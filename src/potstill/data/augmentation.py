"""The weak and strong augmentations, in batches, with given random numbers.

weak: random resized crop, small rotation and shift, mild brightness and contrast, optional flip.
strong: a weak view, then two operations of RandAugment's list with random magnitudes, then cutout: the strong
augmentation of FixMatch (Sohn et al., NeurIPS 2020, arXiv 2001.07685, appendix D, table 12; one draw each, no search).
Geometry of all steps is composed to a single interpolation; colour follows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from potstill.data import colour
from potstill.data.crops import crop_shapes
from potstill.data.geometry import Floats, affine, compose, resample

WEAK_NUMBERS = 10
OPERATIONS = (
    "identity",
    "autocontrast",
    "brightness",
    "color",
    "contrast",
    "equalize",
    "posterize",
    "rotate",
    "sharpness",
    "shear_x",
    "shear_y",
    "solarize",
    "translate_x",
    "translate_y",
)
SLOTS = 2
STRONG_NUMBERS = WEAK_NUMBERS + 2 * SLOTS + 3

_ANGLE = np.deg2rad(8.0)
_SHIFT = 0.06  # in half sides: 3 % of the side
_TONE = 0.15


def weak_maps(numbers: Floats, *, flip: bool) -> Floats:
    """Crop, rotation, shift and flip of the weak view as maps `(B, 2, 3)`; `numbers` in [0, 1), `(B, WEAK_NUMBERS)`."""
    width, height = crop_shapes(numbers[:, 0], numbers[:, 1])
    mirror = np.where(numbers[:, 7] < 0.5, -1.0, 1.0) if flip else 1.0
    none = np.zeros(len(numbers))
    return affine(
        x_scale=width * mirror,
        y_scale=height,
        angle=_between(numbers[:, 2], -_ANGLE, _ANGLE),
        x_shear=none,
        y_shear=none,
        x_shift=_between(numbers[:, 3], -1.0, 1.0) * (1.0 - width) + _between(numbers[:, 4], -_SHIFT, _SHIFT),
        y_shift=_between(numbers[:, 5], -1.0, 1.0) * (1.0 - height) + _between(numbers[:, 6], -_SHIFT, _SHIFT),
    )


def weak_views(images: torch.Tensor, numbers: Floats, *, size: int, flip: bool) -> torch.Tensor:
    """float32 `(B, 3, H, W)` in [0, 1] -> `(B, 3, size, size)` in [0, 1]; `numbers` `(B, WEAK_NUMBERS)`."""
    return _tone(resample(images, weak_maps(numbers, flip=flip), size), numbers)


def strong_views(images: torch.Tensor, numbers: Floats, *, size: int, flip: bool) -> torch.Tensor:
    """float32 `(B, 3, H, W)` in [0, 1] -> `(B, 3, size, size)` in [0, 1]; `numbers` `(B, STRONG_NUMBERS)`."""
    weak, slots, cut = np.split(numbers, (WEAK_NUMBERS, WEAK_NUMBERS + 2 * SLOTS), axis=1)
    maps = weak_maps(weak, flip=flip)
    drawn = [
        (np.floor(slots[:, 2 * slot] * len(OPERATIONS)).astype(np.int64), slots[:, 2 * slot + 1])
        for slot in range(SLOTS)
    ]
    for operation, magnitude in drawn:
        maps = compose(maps, _operation_maps(operation, magnitude))
    views = _tone(resample(images, maps, size), weak)
    for operation, magnitude in drawn:
        views = _recolour(views, operation, magnitude)
    return _cut_out(views, cut)


def _between(numbers: Floats, low: float, high: float) -> Floats:
    return low + numbers * (high - low)


def _tone(images: torch.Tensor, numbers: Floats) -> torch.Tensor:
    """Mild contrast (about the mean of the image) and brightness, as one linear map of the values."""
    contrast = _column(images, 1.0 + _between(numbers[:, 8], -_TONE, _TONE))
    brightness = _column(images, 1.0 + _between(numbers[:, 9], -_TONE, _TONE))
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return images.mul_(contrast * brightness).add_(mean * (1.0 - contrast) * brightness).clamp_(0.0, 1.0)


def _column(images: torch.Tensor, values: npt.NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(images.device).view(-1, 1, 1, 1)


def _operation_maps(operation: npt.NDArray[np.int64], magnitude: Floats) -> Floats:
    """The geometric operations as maps; the identity for the others. Ranges: 30 degrees, shear 0.3, shift 0.3 sides."""
    signed = _between(magnitude, -1.0, 1.0)

    def where(name: str, value: float) -> Floats:
        return np.where(operation == OPERATIONS.index(name), value * signed, 0.0)

    one = np.ones(len(magnitude))
    return affine(
        x_scale=one,
        y_scale=one,
        angle=where("rotate", np.deg2rad(30.0)),
        x_shear=where("shear_x", 0.3),
        y_shear=where("shear_y", 0.3),
        x_shift=where("translate_x", 0.6),
        y_shift=where("translate_y", 0.6),
    )


_Recolour = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Operation -> how it uses a magnitude in [0, 1). Blends take factors in [0.05, 0.95], posterize keeps 4 to 8 bits.
_RECOLOURS: dict[str, _Recolour] = {
    "autocontrast": lambda images, _: colour.autocontrast(images),
    "brightness": lambda images, u: colour.adjust_brightness(images, 0.05 + 0.9 * u),
    "color": lambda images, u: colour.adjust_colour(images, 0.05 + 0.9 * u),
    "contrast": lambda images, u: colour.adjust_contrast(images, 0.05 + 0.9 * u),
    "equalize": lambda images, _: colour.equalize(images),
    "posterize": lambda images, u: colour.posterize(images, 4.0 + torch.floor(5.0 * u)),
    "sharpness": lambda images, u: colour.adjust_sharpness(images, 0.05 + 0.9 * u),
    "solarize": lambda images, u: colour.solarize(images, u),
}


def _recolour(images: torch.Tensor, operation: npt.NDArray[np.int64], magnitude: Floats) -> torch.Tensor:
    """Apply to every image the colour operation that was drawn for it, in one call for each operation."""
    for name, function in _RECOLOURS.items():
        rows = np.flatnonzero(operation == OPERATIONS.index(name))
        if len(rows):
            index = torch.from_numpy(rows).to(images.device)
            strength = torch.from_numpy(magnitude[rows].astype(np.float32)).to(images.device)
            images[index] = function(images[index], strength)
    return images


def _cut_out(images: torch.Tensor, numbers: Floats) -> torch.Tensor:
    """Grey out a square of up to half the side around a random centre; what hangs over the edge is lost."""
    size = images.shape[-1]
    side = np.floor(0.5 * size * numbers[:, 0] + 0.5)
    start = np.floor(numbers[:, 1:3] * size - side[:, None] / 2 + 0.5)
    position = np.arange(size)[None, :]
    in_x, in_y = ((position >= start[:, axis, None]) & (position < (start[:, axis] + side)[:, None]) for axis in (0, 1))
    mask = torch.from_numpy(in_y[:, None, :, None] & in_x[:, None, None, :]).to(images.device)
    return images.masked_fill_(mask, 0.5)
