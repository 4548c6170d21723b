"""Emoji, desktop icons and clip art, each on white."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from material.fitting import fit_picture, on_white
from suite.collectors.picture import Picture

MOST_PIXELS = 16_000_000  # a few posters are larger; decoding them takes minutes
ICON_CONTEXTS = {  # folder of a theme -> freedesktop context
    "actions": "actions",
    "apps": "apps",
    "categories": "categories",
    "devices": "devices",
    "emblems": "emblems",
    "emotes": "emotes",
    "mimetypes": "mimetypes",
    "places": "places",
    "status": "status",
}
ICON_THEMES = (
    "Tango",
    "mate",
    "menta",
    "nuoveXT2",
    "oxygen",
    "gnome",
    "elementary-xfce",
    "deepin",
    "Faenza",
    "Obsidian",
)
ICON_SIZES = ("64x64", "48x48", "64", "48", "32x32", "32")  # the first that a theme has of an icon is taken


def emoji(package: Path, *, size: int) -> Iterator[Picture]:
    """Emoji of one artist by Unicode subcategory. Group: the first code point, in lower-case hex.

    A man or a woman who redraws a person of another code point ("man farmer") is left out.
    """
    artist = package.parent.name.split("@")[0].removeprefix("emoji-datasource-")
    entries = json.loads((package / "emoji.json").read_text(encoding="utf-8"))
    for entry in sorted(entries, key=lambda entry: entry["sort_order"]):
        points = entry["unified"].lower().split("-")
        redraws = entry["category"] == "People & Body" and points[0] in ("1f468", "1f469") and len(points) > 1
        if not entry[f"has_img_{artist}"] or entry["category"] == "Component" or redraws:
            continue
        with Image.open(package / "img" / artist / "64" / entry["image"]) as drawing:
            pixels = on_white(fit_picture(drawing, size=size))
        yield Picture(pixels, entry["subcategory"], points[0], f"{artist}/{entry['unified'].lower()}")


def icons(folder: Path, *, size: int) -> Iterator[Picture]:
    """Desktop icons by freedesktop context. Group: the file's stem, the same in every theme."""
    taken: set[tuple[str, str, str]] = set()
    for theme in ICON_THEMES:
        for wanted in ICON_SIZES:
            for path in sorted((folder / theme).rglob("*.png")):
                parts = path.relative_to(folder).parts
                context = next((ICON_CONTEXTS[part] for part in parts if part in ICON_CONTEXTS), None)
                key = (theme, context or "", path.stem)
                if context is None or wanted not in parts or path.is_symlink() or key in taken:
                    continue
                taken.add(key)
                with Image.open(path) as drawing:
                    pixels = on_white(fit_picture(drawing, size=size))
                yield Picture(pixels, context, path.stem.lower(), path.relative_to(folder).as_posix())


def clip_art(folder: Path, *, size: int) -> Iterator[Picture]:
    """Clip art by the two upper folders of openclipart in which it lies. Group: the file's stem."""
    Image.MAX_IMAGE_PIXELS = None  # sizes are checked here, before anything is decoded
    for path in sorted(folder.rglob("*.png")):
        parts = path.relative_to(folder).parts
        if path.is_symlink() or len(parts) < 3:
            continue
        with Image.open(path) as drawing:
            if drawing.width * drawing.height > MOST_PIXELS:
                continue
            pixels = on_white(fit_picture(drawing, size=size))
        yield Picture(pixels, "-".join(parts[:2]), path.stem.lower(), path.relative_to(folder).as_posix())
