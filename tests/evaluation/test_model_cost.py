"""Parameters and multiply-accumulates against hand-computed values; the model must come back untouched."""

import pytest
import timm
import torch
from torch import nn

from potstill.errors import UsageError
from potstill.evaluation import model_cost


def small_model():
    return nn.Sequential(
        nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, kernel_size=3, padding=1, groups=8, bias=False),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def test_convolution_and_linear_by_hand():
    convolution, depthwise, linear = 8 * 8 * 8 * 3 * 9, 8 * 8 * 8 * 9, 8 * 5
    params = (8 * 3 * 9 + 8) + 2 * 8 + 8 * 9 + (8 * 5 + 5)
    assert model_cost(small_model(), 16) == {"params": params, "macs": convolution + depthwise + linear}


def test_attention_is_counted():
    """A vision transformer by its formula: the fused attention of the CPU must not be skipped."""
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=10, depth=2)
    tokens, width = 197, 192
    patches = 196 * width * 3 * 16 * 16
    block = tokens * (4 * width * width + 8 * width * width) + 2 * tokens * tokens * width
    assert model_cost(model, 224)["macs"] == patches + 2 * block + width * 10


def test_the_model_and_the_random_state_stay_as_they_were():
    model = small_model().train()
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    model_cost(model, 16)
    assert [module.training for module in model] == [True, False, True, True, True, True, True, True]
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_modes_are_restored_after_a_failure():
    model = nn.Sequential(nn.Linear(4, 4)).train()
    with pytest.raises(RuntimeError):
        model_cost(model, 16)
    assert model.training
    assert model[0].training


def test_shared_parameters_count_once():
    layer = nn.Conv2d(3, 3, kernel_size=1, bias=False)
    assert model_cost(nn.Sequential(layer, layer), 2) == {"params": 9, "macs": 2 * 4 * 9}


def test_an_impossible_size_is_refused():
    with pytest.raises(UsageError, match="at least 1 pixel"):
        model_cost(small_model(), 0)
