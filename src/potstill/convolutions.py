"""Convolutions on a GPU that give the same numbers every time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def repeatable_convolutions(device: torch.device, *, exact: bool = False) -> AbstractContextManager[None]:
    """Hold cuDNN to algorithms that repeat their results, rather than those that win a race; on a CPU all do.

    Args:
        device: where the block computes.
        exact: compute float32 in float32. Otherwise cuDNN rounds factors to TF32, as is usual in training.
    """
    if device.type != "cuda":
        return nullcontext()
    import torch

    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=not exact
    )
    return flags
