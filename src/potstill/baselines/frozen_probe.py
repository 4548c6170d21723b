"""The `probe` baseline: the initial backbone stays frozen; a probe on its features becomes the target head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from potstill.probes import fit_probe
from potstill.training.student import head_of


def put_probe_head(
    model: nn.Module, features: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], *, num_classes: int
) -> None:
    """Fit a probe on the labeled images' features and write it into the model's target head.

    Args:
        model: a student's timm model with `num_classes` classes; its head is changed in place.
        features: `(L, D)` of the labeled images, from this model.
        labels: `(L,)` int64.
        num_classes: C.
    """
    probe = fit_probe(features, labels, num_classes)
    head = head_of(model)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(probe.coefficients.T))
        head.bias.copy_(torch.from_numpy(probe.intercept))
