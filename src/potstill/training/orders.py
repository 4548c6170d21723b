"""What process 0 tells the others. It alone runs a command; they wait until it calls them to train, or to leave.

Orders go through the key-value store that the launcher opens for the processes of a run, not through collectives: who
waits for an order can be stopped, needs no device, and hears of the end even when a collective call failed.
"""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from functools import cache

from potstill.training.interruption import SIGNALS
from potstill.training.processes import PATIENCE, process_count

ASK_SECONDS = 0.2
FAREWELL_SECONDS = 5.0


@dataclass(frozen=True)
class Order:
    """Train what the file `task` describes, or, where it is None, leave with `exit_code`."""

    task: str | None
    exit_code: int = 0


class Orders:
    """A numbered sequence of orders; every process reads all of them.

    Made in every process at about the same time: it waits until all are there.
    """

    def __init__(self) -> None:
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]
        from torch.distributed.rendezvous import rendezvous

        store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
        self._store = PrefixStore("potstill", store)
        self._number = 0

    def send(self, order: Order) -> None:
        """Give an order to every other process, and do not wait."""
        self._store.set(f"order {self._number}", json.dumps([order.task, order.exit_code]))
        self._number += 1

    def receive(self, seconds: float | None = None) -> Order | None:
        """Wait for the next order; None if there was none for so many seconds.

        Raises:
            RuntimeError: process 0 is gone.
        """
        key, started = f"order {self._number}", time.monotonic()
        # Asking again and again, rather than a call that blocks, lets signals through.
        while not self._store.check([key]):
            if seconds is not None and time.monotonic() - started > seconds:
                return None
            time.sleep(ASK_SECONDS)
        self._number += 1
        return Order(*json.loads(self._store.get(key)))

    def dismiss(self, exit_code: int) -> None:
        """Tell the others to leave with this code, and wait a little until they heard it.

        The store may live in this process, so it must not end at once.
        """
        self.send(Order(None, exit_code))
        started = time.monotonic()
        while self._store.add("heard", 0) < process_count() - 1:
            if time.monotonic() - started > FAREWELL_SECONDS:
                return
            time.sleep(ASK_SECONDS / 4)

    def hear(self) -> None:
        """Say that this process heard that it is to leave."""
        self._store.add("heard", 1)


@cache
def orders() -> Orders:
    """The orders of this run."""
    return Orders()


def meet_processes() -> None:
    """Wait until all processes of the run are there; at once where this one is alone."""
    if process_count() > 1:
        orders()


def dismiss_processes(exit_code: int) -> None:
    """The last act of process 0: all others end with the same exit code.

    Where they never met there is nobody to tell, and meeting them once more would take as long again.
    """
    if orders.cache_info().currsize:
        for number in SIGNALS:  # the launcher stops this process, too, once another one has failed
            signal.signal(number, signal.SIG_IGN)
        orders().dismiss(exit_code)
        leave_processes()


def leave_processes() -> None:
    """Close the connections that training opened, if there are any."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
