"""Write a file in one step: readers see the old content or the new one, never a part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from potstill.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; when the block ends well, it takes the place of `path`.

    The folder is made if need be. The temporary file is removed if the block raises. Raises OutputError, with the path
    and the system's reason, if a file or folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())  # else a power cut may leave an empty file under the final name
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"Cannot write {path}: {error.strerror or error}. Check the folder, its rights and the disk, or choose "
            "another --output."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step. Raises OutputError."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
