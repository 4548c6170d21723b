"""Learning rate and length of a run."""

from __future__ import annotations

import math

SETTLED = 5
"""Steps after which the time of a step is believed: the first ones allocate memory and choose algorithms."""


def learning_rate(step: int, steps: int, *, peak: float, warmup: float = 0.1) -> float:
    """Linear warm-up over the first `warmup` share of the run, then half a cosine down to 0.

    >>> [round(learning_rate(step, 10, peak=1.0), 3) for step in (0, 1, 5, 9)]
    [1.0, 1.0, 0.587, 0.03]
    """
    warmup_steps = max(1, round(warmup * steps))
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def affordable_steps(done: int, steps: int, *, elapsed: float, limit: float | None) -> int:
    """How many steps a run of `steps` can have in all when `done` of them took `elapsed` of `limit` seconds.

    Never more than planned and never fewer than done: a run that is in time is left alone, so that it stays the same
    bit for bit; a slow one is shortened as a whole, so that its learning rate still ends at 0.

    >>> affordable_steps(10, 100, elapsed=10.0, limit=200.0), affordable_steps(10, 100, elapsed=20.0, limit=100.0)
    (100, 50)
    """
    if limit is None or (done < SETTLED and elapsed < limit):
        return steps
    return min(steps, max(done, math.floor(done * limit / elapsed)))
