"""Real images and small models that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")

IMAGES_PER_CLASS = 24
IMAGE_SIZE = 32


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("POTSTILL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def digit_images() -> dict[str, np.ndarray]:
    """Scanned digits of four classes: name -> uint8 `(24, 8, 8)`."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
    return {name: pixels[digits.target == value][:IMAGES_PER_CLASS] for value, name in enumerate(("o", "i", "z", "e"))}


def write_class_folders(images: dict[str, np.ndarray], folder: Path) -> Path:
    """Write `folder/<class>/<number>.png`."""
    for name, stack in images.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, pixels in enumerate(stack):
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory, digit_images: dict[str, np.ndarray]) -> Path:
    """A data folder of class folders with 96 scanned digits. Tests must not change it."""
    return write_class_folders(digit_images, tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture
def own_digits(tmp_path: Path, digit_images: dict[str, np.ndarray]) -> Path:
    """The same folder for a test that changes it."""
    return write_class_folders(digit_images, tmp_path / "digits")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a zoo of two sources (one has no classifier) and a student's initial weights, all random."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for file, name, classes in (
            ("source.safetensors", "test_resnet", 7),
            ("headless.safetensors", "test_efficientnet", 0),
            ("student.safetensors", "test_efficientnet", 0),
        ):
            save_file(timm.create_model(name, num_classes=classes).state_dict(), folder / file)
    (folder / "zoo.yaml").write_text(
        "sources:\n"
        f"  - {{name: source, model: timm/test_resnet, weights: source.safetensors, num_classes: 7, "
        f"image_size: {IMAGE_SIZE}, license: MIT}}\n"
        f"  - {{name: headless, model: timm/test_efficientnet, weights: headless.safetensors, num_classes: 0, "
        f"image_size: {IMAGE_SIZE}}}\n",
        encoding="utf-8",
    )
    return folder
