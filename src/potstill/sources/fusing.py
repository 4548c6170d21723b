"""Batch norm of a frozen model is a scale and a shift for every channel: the convolution before it can do that itself.

A sixth to a third of the time of a small network goes into these layers. Which convolution a layer follows is seen by
showing the model an image; whether it follows nothing else is seen by asking the model again afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from potstill.errors import SourceError

LARGEST_MOVE = 1e-4
"""Of the largest value; rounding moves answers by less than half of that, mostly by a hundredth."""

Pair = tuple[nn.Conv2d, str, nn.BatchNorm2d]
"""A convolution, and the name and the layer of the batch norm that alone takes its output."""


def fuse_batch_norm(model: nn.Module, answers: Callable[[], Sequence[Tensor | None]]) -> int:
    """Fold batch norm layers into convolutions, in place; how many, 0 where that would change what the model says.

    `answers` shows the model, which is in evaluation mode, the same images every time.
    """
    own: list[Tensor | None] = []
    pairs = _pairs(model, lambda: own.extend(answers()))
    before = [(conv, conv.weight, conv.bias) for conv, _, _ in pairs]
    for conv, name, norm in pairs:
        _fold(conv, norm)
        _replace(model, name, nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity())
    if pairs and not _still(own, answers):
        for (conv, weight, bias), (_, name, norm) in zip(before, pairs, strict=True):
            conv.weight, conv.bias = weight, bias
            _replace(model, name, norm)
        return 0
    return len(pairs)


def _still(own: Sequence[Tensor | None], answers: Callable[[], Sequence[Tensor | None]]) -> bool:
    try:
        return all(map(_agree, own, answers()))
    except SourceError:  # values that are not finite, say
        return False


def _agree(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool((one - other).abs().max() <= LARGEST_MOVE * one.abs().max())


def _pairs(model: nn.Module, show: Callable[[], None]) -> list[Pair]:
    """Batch norm layers that are shown the output of a convolution, where both are used once."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the outputs are held, so that no other one has the same id
    used: list[nn.Module] = []
    found: list[Pair] = []

    def after(layer: nn.Module, _: object, output: Tensor) -> None:
        used.append(layer)
        if isinstance(layer, nn.Conv2d):
            made[id(output)] = layer, output

    def before(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            conv = made.get(id(inputs[0]), (None,))[0] if inputs else None
            if conv is not None and isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
                found.append((conv, name, layer))

        return look

    with ExitStack() as hooks:
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d):
                hooks.callback(layer.register_forward_hook(after).remove)
            elif type(layer) in (nn.BatchNorm2d, BatchNormAct2d):
                hooks.callback(layer.register_forward_pre_hook(before(name)).remove)
                hooks.callback(layer.register_forward_hook(after).remove)
        show()
    return [pair for pair in found if used.count(pair[0]) == used.count(pair[2]) == 1]


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """In float64, so that folding itself rounds once, and so on the processor, as not every device has it."""
    tensors: Any = (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    exact: list[Any] = [None if each is None else each.detach().cpu().double() for each in tensors]
    weight, bias, mean, var, scale, shift = exact
    fused = fuse_conv_bn_weights(weight, bias, mean, var, norm.eps, scale, shift)
    conv.weight, conv.bias = (nn.Parameter(each.to(conv.weight), requires_grad=False) for each in fused)


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)
