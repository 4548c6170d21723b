"""Transfer learning: fine-tune the student on the labeled images alone (`transfer`, and `ceiling` with all labels)."""

from __future__ import annotations

from torch import Tensor

from potstill.losses import cross_entropy
from potstill.training.loop import Forward
from potstill.types import Batch


def supervised_objective(student: Forward, batch: Batch) -> dict[str, Tensor]:
    """Mean cross-entropy of the labeled images."""
    return {"loss": cross_entropy(student(batch.labeled_images).logits, batch.labels)}
