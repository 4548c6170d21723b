"""What a model costs: its parameters, and the multiply-accumulate operations of one image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from potstill.errors import UsageError


def model_cost(model: nn.Module, image_size: int) -> dict[str, int]:
    """Parameters and multiply-accumulates of `model` on one RGB image of `image_size` x `image_size` pixels.

    `params` counts each shared parameter once. `macs` counts the matrix products, convolutions and attention
    of one forward in evaluation mode (PyTorch's own counter, two operations a multiply-accumulate); bias,
    normalisation, activations and pooling are not counted. The model keeps its training mode, device,
    weights and buffers, and the random state is left as it was.

    Raises:
        UsageError: `image_size` is below 1.

    >>> from torch import nn
    >>> model_cost(nn.Conv2d(3, 8, kernel_size=3, padding=1), 10)
    {'params': 224, 'macs': 21600}
    """
    if image_size < 1:
        raise UsageError(f"Expected an image size of at least 1 pixel, got {image_size}.")
    tensor = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    image = torch.zeros(1, 3, image_size, image_size, device=tensor.device, dtype=tensor.dtype)
    counter = FlopCounterMode(display=False)
    # The fused attention kernel of the CPU is unknown to the counter; the plain one is made of matrix products.
    with _undisturbed(model, tensor.device), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(image)
    return {
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "macs": int(counter.get_total_flops()) // 2,
    }


@contextlib.contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model.eval()
        try:
            yield
        finally:
            # Not model.train(mode): parts of the model may have been put in evaluation mode on purpose.
            for module, mode in modes:
                module.training = mode
