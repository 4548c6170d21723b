"""What the ranking has to know of a metric."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Need = Literal[
    "features",
    "probs",
    "logits",
    "labels",
    "reference_features",
    "random_features",
    "params",
    "depth",
    "stated_accuracy",
]
_ONE_NUMBER = {"params", "depth", "stated_accuracy"}


@dataclass(frozen=True)
class Metric:
    """A similarity metric: `function(needs[0], needs[1], ...)` returns a float, higher is better.

    `needs` names the function's positional arguments in their order: `features` `(N, D)`, `probs` `(N, Z)` and `logits`
    `(N, Z)` of one source; `labels` `(N,)` of the target; `reference_features` `(N, E)` of another model, the same for
    all sources; `random_features` `(N, D)` of the source's architecture with random weights; `params`, `depth` and
    `stated_accuracy` are numbers that are known of the source without any image.

    `pairwise` says that the score behaves like an average over pairs of images, whose variance falls with 1 / N^2 on
    noise; an accuracy does not. `prepare(needs without labels)` may return a function (row numbers, class index of
    these rows) -> score, which computes the metric on many subsets and labelings of the same images at less cost.
    `bounds` are the lowest and highest possible score; intervals end there.
    """

    function: Callable[..., float]
    needs: tuple[Need, ...] = ("features", "labels")
    pairwise: bool = False
    prepare: Callable[..., Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], float]] | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @property
    def looks_at_images(self) -> bool:
        """Whether the score depends on the images at all."""
        return not _ONE_NUMBER.intersection(self.needs)


@dataclass(frozen=True)
class Ranker:
    """A metric that is only defined over a set of sources: `function({source: features}, labels)`.

    It returns {source: float}, higher is better. `needs` names what each source gives, and `labels`. On bad outputs of
    one source it raises `SimilarityError` with that source's name in `source`.

    Raises:
        ValueError: needs other than one thing of each source and the labels.
    """

    function: Callable[..., dict[str, float]]
    needs: tuple[Need, ...] = ("features", "labels")
    pairwise: bool = False
    prepare: None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)
    looks_at_images: bool = True

    def __post_init__(self) -> None:
        if len(self.needs) != 2 or "labels" not in self.needs:
            raise ValueError(f"A ranker needs one thing of each source and the labels, got needs {self.needs}.")
