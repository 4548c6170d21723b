"""Batch norm that is folded into convolutions changes nothing, and is left alone where it would."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from timm.layers import StdConv2d
from torch import Tensor, nn
from torch.nn import functional

from potstill.sources.fusing import fuse_batch_norm

Connect = Callable[[nn.Module, nn.Module, Tensor], Tensor]
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def settled(model: nn.Module) -> nn.Module:
    """With statistics and scales that are not those of a fresh layer."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            layer.weight.data.uniform_(0.5, 2.0)
            layer.bias.data.normal_(0, 0.3)
    return model.eval().requires_grad_(False)


def norms(model: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "efficientnet_lite0", "test_efficientnet"])
def test_every_layer_is_folded_and_answers_stay(name: str) -> None:
    """Batch norm alone, with an activation of timm's inside, and after convolutions with padding of TensorFlow's."""
    model = settled(timm.create_model(name, num_classes=5))
    others = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    before, layers = model(others), norms(model)
    assert fuse_batch_norm(model, lambda: (model(IMAGES),)) == layers > 0
    assert norms(model) == 0
    assert float((model(others) - before).abs().max()) <= 1e-4 * float(before.abs().max())


class Block(nn.Module):
    """A convolution and a batch norm, connected by a function of both and of the images."""

    def __init__(
        self, connect: Callable[[nn.Module, nn.Module, Tensor], Tensor], conv: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1) if conv is None else conv
        self.norm = nn.BatchNorm2d(3)
        self._connect = connect

    def forward(self, images: Tensor) -> Tensor:
        return self._connect(self.conv, self.norm, images).mean((2, 3))


def plain(conv: nn.Module, norm: nn.Module, images: Tensor) -> Tensor:
    return norm(conv(images))  # type: ignore[no-any-return]


def beside(conv: nn.Module, norm: nn.Module, images: Tensor) -> Tensor:
    """What the convolution says is used without the norm as well."""
    maps = conv(images)
    return norm(maps) + maps  # type: ignore[no-any-return]


def between(conv: nn.Module, norm: nn.Module, images: Tensor) -> Tensor:
    """Changed in place, so that the norm is shown the same tensor with other values."""
    return norm(functional.relu_(conv(images)))  # type: ignore[no-any-return]


def twice(conv: nn.Module, norm: nn.Module, images: Tensor) -> Tensor:
    return norm(conv(conv(images)))  # type: ignore[no-any-return]


def norm_twice(conv: nn.Module, norm: nn.Module, images: Tensor) -> Tensor:
    return norm(norm(conv(images)))  # type: ignore[no-any-return]


def first(conv: nn.Module, norm: nn.Module, images: Tensor) -> Tensor:
    return conv(norm(images))  # type: ignore[no-any-return]


def by_name(conv: nn.Module, norm: nn.Module, images: Tensor) -> Tensor:
    return norm(input=conv(images))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("block", "fused"),
    [
        (Block(plain), 1),
        (Block(plain, nn.Conv2d(3, 3, 3, bias=False)), 1),
        (Block(beside), 0),
        (Block(between), 0),
        (Block(twice), 0),
        (Block(norm_twice), 0),
        (Block(first), 0),
        (Block(by_name), 0),
        (Block(plain, StdConv2d(3, 3, 3)), 0),  # standardises whatever weights it has
    ],
)
def test_only_what_may_be_folded_is(block: Block, fused: int) -> None:
    model = settled(block)
    before = model(IMAGES)
    assert fuse_batch_norm(model, lambda: (None, model(IMAGES))) == fused
    if fused:
        torch.testing.assert_close(model(IMAGES), before)
    else:
        assert torch.equal(model(IMAGES), before)
        assert norms(model) == 1
