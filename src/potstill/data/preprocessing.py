"""The evaluation transform of a model: shorter side resized, centre crop, normalised."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from potstill.data.images import Pixels, read_image
from potstill.data.threads import map_in_threads
from potstill.errors import UsageError, unknown_name
from potstill.types import Preprocessing

_FILTERS: Mapping[str, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def resized_size(image_size: int, crop: float) -> int:
    """The side to which the shorter side is resized before the centre crop: floor(image_size / crop), as timm has it.

    Raises UsageError unless image_size >= 1 and 0 < crop <= 1.

    >>> resized_size(224, 0.875), resized_size(32, 1.0)
    (256, 32)
    """
    if image_size < 1 or not 0 < crop <= 1:
        raise UsageError(f"image_size must be at least 1 and crop in (0, 1], got {image_size} and {crop}.")
    return math.floor(image_size / crop)


def fit_square(image: Pixels, size: int, *, interpolation: str = "bicubic", crop: float = 1.0) -> Pixels:
    """Resize the shorter side to `resized_size(size, crop)` and crop the centre.

    image: uint8 `(H, W, 3)`. interpolation: "bilinear", "bicubic", "lanczos" or "nearest"; all but the last are
    antialiased (Pillow's). Returns uint8 `(size, size, 3)`. Small images are enlarged.

    Pixels are those of torchvision's Resize and CenterCrop on a Pillow image, within rounding. Only the part that the
    crop keeps is computed, so that an extreme panorama costs no more than a square.

    Raises UsageError for a name or number out of range.
    """
    if interpolation not in _FILTERS:
        raise unknown_name("interpolation", interpolation, _FILTERS)
    shorter = resized_size(size, crop)
    height, width = image.shape[:2]
    left, right = _crop_span(width, min(height, width), shorter, size)
    top, bottom = _crop_span(height, min(height, width), shorter, size)
    picture = Image.fromarray(image)
    return np.array(picture.resize((size, size), _FILTERS[interpolation], box=(left, top, right, bottom)))


def _crop_span(length: int, shortest: int, shorter: int, size: int) -> tuple[float, float]:
    """Where, along a side of `length` source pixels, the centre crop of `size` resized pixels begins and ends."""
    resized = int(shorter * length / shortest)
    start = round((resized - size) / 2)
    scale = length / resized
    return start * scale, min((start + size) * scale, length)


def prepare_images(
    files: Mapping[str, Path],
    image_ids: Sequence[str],
    *,
    preprocessing: Preprocessing,
    batch_size: int = 64,
    workers: int = 0,
) -> Iterator[tuple[tuple[str, ...], Pixels]]:
    """Decode images for a model, in the given order, in batches.

    files: image id -> path, for example `Target.files`. workers: threads; the result does not depend on them.
    Yields (image ids, uint8 `(B, image_size, image_size, 3)`); feed `normalise(pixels, mean, std)` to the model.

    Raises DataError for an image that cannot be read (opening a target sets those aside) and UsageError for
    preprocessing out of range.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size}.")
    read = partial(
        read_square,
        size=preprocessing.image_size,
        interpolation=preprocessing.interpolation,
        crop=preprocessing.crop,
    )
    squares = map_in_threads(read, (files[image_id] for image_id in image_ids), workers=workers)
    for start in range(0, len(image_ids), batch_size):
        ids = tuple(image_ids[start : start + batch_size])
        yield ids, np.stack([next(squares) for _ in ids])


def read_square(path: Path, *, size: int, interpolation: str, crop: float, reduced: bool = False) -> Pixels:
    """`fit_square` of `read_image`; `reduced` lets a JPEG be shrunk while it is decoded (see `read_image`)."""
    image = read_image(path, smallest_side=resized_size(size, crop) if reduced else None)
    return fit_square(image, size, interpolation=interpolation, crop=crop)


def normalise(pixels: Pixels | torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(pixels / 255 - mean) / std by channel.

    pixels: uint8 `(B, H, W, 3)`, array or tensor. Returns float32 `(B, 3, H, W)` on the device of the pixels, in
    channels_last memory order (that of the input, and the faster one for convolutions).
    """
    if isinstance(pixels, torch.Tensor):
        tensor = pixels
    else:  # torch warns of arrays that are read-only, as memory maps are
        tensor = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    scale, shift = normalisation_factors(mean, std, tensor.device)
    count, height, width, _ = tensor.shape
    # Rows of width * 3 values let the inner loop run over many values instead of three.
    rows = tensor.reshape(count, height, width * 3) * (scale.flatten().repeat(width) / 255.0)
    rows.sub_(shift.flatten().repeat(width))
    return rows.view(count, height, width, 3).permute(0, 3, 1, 2)


def normalisation_factors(
    mean: Sequence[float], std: Sequence[float], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(x - mean) / std as x * scale - shift, float32 `(1, 3, 1, 1)` each, not to be changed.

    Raises UsageError unless std is positive.
    """
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise UsageError(f"mean and std need three values each, std positive; got {tuple(mean)} and {tuple(std)}.")
    return _factors(tuple(mean), tuple(std), device)


@lru_cache(maxsize=64)  # every step asks, and a copy to a GPU would wait for the step before
def _factors(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    scale = 1.0 / np.asarray(std, dtype=np.float64)
    shift = np.asarray(mean, dtype=np.float64) * scale

    def as_tensor(values: npt.NDArray[np.float64]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device).view(1, 3, 1, 1)

    return as_tensor(scale), as_tensor(shift)
