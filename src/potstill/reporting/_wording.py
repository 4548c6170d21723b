"""How numbers read: points instead of rates, short counts, times in the unit that fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "-"


def points(rate: float | None, *, signed: bool = False) -> str:
    """A rate in 0..1 as points.

    >>> points(0.8734), points(-0.012, signed=True), points(None)
    ('87.3', '-1.2', '-')
    """
    if rate is None:
        return MISSING
    text = f"{100 * rate:+.1f}" if signed else f"{100 * rate:.1f}"
    return text if float(text) else "0.0"


def interval(ends: Sequence[float] | None, *, signed: bool = False) -> str:
    """Both ends of an interval of rates, in points.

    >>> interval([0.841, 0.8801])
    '84.1 to 88.0'
    """
    return MISSING if ends is None else f"{points(ends[0], signed=signed)} to {points(ends[1], signed=signed)}"


def count(number: float | None) -> str:
    """A number of things, short.

    >>> [count(number) for number in (None, 540, 12_340, 2_542_856, 5.65e8, 1.2e9)]
    ['-', '540', '12.3 k', '2.5 M', '565 M', '1.2 G']
    """
    if number is None:
        return MISSING
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if number >= size:
            value = number / (1e3 if unit == " k" else size)
            return f"{value:.0f}{unit}" if value >= 100 else f"{value:.1f}{unit}"
    return f"{number:.0f}"


def duration(seconds: float | None) -> str:
    """A time in the unit that fits.

    >>> [duration(seconds) for seconds in (None, 0.42, 43.2, 750, 9000)]
    ['-', '0.4 s', '43 s', '12.5 min', '2.5 h']
    """
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def score(value: float | None) -> str:
    """A similarity: its range depends on the metric, so it is shown as it is.

    >>> score(0.61234), score(None)
    ('0.612', '-')
    """
    return MISSING if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def listing(items: Sequence[str]) -> str:
    """Items as a person would list them.

    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def average(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there; None when there are none.

    >>> average([1.0, None, 3.0])
    2.0
    """
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def finished_runs(results: Mapping[str, Any], method: str | None = None) -> list[Mapping[str, Any]]:
    """The runs that are done, of one method or of all."""
    done = [run for run in results["runs"] if run.get("status", "done") == "done"]
    return [run for run in done if method is None or run["method"] == method]
