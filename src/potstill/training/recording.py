"""A student's backbone recorded as a CUDA graph: a small network spends its steps on launching kernels otherwise."""

from __future__ import annotations

import logging
from typing import cast

import torch
from torch import Tensor, nn

from potstill.models import features_of

log = logging.getLogger(__name__)


class RecordedFeatures:
    """Features of batches of one shape, forward and backward each replayed as one graph.

    The network's weights and statistics are read and changed where they lie; recording leaves them as they were.
    One batch must have gone backward before the next goes forward, since both use the same memory.

    Args:
        model: a timm model in training mode on a GPU, whose tensors will not be moved.
        images: a batch `(B, 3, H, W)` as all of them will be: shape, dtype, layout.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self._shape = images.shape
        buffers = list(model.buffers())
        kept = [buffer.clone() for buffer in buffers]
        try:
            # The classifier is no part of it, so its weights go unused.
            self._features = torch.cuda.make_graphed_callables(
                _Features(model), (torch.zeros_like(images),), allow_unused_input=True
            )
        finally:
            if buffers:
                with torch.no_grad():
                    torch._foreach_copy_(buffers, kept)

    def __call__(self, images: Tensor) -> Tensor:
        """Features `(B, D)`. Raises ValueError for a batch of another shape than the recorded one."""
        if images.shape != self._shape:
            raise ValueError(f"recorded for batches of {tuple(self._shape)}, got {tuple(images.shape)}")
        return cast(Tensor, self._features(images))


def record_features(model: nn.Module, images: Tensor) -> RecordedFeatures | None:
    """The recorded backbone, or None for a model that cannot be recorded, such as one that looks at its numbers."""
    try:
        return RecordedFeatures(model, images)
    except torch.OutOfMemoryError:
        raise  # without a record, too, the step would need nearly as much
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        log.warning("The student's steps are not recorded, so they may be slower on this GPU: %s", reason)
        return None


class _Features(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return features_of(self.model, images)
