"""Random variation of whole batches of stored pictures, as tensor operations under one generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from parts import SIZE
from torch import Tensor
from torch.nn import functional as F

LOW_RESOLUTIONS = (8, 10, 12, 16)


@dataclass(frozen=True)
class Variation:
    """How far pictures are varied. Angles in radians, shifts in half widths, the rest as factors or probabilities."""

    angle: float = 0.2
    scale: tuple[float, float] = (0.75, 1.2)
    shear: float = 0.2
    shift: float = 0.12
    bend: float = 0.06
    pen: float = 0.5  # probability of a thicker or thinner pen (ink only)
    colour: float = 0.3  # probability of coloured instead of grey ink and ground
    low_resolution: float = 0.5
    noise: float = 0.05
    flip: float = 0.0


def vary_pictures(pictures: Tensor, variation: Variation, generator: torch.Generator) -> Tensor:
    """Stored pictures, uint8 `(B, 32, 32)` or `(B, 32, 32, 4)` -> varied images, float32 `(B, 3, 32, 32)` in [0, 1]."""
    layers = pictures.unsqueeze(1) if pictures.ndim == 3 else pictures.permute(0, 3, 1, 2)
    layers = move(layers.float() / 255, variation, generator)
    if pictures.ndim == 3:
        layers = change_pen(layers, variation.pen, generator)
    images = paint(layers, variation.colour, generator)
    images = reduce_resolution(images, variation.low_resolution, generator)
    noise = torch.randn(images.shape, generator=generator) * variation.noise
    return (images + noise * torch.rand(len(images), 1, 1, 1, generator=generator)).clamp(0, 1)


def plain_pictures(pictures: Tensor) -> Tensor:
    """The same without variation: light ink, or the picture itself, on black."""
    layers = pictures.unsqueeze(1) if pictures.ndim == 3 else pictures.permute(0, 3, 1, 2)
    layers = layers.float() / 255
    return layers.expand(-1, 3, -1, -1) if layers.shape[1] == 1 else layers[:, :3] * layers[:, 3:]


def move(layers: Tensor, variation: Variation, generator: torch.Generator) -> Tensor:
    """Turn, scale, shear, shift, flip and bend each picture."""
    count = len(layers)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    angle = uniform(-variation.angle, variation.angle)
    zoom = 1 / uniform(*variation.scale)
    flip = 1 - 2 * (uniform(0, 1) < variation.flip).float()
    stretch = torch.exp(uniform(-0.15, 0.15))
    cosine, sine, shear = angle.cos(), angle.sin(), uniform(-variation.shear, variation.shear)
    rows = torch.stack(
        [
            torch.stack([zoom * stretch * cosine * flip, zoom * (shear - sine), uniform(-1, 1) * variation.shift], 1),
            torch.stack([zoom * sine * flip, zoom / stretch * cosine, uniform(-1, 1) * variation.shift], 1),
        ],
        1,
    )
    grid = F.affine_grid(rows, [count, 1, SIZE, SIZE], align_corners=False)
    bend = torch.randn(count, 2, 4, 4, generator=generator) * variation.bend
    grid = grid + F.interpolate(bend, size=SIZE, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    return F.grid_sample(layers, grid, align_corners=False)


def change_pen(ink: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Thicken or thin the ink of some pictures by part of a pixel."""
    chance = torch.rand(len(ink), 1, 1, 1, generator=generator)
    amount = torch.rand(len(ink), 1, 1, 1, generator=generator)
    thick = ink + amount * (F.max_pool2d(ink, 3, 1, 1) - ink)
    thin = ink + 0.6 * amount * (-F.max_pool2d(-ink, 3, 1, 1) - ink)
    return torch.where(chance < 0.6 * probability, thick, torch.where(chance < probability, thin, ink))


def paint(layers: Tensor, colour: float, generator: torch.Generator) -> Tensor:
    """Put ink `(B, 1, ...)` or an RGBA picture `(B, 4, ...)` on a ground; either may be grey, coloured or inverted."""
    count = len(layers)
    coloured = torch.rand(count, 1, generator=generator) < colour
    ground = _random_colour(count, coloured, generator)
    alpha = layers[:, -1:]
    if layers.shape[1] == 4:
        grey = torch.rand(count, 1, 1, 1, generator=generator) < 0.3
        body = torch.where(grey, layers[:, :3].mean(1, keepdim=True), layers[:, :3])
        images = body * alpha + ground[:, :, None, None] * (1 - alpha)
        inverted = torch.rand(count, 1, 1, 1, generator=generator) < 0.2
        return torch.where(inverted, 1 - images, images)
    ink = _random_colour(count, coloured, generator)
    close = (ink - ground).abs().mean(1, keepdim=True) < 0.35
    ink = torch.where(close, (ground < 0.5).float(), ink)[:, :, None, None]
    ground = ground[:, :, None, None]
    return ground + alpha * (ink - ground)


def _random_colour(count: int, coloured: Tensor, generator: torch.Generator) -> Tensor:
    grey = torch.rand(count, 1, generator=generator).expand(-1, 3)
    # Plain black and white are the commonest ink and paper.
    grey = torch.where(torch.rand(count, 1, generator=generator) < 0.5, grey.round(), grey)
    return torch.where(coloured, torch.rand(count, 3, generator=generator), grey)


def reduce_resolution(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Scan some images with few pixels and enlarge them again; the whole batch gets one low resolution."""
    size = LOW_RESOLUTIONS[int(torch.randint(len(LOW_RESOLUTIONS), (1,), generator=generator))]
    low = F.interpolate(images, size=size, mode="area")
    blurred = F.interpolate(low, size=SIZE, mode="bilinear", align_corners=False)
    return torch.where(torch.rand(len(images), 1, 1, 1, generator=generator) < probability, blurred, images)
