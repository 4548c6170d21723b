"""Characters set in the typefaces of Debian's font packages. Group: the family, in lower case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

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


def clones(pictures: list[Picture], *, correlation: float) -> dict[str, str]:
    """family -> the first family (by name) whose characters look the same: renamed and metric-compatible typefaces.

    Two families are the same when the median over characters of the best correlation between their pixels, each reduced
    to a quarter, is at least `correlation`.
    """
    by_family: dict[str, dict[str, list[np.ndarray]]] = {}
    for picture in pictures:
        grey = 255 - picture.pixels[..., 0].astype(np.float32)
        small = grey.reshape(grey.shape[0] // 4, 4, grey.shape[1] // 4, 4).mean((1, 3)).ravel()
        small = (small - small.mean()) / max(float(small.std()), 1e-6) / np.sqrt(small.size)
        by_family.setdefault(picture.group, {}).setdefault(picture.origin.split("#")[1], []).append(small)
    families = sorted(by_family)
    stacks = {family: {c: np.stack(rows) for c, rows in by_family[family].items()} for family in families}
    same: dict[str, str] = {}
    for number, family in enumerate(families):
        for other in families[:number]:
            if other in same:
                continue
            shared = stacks[family].keys() & stacks[other].keys()
            best = [float((stacks[family][c] @ stacks[other][c].T).max()) for c in shared]
            if best and np.median(best) >= correlation:
                same[family] = other
                break
    return same
