"""Things: rendered furniture (Sweet Home 3D's libraries) and stamps, photographed and drawn (Tux Paint)."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from material.fitting import fit_picture, on_white
from suite.collectors.picture import Picture

CATALOGUE = "PluginFurnitureCatalog.properties"
NO_ROOM = ("Miscellaneous", "Staircases")
NO_THEME = ("alphabets", "money", "math", "roadsigns", "flags")


def furniture(folder: Path, *, size: int) -> Iterator[Picture]:
    """Pieces of furniture by the room they are listed under. Group: the piece's name."""
    for library in sorted(folder.glob("*.sh3f")):
        with zipfile.ZipFile(library) as files:
            entries = re.findall(
                r"^(name|icon|category)#(\d+)=(.*)$", files.read(CATALOGUE).decode("latin1"), re.MULTILINE
            )
            pieces: dict[int, dict[str, str]] = {}
            for key, number, value in entries:
                pieces.setdefault(int(number), {})[key] = value.strip()
            for _, piece in sorted(pieces.items()):
                if piece["category"] in NO_ROOM:
                    continue
                with Image.open(io.BytesIO(files.read(piece["icon"].lstrip("/")))) as rendered:
                    pixels = on_white(fit_picture(rendered, size=size))
                label = piece["category"].lower().replace(" ", "-")
                yield Picture(pixels, label, piece["name"].lower(), f"{library.stem}{piece['icon']}")


def stamps(folder: Path, *, size: int) -> Iterator[Picture]:
    """Stamps by theme, the upper folder. Group: the file's stem without what tells its variants apart."""
    for path in sorted(folder.rglob("*.png")):
        parts = path.relative_to(folder).parts
        if len(parts) < 2 or any(part in NO_THEME for part in parts):
            continue
        with Image.open(path) as stamp:
            pixels = on_white(fit_picture(stamp, size=size))
        group = re.sub(r"[-_ ]?\d+$", "", path.stem.lower().removesuffix("_mirror"))
        yield Picture(pixels, parts[0], group, path.relative_to(folder).as_posix())
