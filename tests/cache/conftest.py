"""Small targets on disk and sources with random weights at 32 pixels."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from potstill.models import create_model
from potstill.types import SourceSpec, Split, Target


def make_target(folder, count):
    """`count` different random images; ids are 000.png, 001.png, ..."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    files = {}
    for number in range(count):
        path = folder / f"{number:03d}.png"
        Image.fromarray(generator.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(path)
        files[path.name] = path
    return target_of(files)


def target_of(files):
    """A target without labels from image id -> path."""
    digests = {image_id: hashlib.sha256(path.read_bytes()).hexdigest() for image_id, path in files.items()}
    split = Split(labeled=(), unlabeled=tuple(files), val=(), test=(), split_seed=0, seed=0)
    return Target(
        name="noise",
        root=Path(),
        layout="folders",
        classes=("a", "b"),
        files=files,
        digests=digests,
        labels={},
        hidden_labels={},
        groups={},
        split=split,
    )


def make_source(folder, name, *, num_classes, seed):
    """A source with random weights in a local file."""
    torch.manual_seed(seed)
    path = folder / f"{name}.safetensors"
    save_file(create_model("timm/test_resnet", num_classes=num_classes).state_dict(), path)
    return SourceSpec(
        name=name, model="timm/test_resnet", weights=path, num_classes=num_classes, image_size=32, crop=1.0
    )


@pytest.fixture
def target(tmp_path):
    """Twenty images."""
    return make_target(tmp_path / "images", 20)


@pytest.fixture
def thirty(tmp_path):
    """Thirty images; the first twenty are those of `target`."""
    return make_target(tmp_path / "thirty", 30)


@pytest.fixture
def new_source(tmp_path):
    """Function: name, num_classes and seed -> a test_resnet with random weights."""
    return lambda name, num_classes=5, seed=0: make_source(tmp_path, name, num_classes=num_classes, seed=seed)


@pytest.fixture
def spec(new_source):
    """A source with five classes."""
    return new_source("five")


@pytest.fixture
def headless(new_source):
    """A source without a classifier."""
    return new_source("headless", num_classes=0, seed=1)
