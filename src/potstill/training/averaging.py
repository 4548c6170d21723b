"""The averaged weights of a student, which are the ones that are kept."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class WarmingAverage(nn.Module):
    """Exponential average of a model's weights; buffers are those of the model as it was last seen.

    The decay grows from 0 to `decay`, so that short runs do not keep the initial weights. torch's AveragedModel does
    the same, but asks the device how many models it has seen, and so waits for a GPU in every step; here the count
    stays on the CPU.

    Args:
        model: copied as it is.
        decay: from 0, the last weights alone, to below 1.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> average = WarmingAverage(model, 0.9)
    >>> for value in (1.0, 2.0):
    ...     _ = nn.init.constant_(model.weight, value)
    ...     average.update(model)
    >>> round(average.module.weight.item(), 3)  # a decay of 2 / 11 so far
    1.818
    """

    n_averaged: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(model)
        self._decay = decay
        self.register_buffer("n_averaged", torch.tensor(0, device="cpu"))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of the model."""
        averaged: list[Tensor] = list(self.module.parameters())
        current: list[Tensor] = list(model.parameters())
        count = int(self.n_averaged)
        if count == 0:
            torch._foreach_copy_(averaged, current)
        else:
            torch._foreach_lerp_(averaged, current, 1 - min(self._decay, (1 + count) / (10 + count)))
        buffers = list(self.module.buffers())
        if buffers:  # a model without batch normalisation may have none
            torch._foreach_copy_(buffers, list(model.buffers()))
        self.n_averaged += 1
