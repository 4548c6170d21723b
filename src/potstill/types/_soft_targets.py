"""What sources say about the images of one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DenseTargets:
    """Pseudo-labels of one source for M images: `probs` `(M, Z)` float32, rows summing to 1, already softened.

    `confidence` `(M,)` float32 >= 0 says how much each image counts; None means 1.
    """

    probs: torch.Tensor
    confidence: torch.Tensor | None = None

    @property
    def num_classes(self) -> int:
        return self.probs.shape[1]

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> DenseTargets:
        """The same with every tensor replaced by what the function makes of it."""
        confidence = None if self.confidence is None else function(self.confidence)
        return replace(self, probs=function(self.probs), confidence=confidence)


@dataclass(frozen=True)
class TopKTargets:
    """The K likeliest classes of one source for M images: `indices` `(M, K)` int64, `probs` `(M, K)` float32.

    What their probabilities leave of 1 is spread evenly over the other Z - K classes, Z = `num_classes`. `confidence`
    as in DenseTargets.
    """

    indices: torch.Tensor
    probs: torch.Tensor
    num_classes: int
    confidence: torch.Tensor | None = None

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> TopKTargets:
        """The same with every tensor replaced by what the function makes of it."""
        confidence = None if self.confidence is None else function(self.confidence)
        return replace(self, indices=function(self.indices), probs=function(self.probs), confidence=confidence)


SoftTargets = DenseTargets | TopKTargets
