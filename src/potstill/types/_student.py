"""Training and evaluation of probes and students."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    from potstill.types._soft_targets import SoftTargets

ViewKind = Literal["plain", "weak", "strong", "crop", "stored"]


@dataclass(frozen=True)
class Probe:
    """A linear classifier on features: logits = features @ coefficients + intercept, over the target classes.

    `coefficients` `(D, C)`, `intercept` `(C,)`, float64. `penalty` is the L2 penalty that was chosen.
    """

    coefficients: npt.NDArray[np.float64]
    intercept: npt.NDArray[np.float64]
    penalty: float


@dataclass(frozen=True)
class Batch:
    """One training step's images `(B, 3, H, W)`, already augmented: uint8 until they are where the student is, then
    normalised float32.

    `pool_rows` `(M,)` int64 are positions in the pool, `pool_passes` the pass over the pool that each belongs to;
    `pool_weak` and `pool_strong` are two views of those images
    (either may be None when the method does not need it). `answers` is what each source says about them, in the order
    of the student's sources; `target_probs` `(M, C)` is what they say together about the target's classes. `progress`
    is the share of the run that is done, in [0, 1).
    """

    labeled_images: torch.Tensor
    labels: torch.Tensor
    pool_rows: torch.Tensor | None
    pool_weak: torch.Tensor | None
    pool_strong: torch.Tensor | None
    pool_passes: torch.Tensor | None = None
    answers: tuple[SoftTargets, ...] = ()
    target_probs: torch.Tensor | None = None
    progress: float = 0.0

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The batch with every tensor replaced by what the function makes of it."""
        return replace(
            self,
            labeled_images=function(self.labeled_images),
            labels=function(self.labels),
            pool_rows=None if self.pool_rows is None else function(self.pool_rows),
            pool_passes=None if self.pool_passes is None else function(self.pool_passes),
            pool_weak=None if self.pool_weak is None else function(self.pool_weak),
            pool_strong=None if self.pool_strong is None else function(self.pool_strong),
            answers=tuple(targets.map(function) for targets in self.answers),
            target_probs=None if self.target_probs is None else function(self.target_probs),
        )


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a student on one part, and the figures computed from them. `probs` `(N, C)` float32."""

    image_ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    probs: npt.NDArray[np.float32]
    metrics: Mapping[str, float | None] = field(default_factory=dict)
