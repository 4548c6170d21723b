"""Batches prepared ahead of the training loop, by threads or by processes; which of them never shows in the batches.

Preparing is `Batches.batch`, a pure function of (step, part): nothing is lost when a run stops, and those who prepare
need not keep an order. Whoever prepares computes with one torch thread: two teams of threads on the same cores hold
each other up, and sums would be rounded by the size of the team.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import resource_tracker
from typing import Protocol

import torch
import torch.multiprocessing  # makes processes pass tensors through shared memory

from potstill.errors import UsageError, unknown_name
from potstill.training.interruption import SIGNALS
from potstill.training.optimization import Loading
from potstill.types import Batch


class Batches(Protocol):
    """What prepares batches: `TrainingBatches`. A spawned process gets a pickled copy, so pickling must be cheap."""

    def batch(self, step: int, part: int) -> Batch:
        """The images of a part of a step's batch, a pure function."""
        ...

    def with_answers(self, batch: Batch) -> Batch:
        """The batch with what the sources say; never called in a worker process."""
        ...


@contextmanager
def prepared_batches(
    batches: Batches, keys: Iterable[tuple[int, int]], *, loading: Loading, pinned: bool = False
) -> Iterator[Iterator[Batch]]:
    """Within the block, iterate over the batches of the keys (step, part), in their order.

    At most `max(1, workers) + 1` batches wait in memory; a thread of this process attaches the answers as soon as the
    images are there, and copies `pinned` batches to memory from which a GPU reads by itself. Leaving the block, also
    early or by an exception, ends all threads and processes.

    An error in a worker is raised where its batch would have come. Raises UsageError for an unknown start method, or
    when a worker process dies.
    """
    pool, batch_of = _start_pool(batches, loading)
    finisher = _start_threads(1)
    waiting: deque[Future[Batch]] = deque()
    remaining = iter(keys)

    def finished(images: Future[Batch]) -> Batch:
        batch = batches.with_answers(images.result())
        return batch.map(torch.Tensor.pin_memory) if pinned else batch

    def submit(count: int) -> None:
        for step, part in islice(remaining, count):
            images = pool.submit(batch_of, step, part)
            waiting.append(finisher.submit(finished, images))

    def in_order() -> Iterator[Batch]:
        submit(max(1, loading.workers) + 1)
        while waiting:
            batch = _result(waiting.popleft())
            submit(1)
            yield batch

    try:
        yield in_order()
    finally:
        finisher.shutdown(wait=False, cancel_futures=True)
        pool.shutdown(cancel_futures=True)
        finisher.shutdown()


def _result(future: Future[Batch]) -> Batch:
    try:
        return future.result()
    except BrokenExecutor as error:
        raise UsageError(
            "A process that prepares batches died, most often for lack of memory or of shared memory (/dev/shm). Use "
            "fewer --workers, or threads."
        ) from error


class _Worker:
    """What a worker process prepares batches with; set once, when it starts."""

    batches: Batches

    @classmethod
    def batch(cls, step: int, part: int) -> Batch:
        return cls.batches.batch(step, part)


def _start_pool(batches: Batches, loading: Loading) -> tuple[Executor, Callable[[int, int], Batch]]:
    """An executor, and the function that it is to call for a key."""
    if loading.start == "thread" or loading.workers == 0:
        return _start_threads(max(1, loading.workers)), batches.batch
    if loading.start not in multiprocessing.get_all_start_methods():
        known = ("thread", *multiprocessing.get_all_start_methods())
        raise unknown_name("way to start workers on this system", loading.start, known)
    return _start_processes(batches, loading.workers, loading.start), _Worker.batch


def _start_threads(count: int) -> ThreadPoolExecutor:
    usual = torch.get_num_threads()
    ready = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # torch takes the usual number at a thread's first question; ask before changing it
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="potstill-loader", initializer=start)
    for _ in range(count):  # none becomes idle before all have started, so each call starts one
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(usual)  # setting it in a thread also sets it for threads that start later
    return pool


def _start_processes(batches: Batches, count: int, start: str) -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context(start), initializer=_start_worker, initargs=(batches,)
    )
    with warnings.catch_warnings(), _signals_blocked():
        # Forking a process with threads is dangerous for a child that waits for their locks. Ours computes with one
        # torch thread and leaves the parent's pools alone, as torch's own DataLoader workers do.
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        for _ in range(count):
            pool.submit(int)
    return pool


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes that start in the block never see the signals that ask a run to stop: the main process decides when
    they end. For this process the signals only wait until the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # otherwise it starts in the block and unblocks the signals behind our back
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(batches: Batches) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _Worker.batches = batches


def _end_with_parent() -> None:
    """A killed parent cannot say goodbye; without this, its workers would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
