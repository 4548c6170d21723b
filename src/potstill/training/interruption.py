"""Stopping on request: finish the step, save the state, leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from potstill.errors import DivergedError, Interrupted

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Within the block, SIGINT, SIGTERM and SIGUSR1 only set a flag; the yielded function reads it.

    A request that came too late for the block to follow it, also because training diverged, is followed at its end:
    what called the block may go on after either. A second signal acts as it would without us. In a thread other than
    the main one nothing is installed.

    Raises:
        Interrupted: the block has ended by itself or with DivergedError, but a signal had come.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}

    def request(number: int, frame: FrameType | None) -> None:
        requested.set()
        signal.signal(number, previous[number])

    for number in SIGNALS:
        signal.signal(number, request)
    diverged = None
    try:
        yield requested.is_set
    except DivergedError as error:
        diverged = error
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if requested.is_set():
        raise Interrupted("Stopped. What was finished is kept; go on with --resume.") from diverged
    if diverged is not None:
        raise diverged
