"""Learning rate and length of a run."""

from __future__ import annotations

import math

SETTLED = 5
"""Steps of a sitting whose time tells nothing: workers start, memory is allocated, algorithms are chosen."""
SAMPLE = 0.1
"""Share of the limit that must have been measured before a run is shortened: one slow step is no slow machine."""


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
        pace: that of the sitting before, so that many short sittings measure as much as one long one.

    >>> slow = TimeLimit(100.0)
    >>> [slow.affordable_steps(done, 100, elapsed=20.0 + 2.0 * done) for done in range(1, 12)]
    [100, 100, 100, 100, 100, 100, 100, 100, 100, 40, 40]
    """

    def __init__(self, seconds: float | None, pace: tuple[int, float] = (0, 0.0)) -> None:
        self._seconds = seconds
        self._earlier = pace
        self.pace = pace
        """How many steps of all sittings were timed, without the first SETTLED of each, and the seconds they took."""
        self._told, self._elapsed = 0, 0.0
        self._settled: tuple[int, float] | None = None

    def affordable_steps(self, done: int, steps: int, *, elapsed: float) -> int:
        """Steps in all of a run of `steps` when `done` of them took `elapsed` seconds; asked after every step.

        Never more than planned, never fewer than done; exactly those that are done where no other one would end in
        time.
        """
        last_step = elapsed - self._elapsed if self._told else 0.0
        self._told, self._elapsed = self._told + 1, elapsed
        if self._told == SETTLED:
            self._settled = done, elapsed
        if self._settled is not None:
            self.pace = self._earlier[0] + done - self._settled[0], self._earlier[1] + elapsed - self._settled[1]
        if self._seconds is None:
            return steps
        if elapsed >= self._seconds or elapsed + last_step > self._seconds:
            return done
        timed_steps, timed_seconds = self.pace
        if timed_seconds < SAMPLE * self._seconds:
            return steps
        return min(steps, done + math.floor((self._seconds - elapsed) / (timed_seconds / timed_steps)))
