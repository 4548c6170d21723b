"""Textures of three games: ground, building materials, parts of buildings. Mostly photographs, some painted.

The class is the one material (or part of a building) that a texture's name speaks of; names that speak of none or of
several are left out. Group: the name without words of colour and state and without letters behind a number, so that
variants stay together.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from suite.collectors.picture import Picture

LEAST_SIDE = 128  # pixels; smaller textures are not enlarged
FLAT = 4.0  # standard deviation of grey values below which a piece shows nothing
NOT_COLOUR = re.compile(r"_(norm|normal|gloss|glow|nm|sm|bump|luma|gm|rm|spec|blend|reflect|shirt|pants|alpha)\b")

# Words that tell variants of one texture apart.
VARIANTS = frozenset(
    (
        *("wet", "dry", "dirty", "clean", "worn", "wrn", "damaged", "broken", "old", "new", "small", "big"),
        *("red", "green", "blue", "grey", "gray", "brown", "white", "black", "yellow", "orange", "pink", "purple"),
        *("dark", "light", "bright", "spring", "summer", "autumn", "winter", "aut", "temp", "mirror", "rotate"),
    )
)

GROUND = {
    "snow": ("snow", "ice", "glacial"),
    "cliff": ("cliff",),
    "forest-floor": ("forestfloor",),
    "paving": ("paving", "road", "tile", "city"),
    "sand": ("sand", "beach", "dunes", "shore"),
    "farmland": ("farmland", "furrows"),
    "mud": ("mud", "clay", "lakebed", "riparian"),
    "rocks": ("rocks", "rock", "stones", "gravel", "pebbles", "rocky"),
    "plants": ("plants", "flora", "shrubs", "scrub"),
    "dirt": ("dirt", "dirty"),
    "grass": ("grass",),
    "sea-bed": ("coral", "ocean", "sea", "reef"),
}
MATERIALS = {
    "wall": ("wall", "techwall", "wll"),
    "floor": ("floor", "flr", "tfloor"),
    "roof": ("roof", "roofs"),
    "door": ("door", "doors", "gate"),
    "window": ("window", "windows", "wind"),
    "vegetation": ("grass", "tree", "bush", "hedge", "leaves", "plant", "flower", "flowers", "palm", "fern"),
    "earth": ("dirt", "ground", "sand", "mud", "snow", "dung"),
    "rock": ("rock", "rocks", "stone", "stones", "cliff"),
    "wood": ("wood", "planks", "plank"),
    "metal": ("metal", "metall", "mtl", "steel", "rust", "metalbridge"),
    "concrete": ("concrete", "crete", "cement"),
    "brick": ("brick", "bricks"),
    "tile": ("tile", "tiles"),
    "carpet": ("carpet", "rug", "fabric", "cloth"),
    "street": ("street", "streets", "asphalt", "road", "pavement", "sidewalk"),
    "box": ("box", "crate", "barrel", "container", "chest"),
    "sign": ("sign", "advert", "poster", "billboard", "advertaa"),
    "light": ("light", "lights", "lamp"),
    "picture": ("art", "painting", "pic"),
    "fence": ("fence", "grate", "grating", "rail"),
}
PARTS = {
    "floor": ("floor", "floors", "flr", "cfloor"),
    "wall": ("wall", "walls", "wll"),
    "trim": ("trim", "trims", "trm", "btrim", "strim", "border"),
    "light": ("light", "lights", "lite", "lght", "lig"),
    "door": ("door", "doors"),
    "support": ("support", "supports", "sprt"),
    "grate": ("grate", "grates", "grt"),
    "window": ("window", "windows", "swindow"),
    "ceiling": ("ceiling", "ceil"),
    "crate": ("crate", "crates", "box"),
    "sign": ("sign", "signs"),
    "panel": ("panel", "panels", "pnl", "pnls"),
    "block": ("block", "blocks"),
    "liquid": ("water", "lava", "slime", "liquid"),
    "sky": ("sky", "skies", "clouds", "env"),
}


def textures(
    archive: Path, folder: str, classes: Mapping[str, tuple[str, ...]], *, size: int, pieces: int, with_folder: bool
) -> Iterator[Picture]:
    """Pieces of the textures in a game's archive (a zip).

    Args:
        archive: the zip file.
        folder: only files below it.
        classes: class name -> words that stand for it.
        size: pixels of a side of the pieces.
        pieces: 1 for the middle square of a texture, 4 for its quarters.
        with_folder: whether the words of the file's own folder count, too.
    """
    words = {word: label for label, names in classes.items() for word in names}
    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            path = PurePosixPath(name)
            plain = path.name.lower().split(".")[0]
            if not name.startswith(folder) or name.endswith("/") or NOT_COLOUR.search(plain):
                continue
            spoken = plain if not with_folder else f"{path.parent.name.lower()} {plain}"
            labels = {words[word] for word in re.findall(r"[a-z]+", spoken) if word in words}
            texture = _opened(files.read(name)) if len(labels) == 1 else None
            if texture is None:
                continue
            for number, piece in enumerate(_pieces(texture, size, pieces)):
                if piece.mean(-1).std() >= FLAT:
                    yield Picture(piece, next(iter(labels)), texture_family(plain), f"{name}#{number}")


def texture_family(plain: str) -> str:
    """The name of a texture without what tells its variants apart.

    >>> texture_family("e8crete03b"), texture_family("sand_01_wet"), texture_family("wall003_brown")
    ('e8crete03', 'sand_01', 'wall003')
    """
    words = [re.sub(r"(?<=\d)[a-z]$", "", word) for word in re.split(r"[^a-z0-9]+", plain)]
    named = [word for word in words if len(word) > 1 and word not in VARIANTS]
    return "_".join(named) or plain


def _opened(content: bytes) -> Image.Image | None:
    """The texture on grey where it is transparent; None for what is no picture, is small, or mostly transparent."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture = picture.convert("RGBA")
    except (UnidentifiedImageError, OSError, NotImplementedError):  # the last: a kind of DDS that Pillow does not read
        return None
    if min(picture.size) < LEAST_SIDE:
        return None
    if np.asarray(picture.getchannel("A")).mean() < 250:  # cut-out leaves, decals
        return None
    return picture.convert("RGB")


def _pieces(texture: Image.Image, size: int, pieces: int) -> Iterator[np.ndarray]:
    side = min(texture.size)
    left, top = (texture.width - side) // 2, (texture.height - side) // 2
    square = texture.crop((left, top, left + side, top + side))
    halves = [(0, 0)] if pieces == 1 else [(0, 0), (side // 2, 0), (0, side // 2), (side // 2, side // 2)]
    length = side if pieces == 1 else side // 2
    for x, y in halves:
        piece = square.crop((x, y, x + length, y + length))
        yield np.asarray(piece.resize((size, size), Image.Resampling.LANCZOS))
