"""Collect pictures: desktop icons by context, emoji by group, clip art without classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from parts import SIZE, Part, make_part  # puts benchmarks/ on the path
from PIL import Image, ImageDraw, ImageFont

from material.fitting import fit_picture

Row = tuple[npt.NDArray[np.uint8], int, str]
CONTEXTS = ("actions", "apps", "categories", "devices", "emblems", "emotes", "mimetypes", "places", "status")
THEMES = ("Tango", "mate", "menta", "nuoveXT2", "oxygen")
ICON_SIZES = ("48x48", "64x64", "32x32")
EMOJI_SIZE = 109  # pixels, the only size of Noto Color Emoji's bitmaps
MOST_PIXELS = 16_000_000  # a few posters are larger; decoding them takes minutes
TEXT_WORDS = (
    *("letter", "number", "digit", "alphabet", "font", "text", "sign", "word"),
    *("abc", "roman", "calendar", "clock", "keyboard", "button", "flag"),
)


def read_icons(icons: Path) -> Part:
    """Desktop icons, class = freedesktop context, group = the name without suffix."""
    rows: list[Row] = []
    taken: set[tuple[str, str, str]] = set()
    for size in ICON_SIZES:
        for path in sorted(icons.glob(f"*/**/{size}/*/*.png")) + sorted(icons.glob(f"*/*/{size}/*.png")):
            theme = path.relative_to(icons).parts[0]
            context = next((name for name in CONTEXTS if name in path.parts), None)
            if theme not in THEMES or context is None or path.is_symlink() or (theme, context, path.stem) in taken:
                continue
            taken.add((theme, context, path.stem))
            with Image.open(path) as picture:
                rows.append((fit_picture(picture, size=SIZE), CONTEXTS.index(context), path.stem))
    return make_part(rows, CONTEXTS)


def list_emoji(emoji_test: Path) -> dict[str, str]:
    """Single-code-point emoji -> their group in Unicode's emoji-test.txt."""
    groups: dict[str, str] = {}
    group = ""
    for line in emoji_test.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.removeprefix("# group:").strip().lower()
        elif line and not line.startswith("#"):
            points = [int(point, 16) for point in line.split(";")[0].split() if point != "FE0F"]
            if len(points) == 1 and group not in ("component", "flags"):
                groups[chr(points[0])] = group
    return groups


def read_emoji(fonts: Path, emoji_test: Path) -> Part:
    """Emoji in colour (Noto) and in ink (Symbola), class = Unicode's group, group = the code point in hex."""
    emoji = list_emoji(emoji_test)
    classes = tuple(dict.fromkeys(emoji.values()))
    colour = ImageFont.truetype(str(next(fonts.rglob("NotoColorEmoji.ttf"))), EMOJI_SIZE)
    ink = ImageFont.truetype(str(next(fonts.rglob("Symbola*.ttf"))), EMOJI_SIZE)
    rows: list[Row] = []
    for character, group in emoji.items():
        for font in (colour, ink):
            canvas = Image.new("RGBA", (2 * EMOJI_SIZE, 2 * EMOJI_SIZE))
            ImageDraw.Draw(canvas).text((20, 20), character, font=font, fill="black", embedded_color=font is colour)
            if canvas.getchannel("A").getbbox():
                rows.append((fit_picture(canvas, size=SIZE), classes.index(group), f"{ord(character):x}"))
    return make_part(rows, classes)


def read_clip_art(clip_art: Path) -> Part:
    """Clip art whose names do not speak of text; every picture is its own class."""
    rows: list[Row] = []
    Image.MAX_IMAGE_PIXELS = None  # sizes are checked here, before anything is decoded
    for path in sorted(clip_art.rglob("*.png")):
        name = path.relative_to(clip_art).as_posix().lower()
        if path.is_symlink() or "shapes/stars" in name or any(word in name for word in TEXT_WORDS):
            continue
        with Image.open(path) as picture:
            if picture.width * picture.height <= MOST_PIXELS:
                rows.append((fit_picture(picture, size=SIZE), 0, path.stem))
    part = make_part(rows, ("clip art",))
    return Part(part.images, np.arange(len(part.labels)), part.groups, ("instance",))
