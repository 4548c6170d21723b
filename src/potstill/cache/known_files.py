"""What the files of sources contained when they were last read, so that they need not be read, or even be there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from potstill.cache.records import read_record, write_record
from potstill.errors import CacheError, OutputError
from potstill.sources import content_files, content_sha256, file_status

log = logging.getLogger(__name__)

FOLDER = "known"


class KnownFiles:
    """Names the content of files and folders like `content_sha256`, and remembers it in the cache.

    A file is read again when its size, a time of its or its inode changed. One that is gone is what it was: its answers
    are in the cache, and a source that must be opened says what is missing.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / FOLDER

    def __call__(self, path: Path) -> str:
        """The sha256 of the content, hex. Raises FileNotFoundError if the file is absent and was never seen."""
        record = self._folder / f"{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]}.json"
        known = self._read(record, path)
        try:
            status = _status(path, known)
        except FileNotFoundError:
            if known is None:
                raise
            log.info("%s is gone; the answers that it gave before are used where they are in the cache.", path.name)
            return str(known["sha256"])
        if known is not None and known["files"] == status:
            return str(known["sha256"])
        digest = content_sha256(path)
        try:
            write_record(record, {"path": path.absolute().as_posix(), "files": status, "sha256": digest})
        except OutputError:
            log.debug("The cache cannot be written, so the content of %s is not remembered.", path.name)
        return digest

    def _read(self, record: Path, path: Path) -> dict[str, Any] | None:
        try:
            known = read_record(record) if record.is_file() else None
        except CacheError:
            return None
        return known if known is not None and known.get("path") == path.absolute().as_posix() else None


def _status(path: Path, known: Mapping[str, Any] | None) -> dict[str, list[int]]:
    """Every file that belongs to `path`, relative to its folder, and its status.

    Which these are is asked anew only where the known ones changed. Raises FileNotFoundError.
    """
    if known is not None and path.is_file():
        with suppress(OSError):
            status = {name: list(file_status(path.parent / name)) for name in known["files"]}
            if status == known["files"]:
                return status
    return {file.relative_to(path.parent).as_posix(): list(file_status(file)) for file in content_files(path)}
