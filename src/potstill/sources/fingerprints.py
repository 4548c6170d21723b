"""What the numbers of a source depend on, as plain data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from potstill.errors import SourceError
from potstill.types import Preprocessing, SourceSpec

Fingerprint = Callable[[Path], str]
"""Names the content of a file or folder, as `content_sha256` does; raises FileNotFoundError if it is not there."""


def content_files(path: Path) -> list[Path]:
    """The files that belong to what is at `path`, in order: all visible ones of a folder; an ONNX file with those that
    hold its weights, which have its name and more; else the file alone. Raises FileNotFoundError if nothing is there.
    """
    if path.is_dir():
        files = [one for one in path.rglob("*") if one.is_file() and not one.name.startswith(".")]
    elif path.suffix == ".onnx":
        files = [path, *(one for one in path.parent.glob(f"{path.name}?*") if one.is_file())]
    else:
        files = [path]
    if not files or not files[0].exists():
        raise FileNotFoundError(path)
    return sorted(files)


def content_sha256(path: Path) -> str:
    """sha256 as hex digits: of a single file's bytes, or else of the names and sha256 of all `content_files`."""
    files = content_files(path)
    if files == [path]:
        return file_sha256(path)
    lines = [f"{one.relative_to(path.parent).as_posix()} {file_sha256(one)}\n" for one in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file as hex digits; remembered within the process while size and modification time stay."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checked_fingerprint(spec: SourceSpec, key: str, fingerprint: Fingerprint) -> str:
    """What `fingerprint` says of the file or folder that the zoo entry names under `key`.

    Raises SourceError if the file is absent or, where it is the one that the entry's `sha256` is about, another one.
    """
    path: Path | None = getattr(spec, key)
    if path is None:
        raise SourceError(f"Source '{spec.name}': a source of kind {spec.model} needs `{key}` in the zoo file.")
    try:
        found = fingerprint(path)
    except OSError as error:
        raise SourceError(
            f"Source '{spec.name}': `{key}`: file not found: {path}. Check the zoo file"
            + (f", or fetch it from {spec.url}." if spec.url else ".")
        ) from error
    if spec.sha256 and key == main_file(spec) and path.is_file() and file_sha256(path) != spec.sha256:
        raise SourceError(
            f"Source '{spec.name}': `{key}`: {path} has sha256 {file_sha256(path)}, expected {spec.sha256}; fetch the "
            "file again."
        )
    return found


def main_file(spec: SourceSpec) -> str:
    """The key of the file that `sha256` and `url` of a zoo entry are about."""
    return "file" if spec.model == "onnx" else "weights"


def preprocessing_record(preprocessing: Preprocessing) -> dict[str, Any]:
    """The preprocessing as part of a source's identity."""
    return {
        "image_size": preprocessing.image_size,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "interpolation": preprocessing.interpolation,
        "crop": preprocessing.crop,
    }
