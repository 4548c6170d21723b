"""Typefaces of unpacked font packages, and characters drawn in them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from material.fitting import fit_ink

FACES_A_FAMILY = 6
DRAWN_AT = 72  # pixels

Face = tuple[Path, frozenset[int]]  # file, code points


@cache
def list_faces(*folders: Path) -> dict[str, list[Face]]:
    """family in lower case -> its faces, at most six spread over the sorted styles of a family."""
    families: dict[str, dict[str, Face]] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if path.suffix.lower() not in (".ttf", ".otf") or path.is_symlink():
            continue
        try:
            with TTFont(path, lazy=True) as font:
                family = font["name"].getBestFamilyName()
                style = font["name"].getBestSubFamilyName() or path.stem
                code_points = frozenset(font.getBestCmap() or {})
        except Exception:  # a font that fontTools cannot read is left out, whatever the reason
            continue
        if family:
            families.setdefault(family.lower(), {}).setdefault(style.lower(), (path, code_points))
    chosen = {}
    for family, faces in sorted(families.items()):
        listed = [faces[style] for style in sorted(faces)]
        picks = np.unique(np.linspace(0, len(listed) - 1, FACES_A_FAMILY).round().astype(int))
        chosen[family] = [listed[pick] for pick in picks]
    return chosen


def open_face(path: Path) -> ImageFont.FreeTypeFont | None:
    """The face, or None where it is damaged or has bitmaps alone."""
    try:
        return ImageFont.truetype(str(path), DRAWN_AT)
    except OSError:
        return None


def draw_character(
    font: ImageFont.FreeTypeFont, character: str, *, size: int, box: int
) -> npt.NDArray[np.uint8] | None:
    """The character's ink, its longer side `box` pixels in a square of `size`; None when the face draws nothing."""
    canvas = Image.new("L", (3 * DRAWN_AT, 3 * DRAWN_AT))
    try:
        ImageDraw.Draw(canvas).text((DRAWN_AT, DRAWN_AT), character, fill=255, font=font)
    except OSError:  # a glyph whose program FreeType refuses
        return None
    return fit_ink(np.asarray(canvas), size=size, box=box)
