"""Find image files, and read each of them once: is it decodable, and what is the hash of its content?"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL
import pyarrow as pa
import pyarrow.parquet as pq

from potstill.data.images import SUFFIXES, decode_image, read_bytes
from potstill.data.threads import map_in_threads
from potstill.errors import DataError, OutputError
from potstill.files import replacing
from potstill.types import Progress, no_progress

logger = logging.getLogger(__name__)

_INDEX_FIELDS = ("path", "size", "mtime_ns", "digest", "reason")


@dataclass(frozen=True)
class Listing:
    """The files below a folder: images, sorted by path, and how many files have another suffix (as the suffix says)."""

    images: tuple[Path, ...]
    other: Mapping[str, int]


@dataclass(frozen=True)
class FileCheck:
    """The sha256 of a file's bytes ("" if they cannot be read), and why it is no usable image (None if it is one)."""

    digest: str
    reason: str | None


def list_images(folder: str | os.PathLike[str]) -> Listing:
    """List the image files below a folder, in all sub-folders.

    A file is an image if its suffix says so, in any case. Names that begin with a dot and `__MACOSX` are ignored, files
    and folders alike. Links to folders are followed, except back to a folder on the way down.
    """
    images: list[Path] = []
    other: Counter[str] = Counter()
    for path in _walk(Path(folder), ()):
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            images.append(path)
        else:
            other[suffix or "(no suffix)"] += 1
    return Listing(images=tuple(sorted(images)), other=dict(sorted(other.items())))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is ignored.

    >>> [is_hidden(name) for name in (".ipynb_checkpoints", "__MACOSX", "cat")]
    [True, True, False]
    """
    return name.startswith(".") or name == "__MACOSX"


def list_folders(folder: Path) -> list[Path]:
    """The visible folders directly inside a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def images_directly_in(folder: Path) -> list[Path]:
    """The image files in a folder itself, without its sub-folders, sorted by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not is_hidden(path.name) and path.is_file()
    )


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """All visible files below a folder; `above` identifies the folders on the way down."""
    try:
        status = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(
            f"Cannot list the folder {folder}: {error.strerror}. Check that it exists and is readable."
        ) from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        if is_hidden(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), (*above, here))
        else:
            yield Path(entry.path)


def inspect_files(
    paths: Sequence[Path],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int = 0,
    progress: Progress = no_progress,
) -> dict[Path, FileCheck]:
    """Read every file once: the sha256 of its bytes, and whether it decodes.

    cache_dir: the answers are remembered there, so that the next command decodes nothing again; an answer counts as
    long as the file's absolute path, size, modification time and the Pillow version are the same. workers: threads.

    Never raises for a damaged or missing file: its `reason` says what is wrong.
    """
    index_file = _index_file(paths, Path(cache_dir)) if cache_dir is not None and paths else None
    known = _read_index(index_file) if index_file is not None else {}
    keys = {path: _key(path) for path in paths}
    checks = {path: known[key] for path, key in keys.items() if key in known}
    missing = [path for path in keys if path not in checks]
    done = len(checks)
    progress("check images", done, len(keys))
    for path, check in zip(missing, map_in_threads(_check_file, missing, workers=workers), strict=True):
        checks[path] = check
        done += 1
        progress("check images", done, len(keys))
    if index_file is not None and missing:
        # Files that could not even be read may be readable next time: they are not remembered.
        fresh = {keys[path]: checks[path] for path in missing if checks[path].digest}
        _write_index(index_file, known | fresh)
    return {path: checks[path] for path in paths}


def _check_file(path: Path) -> FileCheck:
    try:
        content = read_bytes(path)
    except DataError as error:
        return FileCheck(digest="", reason=str(error))
    digest = hashlib.sha256(content).hexdigest()
    try:
        decode_image(content)
    except DataError as error:
        return FileCheck(digest=digest, reason=str(error))
    return FileCheck(digest=digest, reason=None)


_Key = tuple[bytes, int, int]


def _key(path: Path) -> _Key:
    # Bytes, because file names need not be text. Path.resolve would follow links and cost ten times as much.
    absolute = os.fsencode(os.path.abspath(path))  # noqa: PTH100
    try:
        status = os.stat(absolute)  # noqa: PTH116
    except OSError:
        return absolute, -1, -1
    return absolute, status.st_size, status.st_mtime_ns


def _index_file(paths: Sequence[Path], cache_dir: Path) -> Path:
    """One index for each data folder, so that two commands on different data do not write the same file."""
    folder = os.path.commonpath([os.path.abspath(path.parent) for path in paths])  # noqa: PTH100
    name = hashlib.blake2b(os.fsencode(folder), digest_size=12).hexdigest()
    return cache_dir / "files" / f"{name}.parquet"


def _read_index(file: Path) -> dict[_Key, FileCheck]:
    """The remembered answers; none if the index is absent, damaged or of another Pillow version."""
    if not file.exists():
        return {}
    try:
        table = pq.read_table(file, page_checksum_verification=True)
        if (table.schema.metadata or {}).get(b"pillow") != PIL.__version__.encode():
            return {}
        columns = [table.column(name).to_pylist() for name in _INDEX_FIELDS]
    except (OSError, pa.ArrowException, KeyError) as error:
        logger.warning(
            "The index of checked images %s is damaged (%s); all images are checked again.", file.name, error
        )
        return {}
    return {
        (path, size, mtime_ns): FileCheck(digest, reason)
        for path, size, mtime_ns, digest, reason in zip(*columns, strict=True)
    }


def _write_index(file: Path, known: Mapping[_Key, FileCheck]) -> None:
    """Replace the index in one step. A cache that cannot be written costs time, not results: a warning is enough."""
    latest = {key[0]: (key, check) for key, check in known.items()}  # later entries replace those of older contents
    rows = [(*key, check.digest, check.reason) for key, check in latest.values()]
    types = (pa.binary(), pa.int64(), pa.int64(), pa.string(), pa.string())
    schema = pa.schema(list(zip(_INDEX_FIELDS, types, strict=True)), metadata={"pillow": PIL.__version__})
    columns = zip(*rows, strict=True) if rows else [()] * len(types)
    table = pa.table([pa.array(list(column), kind) for column, kind in zip(columns, types, strict=True)], schema=schema)
    try:
        with replacing(file) as temporary:
            pq.write_table(table, temporary, write_page_checksum=True)
    except OutputError as error:
        logger.warning("The checked images are not remembered: %s", error)
