"""Claiming an output directory: never mix two runs, never delete what is not a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from potstill.errors import OutputError, RunExistsError, UsageError

_MARKS = ("config.yaml", "results.json")
_LOG = "log.txt"  # all that a run leaves which failed before it began
# A run holds no image: the charts of its report are inside the page.
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


def claim_directory(path: Path, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Make `path` a directory that a run may write to, and return it.

    An absent directory is created, one that is empty but for a log taken. One that holds a run is refused, unless
    `resume` keeps its files or `overwrite` deletes them. Only a run is ever deleted: a directory with `config.yaml` or
    `results.json` and without a single image.

    Raises:
        UsageError: both `overwrite` and `resume`.
        RunExistsError: the directory holds a run, or files that are not a run.
        OutputError: the directory cannot be created, emptied or written to.
    """
    if overwrite and resume:
        raise UsageError("--overwrite deletes the earlier run and --resume goes on with it. Choose one of the two.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(child.name != _LOG for child in path.iterdir()) and not resume:
            _refuse_unless(path, overwrite)
            for child in path.iterdir():
                if child.is_dir() and not child.is_symlink():
                    shutil.rmtree(child)
                else:
                    child.unlink()
        probe = path / f".potstill-{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"The output directory '{_shown(path)}' cannot be used ({error.strerror or error}). Choose an --output "
            "that you may write to."
        ) from error
    return path


def _refuse_unless(path: Path, overwrite: bool) -> None:
    if not any((path / mark).is_file() for mark in _MARKS):
        raise RunExistsError(
            f"The output directory '{_shown(path)}' holds files that are no Potstill run, so nothing is written to it "
            "or deleted from it. Choose another --output."
        )
    if not overwrite:
        raise RunExistsError(
            f"The output directory '{_shown(path)}' already holds a run. Use --resume to go on with it, --overwrite to "
            "delete it and start again, or another --output."
        )
    image = next((file for file in path.rglob("*") if file.suffix.lower() in _IMAGE_SUFFIXES), None)
    if image is not None:
        raise RunExistsError(
            f"The output directory '{_shown(path)}' holds an image ('{image.name}'), which no run writes, so it is not "
            "deleted. Move the image or choose another --output."
        )


def _shown(path: Path) -> str:
    # The last part only: messages end up in logs that people share.
    return path.name or str(path)
