"""What sources say about the images of one batch."""

from __future__ import annotations

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

    def to(self, device: torch.device) -> DenseTargets:
        """The same on a device."""
        return replace(self, probs=self.probs.to(device, non_blocking=True), confidence=_moved(self.confidence, device))


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

    def to(self, device: torch.device) -> TopKTargets:
        """The same on a device."""
        return replace(
            self,
            indices=self.indices.to(device, non_blocking=True),
            probs=self.probs.to(device, non_blocking=True),
            confidence=_moved(self.confidence, device),
        )


SoftTargets = DenseTargets | TopKTargets


def _moved(values: torch.Tensor | None, device: torch.device) -> torch.Tensor | None:
    return None if values is None else values.to(device, non_blocking=True)
