"""What this machine is, in the words that measurements are noted with. No host or user name."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path


def cpu_model() -> str:
    """The processor's name as its maker writes it, or the kind of machine where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def device_model(device: str) -> str:
    """The name of what computes: the processor, or the graphics card of "cuda" or "cuda:N"."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return cpu_model()
