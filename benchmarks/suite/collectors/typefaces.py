"""Characters set in the typefaces of Debian's font packages. Group: the family, in lower case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from material.fitting import on_white
from material.typefaces import draw_character, list_faces, open_face
from suite.collectors.picture import Picture, in_colour

EVERY = 2  # of up to six faces of a family, spread over its styles
INK_SHARE = 5 / 6  # of the square's side
LEAST_DIFFERENT = 0.7  # of a face's characters: one that draws boxes or dingbats has no real alphabet


def characters(folders: Sequence[Path], classes: Mapping[str, str], *, size: int) -> Iterator[Picture]:
    """Every character in each face that has all of them, black on white.

    Args:
        folders: where typefaces lie.
        classes: class name -> its characters, usually one.
        size: pixels of a side.
    """
    needed = set(map(ord, "".join(classes.values())))
    for family, faces in list_faces(*folders).items():
        for path, code_points in faces[::EVERY]:
            font = open_face(path) if code_points >= needed else None
            if font is None:
                continue
            drawn = [
                (label, character, draw_character(font, character, size=size, box=round(size * INK_SHARE)))
                for label, text in classes.items()
                for character in text
            ]
            inked = [(label, character, ink) for label, character, ink in drawn if ink is not None]
            if len({ink.tobytes() for _, _, ink in inked}) < LEAST_DIFFERENT * len(drawn):
                continue
            for label, character, ink in inked:
                origin = f"{family}/{path.name}#{ord(character):x}"
                yield Picture(in_colour(on_white(ink)), label, family, origin)
