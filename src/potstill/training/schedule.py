"""Learning rate over a run."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, *, peak: float, warmup: float = 0.1) -> float:
    """Linear warm-up over the first `warmup` share of the run, then half a cosine down to 0.

    >>> [round(learning_rate(step, 10, peak=1.0), 3) for step in (0, 1, 5, 9)]
    [1.0, 1.0, 0.587, 0.03]
    """
    warmup_steps = max(1, round(warmup * steps))
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))
