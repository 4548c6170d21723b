"""Colour operations on batches, each image with its own strength: float32 `(B, 3, H, W)` in [0, 1] in and out.

They are those of Pillow and torchvision (`torchvision.transforms.v2.functional`), which take one strength a call.
"""

from __future__ import annotations

import torch


def blend(images: torch.Tensor, base: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """base + factor * (images - base), clipped to [0, 1]; `factor` `(B,)`: 0 gives the base, 1 the image."""
    return torch.lerp(base.expand_as(images), images, factor.view(-1, 1, 1, 1)).clamp_(0.0, 1.0)


def to_grey(images: torch.Tensor) -> torch.Tensor:
    """Luma of ITU-R 601, `(B, 1, H, W)`."""
    red, green, blue = images.unbind(dim=1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def adjust_brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Multiply by `factor` `(B,)`."""
    return (images * factor.view(-1, 1, 1, 1)).clamp_(0.0, 1.0)


def adjust_colour(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the grey image: `factor` 0 is grey."""
    return blend(images, to_grey(images), factor)


def adjust_contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the mean grey of the image: `factor` 0 is flat."""
    return blend(images, to_grey(images).mean(dim=(2, 3), keepdim=True), factor)


def adjust_sharpness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with a smoothed image (3 x 3, weight 5 in the middle, border kept): `factor` 0 is smooth."""
    if min(images.shape[-2:]) < 3:
        return images
    smooth = images.clone()
    # Sums of shifted images take a fraction of the time of torch's pooling.
    columns = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    window = columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:]
    smooth[:, :, 1:-1, 1:-1] = (window + 4.0 * images[:, :, 1:-1, 1:-1]) / 13.0
    return blend(images, smooth, factor)


def autocontrast(images: torch.Tensor) -> torch.Tensor:
    """Stretch each channel to [0, 1]; a flat channel stays as it is."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    flat = high <= low
    scale = torch.where(flat, 1.0, 1.0 / (high - low).masked_fill(flat, 1.0))
    return ((images - low.masked_fill(flat, 0.0)) * scale).clamp_(0.0, 1.0)


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Spread the 256 levels of each channel to a flat histogram, as Pillow's ImageOps.equalize does."""
    count, channels, height, width = images.shape
    levels = images.mul(255.0).round_().to(torch.int64).view(count * channels, height * width)
    histogram = torch.zeros(count * channels, 256, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(1, levels, torch.ones_like(levels))
    below = histogram.cumsum(dim=1) - histogram
    last = histogram.gather(1, levels.amax(dim=1, keepdim=True))
    step = (height * width - last) // 255
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    return (table.gather(1, levels).to(images.dtype) / 255.0).view_as(images)


def posterize(images: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Keep the `bits` `(B,)` (1..8) highest of the 8 bits of every value."""
    width = torch.exp2(8.0 - bits.to(images.dtype)).view(-1, 1, 1, 1)
    levels = images.mul(255.0).round_()
    return levels.div_(width).floor_().mul_(width).div_(255.0)


def solarize(images: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Invert the values at or above `threshold` `(B,)`."""
    return torch.where(images >= threshold.view(-1, 1, 1, 1), 1.0 - images, images)
