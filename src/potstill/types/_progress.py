"""How long work reports how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives how far a long task is: `done` of `total` units of `task`. Called often; must be cheap."""

    def __call__(self, task: str, done: int, total: int, /) -> None: ...


def no_progress(task: str, done: int, total: int, /) -> None:
    """A `Progress` that shows nothing."""
