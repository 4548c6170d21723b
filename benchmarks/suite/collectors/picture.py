"""What every collector yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Picture:
    """One image of a task.

    Attributes:
        pixels: uint8 `(S, S, 3)`.
        label: the class's name.
        group: what must not straddle sides; see `material.sides`.
        origin: where it comes from within its material, unique in a task: a file, a code point and a face.
    """

    pixels: npt.NDArray[np.uint8]
    label: str
    group: str
    origin: str


def in_colour(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Grey `(S, S)` as `(S, S, 3)`."""
    return np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels
