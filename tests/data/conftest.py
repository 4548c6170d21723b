"""Folders of small real image files, every one with its own content."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_image(path: Path, content: str | None = None) -> Path:
    """A 4 x 4 PNG whose pixels are a function of `content` (the path by default)."""
    digest = hashlib.sha384((content or str(path)).encode()).digest()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.frombuffer(digest, np.uint8).reshape(4, 4, 3)).save(path, "PNG")
    return path


@pytest.fixture
def make_tree(tmp_path):
    """Make images below a new data folder: `make_tree({"train/cat": 3})` writes train/cat/0.png, 1.png, 2.png."""

    def make(folders: dict[str, int], root: str = "photos") -> Path:
        for folder, count in folders.items():
            for number in range(count):
                write_image(tmp_path / root / folder / f"{number}.png", f"{folder}/{number}")
        return tmp_path / root

    return make


@pytest.fixture
def make_image():
    return write_image
