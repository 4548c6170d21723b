"""Sources that are fed wrongly are noticed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from potstill.cache import extract_outputs
from potstill.data import normalise, open_target, prepare_images
from potstill.errors import SourceError
from potstill.models import create_model
from potstill.sources import open_source
from potstill.sources.soundness import input_gap
from potstill.types import SourceSpec, Zoo


def test_the_gap_is_the_divergence_of_two_normal_distributions() -> None:
    layer = nn.BatchNorm2d(1, eps=0.0).eval()
    layer.running_mean, layer.running_var = torch.tensor([1.0]), torch.tensor([4.0])
    images = torch.from_numpy(np.random.default_rng(0).normal(3.0, 1.0, size=(50, 1, 20, 20))).float()
    # KL(N(3, 1) || N(1, 4)) = log 2 + (1 + 4) / 8 - 1 / 2
    assert input_gap(layer, images) == pytest.approx(np.log(2) + 5 / 8 - 1 / 2, abs=0.01)
    assert input_gap(nn.Conv2d(1, 1, 1), images) is None


def test_pixels_of_another_range_are_noticed_on_real_images(lite0: Path, photos: Path, tmp_path: Path) -> None:
    """Every right normalisation passes, on photos and on enlarged digits; bytes for shares do not."""
    target = open_target(photos)
    right = SourceSpec(
        "right", "timm/tf_efficientnet_lite0", weights=lite0, image_size=64, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    near = dataclasses.replace(right, name="near", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    bytes_ = dataclasses.replace(right, name="bytes", mean=(0.0,) * 3, std=(1 / 255,) * 3)
    zoo = Zoo("test", {spec.name: spec for spec in (right, near, bytes_)})
    outputs, errors = extract_outputs(target, zoo, list(target.files), cache_dir=tmp_path)
    assert set(outputs) == {"right", "near"}
    assert list(errors) == ["bytes"]
    assert "pixels from 0 to 1, not from 0 to 255" in errors["bytes"]
    model = create_model(right.model, weights=lite0).eval()
    at = open_source(right).preprocessing  # type: ignore[union-attr]
    for kind in ("china", "digit"):
        ids = [image_id for image_id in target.files if image_id.startswith(kind)]
        batches = prepare_images(target.files, ids, preprocessing=at)
        pixels = np.concatenate([batch for _, batch in batches])
        gap = input_gap(model, normalise(pixels, at.mean, at.std))
        assert gap is not None
        assert gap < 5


@pytest.mark.parametrize("model", ["timm/resnet18.a1_in1k", "torchvision/resnet18"])
def test_published_weights_keep_their_normalisation(model: str) -> None:
    with pytest.raises(SourceError, match=r"were trained with mean .* the zoo file says"):
        open_source(SourceSpec("a", model, mean=(0.5, 0.5, 0.5)), offline=True)
    with pytest.raises(SourceError, match="not on this machine"):
        open_source(SourceSpec("a", model, mean=(0.485, 0.456, 0.406)), offline=True)
