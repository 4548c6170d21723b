"""Fit a drawing of any size into a square of a material's size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

INK = 40  # of 255: fainter pixels at the border are not counted as ink


def fit_ink(ink: npt.NDArray[np.uint8], *, size: int, box: int) -> npt.NDArray[np.uint8] | None:
    """Crop to the ink, scale its longer side to `box` pixels, centre it: uint8 `(size, size)`; None without ink."""
    rows, columns = np.nonzero(ink.max(axis=1) > INK)[0], np.nonzero(ink.max(axis=0) > INK)[0]
    if len(rows) == 0 or len(columns) == 0:
        return None
    crop = Image.fromarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = box / max(crop.size)
    small = crop.resize((max(1, round(crop.width * scale)), max(1, round(crop.height * scale))), Image.Resampling.BOX)
    canvas = Image.new("L", (size, size))
    canvas.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return np.asarray(canvas)


def fit_picture(picture: Image.Image, *, size: int) -> npt.NDArray[np.uint8]:
    """Scale the longer side of a picture to `size`, centre it on a transparent square: uint8 `(size, size, 4)`."""
    picture = picture.convert("RGBA")
    box = picture.getchannel("A").getbbox()
    picture = picture.crop(box) if box else picture
    picture.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return np.asarray(canvas)


def on_white(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Ink `(H, W)` becomes black on white, RGBA `(H, W, 4)` lies on white `(H, W, 3)`."""
    if picture.ndim == 2:
        return np.asarray(255 - picture, dtype=np.uint8)
    alpha = picture[..., 3:].astype(np.float32) / 255
    return np.rint(picture[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
