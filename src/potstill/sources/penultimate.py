"""Features and logits of a classifier in one pass: what goes into its last linear layer, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from potstill.errors import SourceError
from potstill.sources.frozen import Answers


def classifier_names(model: nn.Module, num_classes: int) -> tuple[str, ...]:
    """The names of the model's linear layers with as many outputs as there are classes, in their order.

    >>> classifier_names(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)), 3)
    ('1',)
    """
    return tuple(
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features == num_classes
    )


def answering(
    model: nn.Module, classifier: str | None, logits_of: Callable[[Any], Tensor] = lambda output: output
) -> Callable[[Tensor], Answers]:
    """The model as an answer: features are the input of the layer named `classifier`; None gives no features.

    `logits_of` takes the logits out of what the model returns.
    """
    seen: list[Tensor] = []
    if classifier is not None:
        model.get_submodule(classifier).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    def answer(images: Tensor) -> Answers:
        seen.clear()
        logits = logits_of(model(images))
        if classifier is None:
            return None, logits
        if len(seen) != 1:
            raise SourceError(f"The classifier '{classifier}' was used {len(seen)} times for one batch, expected once.")
        return seen.pop(), logits

    return answer


def final_classifier(
    model: nn.Module, num_classes: int, logits_of: Callable[[Any], Tensor], shape: tuple[int, int, int], device: str
) -> str | None:
    """The linear layer that gives the logits, by trying on an image of this shape; None if none does alone."""
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    for name in reversed(classifier_names(model, num_classes)):
        seen: list[Tensor] = []
        handle = model.get_submodule(name).register_forward_hook(lambda _, __, output, seen=seen: seen.append(output))
        try:
            with torch.inference_mode():
                logits = logits_of(model(noise[None]))
        finally:
            handle.remove()
        if len(seen) == 1 and seen[0].shape == logits.shape and torch.allclose(seen[0], logits):
            return name
    return None
