"""Durable files: written whole or not at all, and small JSON records that notice damage to themselves."""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from potstill.errors import CacheError, OutputError
from potstill.files import replacing


def canonical_json(value: object) -> str:
    """The one JSON text of plain data: sorted keys, no spaces, ASCII, no NaN.

    >>> canonical_json({"b": [1, 2.5], "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def write_durably(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file so that, after a crash or power cut at any moment, its old or its new content is there in full.

    The content comes in pieces, of which one is in memory at a time.

    Raises OutputError if the folder cannot be written or the disk is full.
    """
    try:
        with replacing(path) as temporary, temporary.open("wb") as stream:
            for piece in pieces:
                stream.write(piece)
            stream.flush()
        _sync_folder(path.parent)  # else a power cut may undo the renaming
    except OSError as error:
        raise OutputError(f"Cannot sync {path.parent}: {error.strerror or error}. Try another --cache-dir.") from error


def write_record(path: Path, body: Mapping[str, Any]) -> None:
    """Write plain data as a canonical JSON file that carries the CRC-32 of its body."""
    document = {"body": body, "crc32": zlib.crc32(canonical_json(body).encode())}
    write_durably(path, [canonical_json(document).encode()])


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote. Raises CacheError if even one bit of the file has changed."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CacheError(f"Cannot read the cache file {path}: {error.strerror or error}.") from error
    try:
        document = json.loads(content)
        body = document["body"]
        intact = canonical_json(document).encode() == content
        intact = intact and document["crc32"] == zlib.crc32(canonical_json(body).encode())
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact or not isinstance(body, dict):
        raise CacheError(
            f"The cache file {path} is damaged: its content does not match its checksum. {repair_hint(path)}"
        )
    return body


def repair_hint(path: Path) -> str:
    """What to do about a damaged file of a cache entry."""
    names = f"{path.parent / path.stem}.*"
    if path.parent.parent.name != "outputs":  # a note beside the entries
        return f"Delete {path} (or run `potstill cache repair`): it will be made again."
    if path.name.startswith(("derived-", "plan-", "part-")):
        return f"Delete {names} (or run `potstill cache repair`): it will be computed again."
    if path.name.startswith("shard-"):
        return f"Delete {names} (or run `potstill cache repair`): only its rows will be computed again."
    return f"Delete the folder {path.parent} (or run `potstill cache repair`): its rows will be computed again."


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on a file, waiting for whoever has it. The system frees it when its holder dies.

    Without `wait` the block runs in any case, and is told whether it has the lock.

    Raises OutputError if the lock file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+b")
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"Cannot write to {path.parent}: {reason}. Choose another folder with --cache-dir."
        ) from error
    with stream:
        taken = _lock(stream.fileno(), wait)
        try:
            yield taken
        finally:
            if taken:
                _unlock(stream.fileno())


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, wait: bool) -> bool:
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return True
            except OSError:  # LK_LOCK gives up after ten attempts, one a second
                if not wait:
                    return False

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def _sync_folder(folder: Path) -> None:
        """Windows cannot sync a folder; its rename is durable enough."""

else:
    import fcntl

    def _lock(descriptor: int, wait: bool) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _sync_folder(folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
