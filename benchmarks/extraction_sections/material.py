"""Photos and sources for the measurements: pieces of two photographs, and models with random weights.

What a pass costs does not depend on what the weights are, and no network is needed.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from potstill import open_target
from potstill.types import SourceSpec, Target, Zoo

FOLDER = Path(__file__).resolve().parents[2] / ".build-data" / "extraction"
WIDTH, HEIGHT, QUALITY = 500, 375, 90
SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LARGE = "resnet18"
SMALL = (
    "mobilenetv3_small_050",
    "mobilenetv3_small_075",
    "lcnet_050",
    "lcnet_075",
    "mobilenetv3_small_100",
    "tinynet_e",
    "regnetx_002",
    "mnasnet_small",
)


@functools.cache
def photos(count: int) -> Target:
    """`count` JPEG files of 500 x 375 in two class folders, made on first use: mirrored pieces under varied light."""
    folder = FOLDER / f"photos-{count}"
    if not folder.exists():
        temporary = FOLDER / f"photos-{count}.unfinished"
        rng = np.random.default_rng(0)
        for number in range(count):
            name = ("china", "flower")[number % 2]
            picture = Image.fromarray(load_sample_image(f"{name}.jpg"))
            left, top = int(rng.integers(0, 640 - WIDTH)), int(rng.integers(0, 427 - HEIGHT))
            piece = picture.crop((left, top, left + WIDTH, top + HEIGHT))
            piece = ImageOps.mirror(piece) if rng.random() < 0.5 else piece
            lit = np.asarray(piece, dtype=np.float64) * rng.uniform(0.7, 1.1) + rng.normal(0, 3, (HEIGHT, WIDTH, 3))
            (temporary / name).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(lit.clip(0, 255).astype(np.uint8))
            image.save(temporary / name / f"{number:05d}.jpg", quality=QUALITY)
        temporary.rename(folder)
    return open_target(folder, test_fraction=0.0)


def source(architecture: str) -> SourceSpec:
    """A timm source of 1,000 classes at 224 pixels from a local file."""
    file = FOLDER / f"{architecture}.safetensors"
    if not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        save_file(timm.create_model(architecture, num_classes=1000).state_dict(), file)
    fed = {"image_size": SIZE, "mean": MEAN, "std": STD, "interpolation": "bilinear", "crop": 0.875}
    return SourceSpec(architecture, f"timm/{architecture}", weights=file, num_classes=1000, **fed)  # type: ignore[arg-type]


def zoo(architectures: tuple[str, ...]) -> Zoo:
    """Sources of these architectures."""
    return Zoo("measured", {name: source(name) for name in architectures})
