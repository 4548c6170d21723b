"""What the ranking has to know of a metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Need = Literal["features", "probs", "labels"]


@dataclass(frozen=True)
class Metric:
    """A similarity metric: `function(needs[0], needs[1], ...)` returns a float, higher is better.

    `needs` names the function's positional arguments in their order: `features` `(N, D)` and `probs` `(N, Z)` of one
    source, `labels` `(N,)` of the target.
    """

    function: Callable[..., float]
    needs: tuple[Need, ...] = ("features", "labels")
