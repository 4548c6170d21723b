"""Transfer learning: fine-tune the student on the labeled images alone (`transfer`, and `ceiling` with all labels)."""

from __future__ import annotations

from torch import Tensor

from potstill.losses import cross_entropy
from potstill.training.loop import Forward, Objective
from potstill.types import Batch


def supervised_objective(*, label_smoothing: float = 0.0) -> Objective:
    """Mean cross-entropy of the labeled images; `label_smoothing` in [0, 1) of a label is spread over all classes."""

    def objective(student: Forward, batch: Batch) -> dict[str, Tensor]:
        logits = student(batch.labeled_images).logits
        return {"loss": cross_entropy(logits, batch.labels, smoothing=label_smoothing)}

    return objective
