"""What the numbers of a source depend on, as plain data."""

from __future__ import annotations

import hashlib
import importlib
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
    hold its weights; else the file alone. Raises FileNotFoundError if one is not there.
    """
    if path.is_dir():
        files = [one for one in path.rglob("*") if one.is_file() and not _is_hidden(one.relative_to(path))]
    elif path.suffix == ".onnx" and path.is_file():
        files = [path, *_weights_of_onnx(path)]
    else:
        files = [path]
    if not files or not all(file.exists() for file in files):
        raise FileNotFoundError(path)
    return sorted(files)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _weights_of_onnx(path: Path) -> list[Path]:
    """The files that an ONNX file names as holding its weights. Raises SourceError if that cannot be told."""
    try:
        onnx = importlib.import_module("onnx")
    except ImportError as error:
        raise SourceError(
            f"{path.name} may have its weights in other files, which package onnx would tell: pip install "
            "'potstill[onnx]'."
        ) from error
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception:  # protobuf's own kinds of error derive from Exception alone
        return []  # no model: opening it says so
    names = {
        entry.value
        for tensor in graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path.parent / name for name in sorted(names)]


def content_sha256(path: Path) -> str:
    """sha256 as hex digits: of a single file's bytes, or else of the names and sha256 of all `content_files`."""
    files = content_files(path)
    if files == [path]:
        return file_sha256(path)
    lines = [f"{one.relative_to(path.parent).as_posix()} {file_sha256(one)}\n" for one in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file as hex digits; remembered within the process while size and modification time stay."""
    return _sha256(path, file_status(path))


def file_status(path: Path) -> tuple[int, ...]:
    """What changes when a file's content does: size, times of content and of inode, inode."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@lru_cache(maxsize=1024)
def _sha256(path: Path, status: tuple[int, ...]) -> str:
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
    if spec.sha256 and key == main_file(spec):
        # An ONNX file with weights beside it has a fingerprint of all of them.
        own = file_sha256(path) if path.is_file() else found
        if own != spec.sha256:
            raise SourceError(
                f"Source '{spec.name}': `{key}`: {path} has sha256 {own}, expected {spec.sha256}; fetch the file again."
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
