"""`log.txt`: what was said while a run was made."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from potstill.errors import OutputError


@contextmanager
def logged_to(directory: Path) -> Iterator[None]:
    """Append the package's messages to `directory`/log.txt while the block runs. Raises OutputError."""
    logger = logging.getLogger("potstill")
    try:
        handler = logging.FileHandler(directory / "log.txt", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"Cannot write {directory / 'log.txt'}: {error.strerror}. Choose another --output."
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.setLevel(logging.INFO)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
