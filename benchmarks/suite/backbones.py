"""Two unrelated backbones that look for near-duplicates: a photograph classifier and one that knows drawn strokes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import interpolate

from potstill.demo import STUDENT, student_weights

ROOT = Path(__file__).resolve().parents[2]
IMAGENET = ROOT / ".build-data" / "imagenet_weights" / "tf_efficientnet_lite0.safetensors"
IMAGENET_SIDE, STROKES_SIDE = 64, 32
BATCH = 256


def backbone_features(images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    """Pooled features `(N, D)` of images `(N, S, S, 3)` by each of the two backbones."""
    if not IMAGENET.exists():
        raise SystemExit("ImageNet weights are missing; first run: python benchmarks/imagenet_weights/convert.py")
    photographs = timm.create_model("tf_efficientnet_lite0")
    photographs.load_state_dict(load_file(IMAGENET))
    photographs.reset_classifier(0)
    strokes = timm.create_model(STUDENT.removeprefix("timm/"), num_classes=0)
    strokes.load_state_dict(load_file(student_weights()), strict=False)
    return [_features(photographs, images, IMAGENET_SIDE), _features(strokes, images, STROKES_SIDE)]


def _features(model: nn.Module, images: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.float32]:
    model = model.eval().to(memory_format=torch.channels_last)
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).float() / 127.5 - 1
            batch = interpolate(batch, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
            found.append(model(batch.contiguous(memory_format=torch.channels_last)).numpy())
    return np.concatenate(found).astype(np.float32)
