"""Source-space distillation: the student imitates each source's answers over the source's own classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from potstill.losses import cross_entropy, soft_cross_entropy, weighted_sum
from potstill.training.loop import Forward, Objective
from potstill.types import Batch, DenseLogits


@dataclass(frozen=True)
class SourceTargets:
    """What one source says about the pool: row i of `rows` is the row of `logits` for image i of `Split.pool`."""

    logits: DenseLogits
    rows: npt.NDArray[np.int64]

    @property
    def num_classes(self) -> int:
        return self.logits.num_classes

    def probs(self, pool_rows: Tensor, temperature: float) -> Tensor:
        """Pseudo-labels softmax(z / temperature) of the given pool images, `(M, Z)` float32 on their device."""
        chosen = self.rows[pool_rows.cpu().numpy()]
        return torch.from_numpy(self.logits.probs(chosen, temperature)).to(pool_rows.device)


def source_space_objective(
    targets: Mapping[str, SourceTargets],
    weights: Mapping[str, float],
    *,
    label_weight: float,
    temperature: float,
) -> Objective:
    """The objective of DistillNearest, DistillEqual and DistillWeighted; they differ in `weights` alone.

    `lambda * CE_L(h(phi(x)), y) + (1 - lambda) * T^2 * sum_s a_s * mean_U CE(softmax(z_s/T), softmax(g_s(phi(x))/T))`
    with lambda = `label_weight`, T = `temperature`, a_s = `weights` (after arXiv 2304.12314; the published text that
    we could read does not state the constants).

    Args:
        targets: source name -> its answers over the pool.
        weights: source name -> a_s, on the simplex, over the same names.
        label_weight: share of the supervised term, in [0, 1].
        temperature: T > 0.
    """

    def objective(student: Forward, batch: Batch) -> dict[str, Tensor]:
        if batch.pool_weak is None or batch.pool_rows is None:
            raise ValueError("source-space distillation needs a batch with pool images")
        labeled = len(batch.labels)
        outputs = student(torch.cat([batch.labeled_images, batch.pool_weak]))
        supervised = cross_entropy(outputs.logits[:labeled], batch.labels)
        answers = {
            name: soft_cross_entropy(
                outputs.source_logits[name][labeled:],
                targets[name].probs(batch.pool_rows, temperature),
                temperature=temperature,
            )
            for name in weights
        }
        distilled = weighted_sum((weight, answers[name]) for name, weight in weights.items())
        loss = weighted_sum([(label_weight, supervised), (1 - label_weight, distilled)])
        return {"loss": loss, "supervised": supervised, "distilled": distilled}

    return objective
