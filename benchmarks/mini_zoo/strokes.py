"""Draw invented shapes for the generic student: each class is a recipe of one to three strokes or a filled outline.

No typeface, handwriting or symbol set is read. A stroke walks five steps with a smoothly changing heading; a picture of
the class moves the key points a little, bends, turns and stretches the whole, and takes another pen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from parts import SIZE, Part
from PIL import Image, ImageDraw

CLASSES = 1500
PICTURES_A_CLASS = 40
KEY_POINTS = 5
SAMPLES = 80
Points = npt.NDArray[np.float32]


def invent_recipe(rng: np.random.Generator) -> tuple[Points, Points, bool]:
    """Key points `(strokes, 5, 2)` in about [-1, 1], `(strokes,)` 1 for a curve and 0 for straight pieces, filled?"""
    filled = bool(rng.random() < 0.12)
    strokes = 1 if filled else int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))
    key_points = np.empty((strokes, KEY_POINTS, 2), dtype=np.float32)
    for stroke in range(strokes):
        heading, turn = rng.uniform(0, 2 * np.pi), rng.normal(0, 1.1)
        length = rng.uniform(0.25, 0.7)
        touches = stroke > 0 and rng.random() < 0.7
        start = key_points[stroke - 1, rng.integers(KEY_POINTS)] if touches else rng.uniform(-0.7, 0.7, 2)
        key_points[stroke, 0] = start
        for step in range(1, KEY_POINTS):
            direction = np.array([np.cos(heading), np.sin(heading)])
            key_points[stroke, step] = key_points[stroke, step - 1] + length * direction
            turn += rng.normal(0, 0.6)
            heading += turn
        if rng.random() < 0.35 and not touches:  # a closed loop
            key_points[stroke, -1] = key_points[stroke, 0]
    key_points -= (key_points.max((0, 1)) + key_points.min((0, 1))) / 2
    key_points /= max(float(np.abs(key_points).max()), 0.3)
    return key_points, (rng.random(strokes) < 0.75).astype(np.float32), filled


def sample_strokes(key_points: Points, curved: Points) -> Points:
    """Points along each stroke `(strokes, 80, 2)`: Catmull-Rom curves or straight pieces through the key points."""
    position = np.linspace(0, KEY_POINTS - 1, SAMPLES, dtype=np.float32)
    index = np.minimum(position.astype(int), KEY_POINTS - 2)
    t = (position - index)[None, :, None]
    padded = np.pad(key_points, ((0, 0), (1, 1), (0, 0)), mode="edge")
    before, start, end, after = (padded[:, index + offset] for offset in range(4))
    straight = start + t * (end - start)
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    return np.where(curved[:, None, None] > 0, curve, straight).astype(np.float32)


def vary(key_points: Points, rng: np.random.Generator) -> Points:
    """Another drawing of the same recipe: moved key points, then a random linear map that mostly keeps upright."""
    moved = key_points + rng.normal(0, 0.1, key_points.shape)
    angle, shear = rng.normal(0, 0.15), rng.normal(0, 0.25)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.array([[np.exp(rng.normal(0, 0.2)), shear], [0, np.exp(rng.normal(0, 0.2))]])
    moved = moved @ (turn @ stretch)
    moved -= (moved.max((0, 1)) + moved.min((0, 1))) / 2
    return (moved * (0.85 / np.abs(moved).max())).astype(np.float32)


def draw_pens(points: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """Ink `(B, 32, 32)` in [0, 1] of the points `(B, P, 2)` with round pens of the given radii `(B,)` in pixels."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    pixels = torch.cartesian_prod(axis, axis).flip(1)  # (x, y) of each pixel, row by row
    distance = torch.cdist(pixels.expand(len(points), -1, -1), points).amin(2) * (SIZE / 2)
    return torch.sigmoid((radii[:, None] - distance) * 2.5).view(-1, SIZE, SIZE)


def fill_outline(points: Points) -> npt.NDArray[np.uint8]:
    """Ink of one filled outline, drawn at four times the size and reduced."""
    canvas = Image.new("L", (4 * SIZE, 4 * SIZE))
    corners = [tuple(corner) for corner in ((points + 1) * (2 * SIZE)).tolist()]
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    return np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX))


def draw_shapes(seed: int = 0) -> Part:
    """All pictures of all recipes. Half a minute."""
    rng = np.random.default_rng(seed)
    images = np.empty((CLASSES, PICTURES_A_CLASS, SIZE, SIZE), dtype=np.uint8)
    for label in range(CLASSES):
        key_points, curved, filled = invent_recipe(rng)
        drawings = [sample_strokes(vary(key_points, rng), curved) for _ in range(PICTURES_A_CLASS)]
        if filled:
            images[label] = np.stack([fill_outline(drawing[0]) for drawing in drawings])
        else:
            points = torch.from_numpy(np.stack(drawings).reshape(PICTURES_A_CLASS, -1, 2))
            radii = torch.from_numpy(rng.uniform(0.7, 2.6, PICTURES_A_CLASS).astype(np.float32))
            images[label] = (draw_pens(points, radii) * 255).round().to(torch.uint8).numpy()
    labels = np.repeat(np.arange(CLASSES), PICTURES_A_CLASS)
    groups = np.array([f"shape-{label}" for label in labels])
    return Part(images.reshape(-1, SIZE, SIZE), labels, groups, tuple(f"shape-{label}" for label in range(CLASSES)))
