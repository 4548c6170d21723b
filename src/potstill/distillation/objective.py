"""Source-space distillation: the student imitates each source's answers over the source's own classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from potstill.distillation.softening import standardised
from potstill.losses import cross_entropy, soft_target_losses, weighted_sum
from potstill.training.loop import Forward, Objective
from potstill.types import Batch, SoftTargets


def source_space_objective(
    weights: Sequence[float],
    *,
    label_weight: float,
    temperatures: Sequence[float],
    label_smoothing: float = 0.0,
    standardise: bool = False,
) -> Objective:
    """The objective of DistillNearest, DistillEqual and DistillWeighted; they differ in `weights` alone.

    `lambda * CE_L(h(phi(x)), y) + (1 - lambda) * sum_s a_s * T_s^2 * mean_U CE(softmax(z_s/T_s), softmax(g_s(x)/T_s))`
    with lambda = `label_weight`, T_s = `temperatures`, a_s = `weights` (after arXiv 2304.12314; the published text that
    we could read does not state the constants).

    Args:
        weights: a_s of the student's sources in their order, on the simplex.
        label_weight: share of the supervised term, in [0, 1].
        temperatures: T_s > 0; the answers of a batch are softened at them already.
        label_smoothing: share of a label that is spread over all classes, in [0, 1).
        standardise: compare z-scores of the logits; the answers of a batch are z-scores already then.
    """
    shares = torch.tensor(weights, dtype=torch.float32)

    def objective(student: Forward, batch: Batch) -> dict[str, Tensor]:
        if batch.pool_weak is None or len(batch.answers) != len(weights):
            raise ValueError(
                f"source-space distillation needs a batch with pool images and {len(weights)} answers, "
                f"got {len(batch.answers)}"
            )
        labeled = len(batch.labels)
        outputs = student(torch.cat([batch.labeled_images, batch.pool_weak]), labeled)
        supervised = cross_entropy(outputs.logits[:labeled], batch.labels, smoothing=label_smoothing)
        distilled = source_space_loss(
            outputs.source_logits, batch.answers, shares, temperatures=temperatures, standardise=standardise
        )
        loss = weighted_sum([(label_weight, supervised), (1 - label_weight, distilled)])
        return {"loss": loss, "supervised": supervised, "distilled": distilled}

    return objective


def source_space_loss(
    logits: Tensor,
    answers: Sequence[SoftTargets],
    shares: Tensor,
    *,
    temperatures: Sequence[float],
    standardise: bool = False,
) -> Tensor:
    """`sum_s a_s * T_s^2 * mean_U CE(softmax(z_s/T_s), softmax(g_s(x)/T_s))`, a scalar.

    Args:
        logits: `(M, Z_1 + ... + Z_S)` of the student, blocks in the order of the answers.
        answers: of the sources, softened already.
        shares: `(S,)`, a_s.
        temperatures: T_s.
        standardise: compare z-scores of the logits.
    """
    if standardise:
        classes = [targets.num_classes for targets in answers]
        logits = torch.cat([standardised(block) for block in torch.split(logits, classes, dim=1)], dim=1)
    answered = soft_target_losses(logits, answers, temperatures=temperatures)
    return answered @ shares.to(answered.device)
