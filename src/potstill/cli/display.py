"""What a person sees: progress and messages on stderr, results on stdout."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from potstill.types import Progress

LINE_EVERY_SECONDS = 15.0

messages = Console(stderr=True, highlight=False)
results = Console(highlight=False)


def set_up_logging() -> None:
    """What the package says goes to stderr, warnings in colour."""
    logger = logging.getLogger("potstill")
    logger.handlers = [_MessageHandler()]
    logger.setLevel(logging.INFO)


class _MessageHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        messages.print(self.format(record), style=style, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    results.file.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Bars with the time left on a terminal; elsewhere a line now and then."""
    if not messages.is_terminal:
        yield _LineProgress()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=messages, transient=True) as bars:
        yield _BarProgress(bars)


class _BarProgress:
    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, task: str, done: int, total: int, /) -> None:
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(task, total=total)
        self._bars.update(self._tasks[task], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(task))


class _LineProgress:
    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._printed = time.monotonic()

    def __call__(self, task: str, done: int, total: int, /) -> None:
        now = time.monotonic()
        started = self._started.setdefault(task, now)
        if done >= total:
            self._started.pop(task)
        elif done and now - self._printed > LINE_EVERY_SECONDS:
            self._printed = now
            left = (now - started) * (total - done) / done
            messages.print(f"{task}: {100 * done // total} %, about {left:.0f} s left")
