"""Every colour operation against torchvision's, one image at a time, on real photographs."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torchvision.transforms.v2 import functional as reference

from potstill.data import colour

STRENGTHS = torch.tensor([0.05, 0.4, 0.77, 0.95])


def photos():
    flower, china = load_sample_image("flower.jpg"), load_sample_image("china.jpg")
    crops = [flower[100:132, 200:232], china[0:32, 300:332], china[200:232, 100:132], flower[0:32, 0:32]]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (colour.adjust_brightness, reference.adjust_brightness),
        (colour.adjust_colour, reference.adjust_saturation),
        (colour.adjust_contrast, reference.adjust_contrast),
        (colour.adjust_sharpness, reference.adjust_sharpness),
        (colour.solarize, reference.solarize),
    ],
)
def test_operations_with_a_strength(ours, theirs):
    images = photos().float() / 255
    actual = ours(images.clone(), STRENGTHS)
    for row, strength in enumerate(STRENGTHS.tolist()):
        torch.testing.assert_close(actual[row], theirs(images[row], strength), atol=2e-4, rtol=0)


def test_posterize_keeps_the_high_bits():
    images = photos()
    bits = torch.tensor([4, 5, 7, 8])
    actual = colour.posterize(images.float() / 255, bits) * 255
    for row, count in enumerate(bits.tolist()):
        assert torch.equal(actual[row].round().to(torch.uint8), reference.posterize(images[row], count))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(colour.equalize, reference.equalize), (colour.autocontrast, reference.autocontrast)],
)
def test_operations_on_the_histogram(ours, theirs):
    images = photos()
    images[1, 0] = 77  # a flat channel
    images[2] = images[2] // 64  # few levels
    actual = ours(images.float() / 255)
    if ours is colour.equalize:
        for row in range(4):
            assert torch.equal((actual[row] * 255).round().to(torch.uint8), theirs(images[row]))
    else:
        torch.testing.assert_close(actual, theirs(images.float() / 255), atol=1e-5, rtol=0)


def test_results_stay_in_range():
    images = photos().float() / 255
    for operation in (colour.adjust_brightness, colour.adjust_colour, colour.adjust_contrast, colour.adjust_sharpness):
        result = operation(images, STRENGTHS * 2)
        assert result.min() >= 0
        assert result.max() <= 1
