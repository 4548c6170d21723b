"""Times of several variants, interleaved, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def interleaved(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    """Median and all seconds of each variant: A, B, A, B, ... after one call of each to warm up."""
    for call in variants.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {
        "rounds": rounds,
        "median_seconds": {name: statistics.median(each) for name, each in seconds.items()},
        "seconds": seconds,
    }
