"""Decoding in threads: Pillow and hashlib release the interpreter lock, and threads need no pickling."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """Yield `function(item)` in the order of the items; at most a few results a worker wait in memory.

    workers: number of threads; 0 calls the function in this thread. An exception of the function is raised here.

    >>> list(map_in_threads(abs, [-3, 2, -1], workers=2))
    [3, 2, 1]
    """
    if workers <= 0:
        yield from map(function, items)
        return
    remaining = iter(items)
    with ThreadPoolExecutor(max_workers=workers) as executor:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in islice(remaining, 4 * workers):
                waiting.append(executor.submit(function, item))
            while waiting:
                result = waiting.popleft().result()
                for item in islice(remaining, 1):
                    waiting.append(executor.submit(function, item))
                yield result
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
