"""`torch.compile` for a student, on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from potstill.errors import UsageError
from potstill.training.compute import ComputeChoice


def compile_model(model: nn.Module, choice: ComputeChoice) -> nn.Module:
    """The model as it runs under `choice`: itself, or compiled by `torch.compile` where `choice.compiled` says so.

    The compiled module shares its weights with `model`, through which they are read and saved; only the forward pass
    should go through it. A small function is compiled first, so that a machine that cannot compile says so at once
    rather than in the first step.

    Raises:
        UsageError: nothing can be compiled on this machine.
    """
    if not choice.compiled:
        return model
    device = next(model.parameters()).device
    try:
        trial: Callable[[Tensor], Tensor] = torch.compile(_trial)
        trial(torch.zeros(8, device=device))
    except Exception as error:  # the compiler's errors have no common base
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        needs = "Triton and a recent GPU" if device.type == "cuda" else "a C++ compiler (g++ or clang)"
        raise UsageError(
            f"--compile does not work here: torch.compile needs {needs} and said: {reason}. "
            "Install it, or leave --compile out; the results are the same up to rounding."
        ) from error
    return cast(nn.Module, torch.compile(model, dynamic=False))


def _trial(values: Tensor) -> Tensor:
    return values.sin() + 1
