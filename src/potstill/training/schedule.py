"""Learning rate and length of a run."""

from __future__ import annotations

import math

SETTLED = 5
"""Steps of a sitting whose time tells nothing: workers start, memory is allocated, algorithms are chosen."""
SAMPLE = 0.1
"""Share of the limit that must have been measured before a run is shortened: one slow step alone is no slow machine."""


def learning_rate(step: int, steps: int, *, peak: float, warmup: float = 0.1) -> float:
    """Linear warm-up over the first `warmup` share of the run, then half a cosine down to 0.

    >>> [round(learning_rate(step, 10, peak=1.0), 3) for step in (0, 1, 5, 9)]
    [1.0, 1.0, 0.587, 0.03]
    """
    warmup_steps = max(1, round(warmup * steps))
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


class TimeLimit:
    """How many steps a run can have in limited time. One is made for each sitting.

    A run that is in time is left alone, so that it stays the same bit for bit; a slow one is shortened as a whole, so
    that its learning rate still ends at 0.

    Args:
        seconds: of all sittings together; None is no limit.
        done: steps that earlier sittings have finished.
        elapsed: seconds that they took.

    >>> slow = TimeLimit(100.0)
    >>> [slow.affordable_steps(done, 100, elapsed=20.0 + 2.0 * done) for done in range(1, 12)]
    [100, 100, 100, 100, 100, 100, 100, 100, 100, 40, 40]
    """

    def __init__(self, seconds: float | None, *, done: int = 0, elapsed: float = 0.0) -> None:
        self._seconds = seconds
        self._earlier = done, elapsed
        self._told, self._elapsed = 0, 0.0
        self._settled: tuple[int, float] | None = None

    def affordable_steps(self, done: int, steps: int, *, elapsed: float) -> int:
        """Steps in all of a run of `steps` when `done` of them took `elapsed` seconds; asked after every step.

        Never more than planned, never fewer than done; exactly those that are done where no other one would end in
        time.
        """
        if self._seconds is None:
            return steps
        last_step = elapsed - self._elapsed if self._told else 0.0
        self._told, self._elapsed = self._told + 1, elapsed
        if elapsed >= self._seconds or elapsed + last_step > self._seconds:
            return done
        if self._told == SETTLED:
            self._settled = done, elapsed
        pace = self._pace(done, elapsed, SAMPLE * self._seconds)
        return steps if pace is None else min(steps, done + math.floor((self._seconds - elapsed) / pace))

    def _pace(self, done: int, elapsed: float, sample: float) -> float | None:
        """Seconds a step in this sitting, or else in the earlier ones, whichever has measured enough."""
        if self._settled is not None and elapsed - self._settled[1] >= sample:
            return (elapsed - self._settled[1]) / (done - self._settled[0])
        steps, seconds = self._earlier
        return seconds / steps if steps and seconds >= sample else None
