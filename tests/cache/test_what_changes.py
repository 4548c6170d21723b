"""Exactly what a change affects is computed again: images, names, weights, preprocessing, decoder, settings."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from potstill import open_target
from potstill.cache import extract_outputs
from potstill.types import SourceSpec, Target, Zoo

EACH = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten images."""
    rng = np.random.default_rng(0)
    for name in ("birch", "oak"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(EACH):
            save_image(tmp_path / "data" / name / f"{number}.png", rng)
    return tmp_path / "data"


@pytest.fixture
def zoo(new_source: Callable[..., SourceSpec]) -> Zoo:
    specs = [new_source("first"), new_source("second", num_classes=3, seed=2)]
    return Zoo("two", {spec.name: spec for spec in specs})


def save_image(path: Path, rng: np.random.Generator) -> None:
    Image.fromarray(rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(path)


def passes(folder: Path, zoo: Zoo, cache_dir: Path) -> dict[str, int]:
    """Images that went through each source when all images of the folder are asked for."""
    target: Target = open_target(folder, test_fraction=0.0, cache_dir=cache_dir)
    outputs, errors = extract_outputs(target, zoo, sorted(target.files), cache_dir=cache_dir)
    assert not errors
    return {name: each.cost.forwards for name, each in outputs.items()}


def nothing(folder: Path) -> None:
    pass


def add(folder: Path) -> None:
    for number in (10, 11):
        save_image(folder / "oak" / f"{number}.png", np.random.default_rng(number))


def remove(folder: Path) -> None:
    (folder / "oak" / "3.png").unlink()


def rename(folder: Path) -> None:
    (folder / "oak" / "3.png").rename(folder / "oak" / "a better name.png")


def move_to_another_class(folder: Path) -> None:
    (folder / "oak" / "3.png").rename(folder / "birch" / "from oak.png")


def change(folder: Path) -> None:
    save_image(folder / "oak" / "3.png", np.random.default_rng(33))


def save_again(folder: Path) -> None:
    """Other bytes of the same pixels: content is compared, not what it shows."""
    path = folder / "oak" / "3.png"
    image = Image.open(path)
    image.load()
    image.save(path, compress_level=0)


def copy(folder: Path) -> None:
    shutil.copy(folder / "oak" / "3.png", folder / "oak" / "copy.png")


def touch(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.touch()


@pytest.mark.parametrize(
    ("edit", "computed"),
    [
        (nothing, 0),
        (add, 2),
        (remove, 0),
        (rename, 0),
        (move_to_another_class, 0),
        (change, 1),
        (save_again, 1),
        (copy, 0),
        (touch, 0),
    ],
)
def test_images(edit: Callable[[Path], None], computed: int, folder: Path, zoo: Zoo, tmp_path: Path) -> None:
    assert passes(folder, zoo, tmp_path / "cache") == {"first": 20, "second": 20}
    edit(folder)
    assert passes(folder, zoo, tmp_path / "cache") == {"first": computed, "second": computed}
    assert passes(folder, zoo, tmp_path / "cache") == {"first": 0, "second": 0}


def with_other_weights(spec: SourceSpec) -> SourceSpec:
    """One byte of the numbers, not of the header."""
    assert spec.weights is not None
    content = bytearray(spec.weights.read_bytes())
    content[-2] ^= 1
    spec.weights.write_bytes(content)
    return spec


def with_moved_weights(spec: SourceSpec) -> SourceSpec:
    assert spec.weights is not None
    return replace(spec, weights=spec.weights.rename(spec.weights.with_name("moved.safetensors")))


@pytest.mark.parametrize(
    ("edit", "computed"),
    [
        (with_other_weights, 20),
        (with_moved_weights, 0),
        (lambda spec: replace(spec, image_size=48), 20),
        (lambda spec: replace(spec, crop=0.9), 20),
        (lambda spec: replace(spec, interpolation="nearest"), 20),
        (lambda spec: replace(spec, mean=(0.4, 0.4, 0.4)), 20),
        (lambda spec: replace(spec, std=(0.3, 0.3, 0.3)), 20),
        (lambda spec: replace(spec, license="MIT"), 0),
        (lambda spec: replace(spec, classes=tuple("abcde")), 0),
    ],
)
def test_one_source(
    edit: Callable[[SourceSpec], SourceSpec], computed: int, folder: Path, zoo: Zoo, tmp_path: Path
) -> None:
    passes(folder, zoo, tmp_path / "cache")
    edited = Zoo("two", {**zoo.sources, "first": edit(zoo.sources["first"])})
    assert passes(folder, edited, tmp_path / "cache") == {"first": computed, "second": 0}
    assert passes(folder, edited, tmp_path / "cache") == {"first": 0, "second": 0}


def test_the_name_of_a_source_is_only_a_name(folder: Path, zoo: Zoo, tmp_path: Path) -> None:
    passes(folder, zoo, tmp_path / "cache")
    renamed = Zoo("two", {"again": replace(zoo.sources["first"], name="again")})
    assert passes(folder, renamed, tmp_path / "cache") == {"again": 0}


def test_another_decoder_decodes_everything_anew(
    folder: Path, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes(folder, zoo, tmp_path / "cache")
    installed = PIL.__version__
    monkeypatch.setattr(PIL, "__version__", "99.0")
    assert passes(folder, zoo, tmp_path / "cache") == {"first": 20, "second": 20}
    monkeypatch.setattr(PIL, "__version__", installed)
    assert passes(folder, zoo, tmp_path / "cache") == {"first": 0, "second": 0}
