"""Painted sprites of a strategy game (Battle for Wesnoth): units by people, tiles of terrain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from material.fitting import fit_picture, on_white
from suite.collectors.picture import Picture

DIRECTIONS = frozenset(
    (
        *("n", "ne", "e", "se", "s", "sw", "w", "nw", "bl", "br", "tl", "tr", "l", "r", "t", "b"),
        *("ul", "ur", "ll", "lr", "concave", "convex"),
    )
)
# Folders whose files are masks and helpers, not ground.
NOT_GROUND = ("fog", "light", "map-specific", "masks", "off-map", "symbols", "void", "misc", "embellishments")

LEAST_SHOWN = 0.15  # of a sprite's square: less is a splinter of a tile, an arrow in flight


def units(images: Path, *, size: int) -> Iterator[Picture]:
    """Units by the folder of their people. Group: people and unit, with all its poses."""
    folder = images / "units"
    for path in sorted(folder.rglob("*.png")):
        parts = path.relative_to(folder).parts
        if len(parts) < 2 or path.is_symlink():
            continue
        unit = parts[1] if len(parts) > 2 else re.split(r"[-+~]", path.stem)[0]
        picture = _picture(path, folder, parts[0], f"{parts[0]}/{unit}".lower(), size)
        if picture is not None:
            yield picture


def terrain(images: Path, *, size: int) -> Iterator[Picture]:
    """Tiles by their folder. Group: the family of tiles, that is, the name without numbers and directions."""
    folder = images / "terrain"
    for path in sorted(folder.rglob("*.png")):
        parts = path.relative_to(folder).parts
        if len(parts) < 2 or parts[0] in NOT_GROUND or path.is_symlink():
            continue
        picture = _picture(path, folder, parts[0], f"{parts[0]}/{tile_family(path.stem)}", size)
        if picture is not None:
            yield picture


def tile_family(stem: str) -> str:
    """The family of a tile by its name.

    >>> tile_family("dwarven-castle-concave-bl"), tile_family("grass4-abrupt-n-ne"), tile_family("ocean-A03")
    ('dwarven-castle', 'grass-abrupt', 'ocean')
    """
    words = [re.sub(r"\d+", "", word) for word in stem.lower().split("-")]
    named = [word for word in words if len(word) > 1 and word not in DIRECTIONS]
    return "-".join(named[:2]) or stem.lower()


def _picture(path: Path, folder: Path, label: str, group: str, size: int) -> Picture | None:
    with Image.open(path) as sprite:
        fitted = fit_picture(sprite, size=size)
    shown = (fitted[..., 3] > 127).mean() >= LEAST_SHOWN
    return Picture(on_white(fitted), label, group, path.relative_to(folder).as_posix()) if shown else None
