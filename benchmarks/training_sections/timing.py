"""Times of variants that measure themselves, interleaved, so that what else the machine does falls on all alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any


def interleaved_steps(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """Median and all seconds of each variant: A, B, A, B, ... Each call returns the seconds of its steps after some
    that warmed it up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            seconds[name].append(call())
    return {
        "rounds": rounds,
        "median_seconds": {name: statistics.median(each) for name, each in seconds.items()},
        "seconds": seconds,
    }


def compared(timed: Mapping[str, Any], over: str, under: str) -> dict[str, float]:
    """How many times the seconds of `under` those of `over` are: the ratio of the medians, and the median of the
    rounds' own ratios, which what slowly changes on the machine does not touch.
    """
    medians, seconds = timed["median_seconds"], timed["seconds"]
    of_rounds = [top / bottom for top, bottom in zip(seconds[over], seconds[under], strict=True)]
    return {"ratio": medians[over] / medians[under], "median_of_rounds": statistics.median(of_rounds)}


def milliseconds(timed: Mapping[str, Any]) -> str:
    """The medians in words."""
    return ", ".join(f"{name} {1000 * each:.1f} ms" for name, each in timed["median_seconds"].items())
