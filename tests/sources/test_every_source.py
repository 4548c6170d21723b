"""The shared battery of all kinds of source: real images through the cache, checked against the model's own library."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import timm.data
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from onnx_export import export_onnx

from potstill.cache import drift, extract_source
from potstill.data import normalise, open_target, prepare_images
from potstill.errors import SourceError
from potstill.models import create_model
from potstill.similarity import SIMILARITIES
from potstill.sources import FrozenSource, open_source, source_identity
from potstill.types import Preprocessing, SourceOutputs, SourceSpec, Target

KINDS = ("timm", "torchvision", "hf", "onnx", "callable", "arrays")
CLASSES = 5
SIZE = 32
NORMAL: dict[str, Any] = {"image_size": SIZE, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
MODULE = """
import torch, timm
from safetensors.torch import load_file
model = timm.create_model("test_resnet", num_classes=5)
model.load_state_dict(load_file("{weights}"))
model.eval()

def answer(images):
    with torch.no_grad():
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        return {{"features": features.numpy(), "logits": model.fc(features)}}

def pixels(images):
    return {{"features": images.flatten(1)}}

def opinion(images):
    return {{"logits": images.mean(dim=(2, 3))}}

def certain(images):
    return {{"logits": torch.softmax(model(images), dim=1)}}

def wrong(images):
    return images.mean(dim=(2, 3))
"""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A source, and what its own library says of the images: features and logits, float32, in the order of the ids."""

    spec: SourceSpec
    features: np.ndarray
    logits: np.ndarray
    files: tuple[Path, ...]


@pytest.fixture(scope="module")
def target(digits: Path) -> Target:
    return open_target(digits)


def pictures(target: Target, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    return torch.stack([transform(Image.open(path).convert("RGB")) for path in target.files.values()])


def prepared(target: Target, preprocessing: Preprocessing) -> Tensor:
    batches = prepare_images(target.files, list(target.files), preprocessing=preprocessing)
    return torch.cat([normalise(pixels, preprocessing.mean, preprocessing.std) for _, pixels in batches])


def answers(model: nn.Module, head: nn.Module, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and what goes into the head, by a plain forward pass in torch's default memory order."""
    seen: list[Tensor] = []
    handle = head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.no_grad():
        given = model(images.contiguous())
    handle.remove()
    return seen[0].numpy(), (given if isinstance(given, Tensor) else given.logits).numpy()


def timm_model(folder: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(3)
    model = create_model("timm/test_resnet", num_classes=CLASSES).eval()
    save_file(model.state_dict(), folder / "weights.safetensors")
    return model, folder / "weights.safetensors"


def make_timm(folder: Path, target: Target) -> Subject:
    model, weights = timm_model(folder)
    spec = SourceSpec("timm", "timm/test_resnet", weights=weights, num_classes=CLASSES, **NORMAL)
    cfg = timm.data.resolve_model_data_config(model)
    own = {"interpolation": cfg["interpolation"], "crop_pct": cfg["crop_pct"]}
    transform = timm.data.create_transform((3, SIZE, SIZE), mean=NORMAL["mean"], std=NORMAL["std"], **own)
    return Subject(spec, *answers(model, model.fc, pictures(target, transform)), (weights,))


def make_torchvision(folder: Path, target: Target) -> Subject:
    torch.manual_seed(4)
    model = torchvision.models.resnet18(num_classes=CLASSES).eval()
    weights = folder / "weights.safetensors"
    save_file(model.state_dict(), weights)
    transforms = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    spec = SourceSpec("torchvision", "torchvision/resnet18", weights=weights, num_classes=CLASSES)
    return Subject(spec, *answers(model, model.fc, pictures(target, transforms)), (weights,))


def make_hf(folder: Path, target: Target) -> Subject:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(5)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], id2label={k: f"class {k}" for k in range(CLASSES)}
    )
    model = transformers.ResNetForImageClassification(config).eval()
    model.save_pretrained(folder / "model")
    processor = transformers.ViTImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=[0.4, 0.5, 0.6])
    processor.save_pretrained(folder / "model")
    images = pictures(target, lambda image: processor(image, return_tensors="pt")["pixel_values"][0])
    spec = SourceSpec("hf", "hf/somebody/resnet", weights=folder / "model")
    return Subject(spec, *answers(model, model.classifier[1], images), (folder / "model",))


def make_onnx(folder: Path, target: Target) -> Subject:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, weights = timm_model(folder)
    weights.unlink()
    file = export_onnx(model, folder / "model.onnx", SIZE)
    outputs = {"features_output": "features", "logits_output": "logits"}
    spec = SourceSpec("onnx", "onnx", file=file, **outputs, **NORMAL)
    images = prepared(target, Preprocessing(**NORMAL))
    return Subject(spec, *answers(model, model.fc, images), tuple(folder.glob("model.onnx*")))


def make_callable(folder: Path, target: Target) -> Subject:
    model, weights = timm_model(folder)
    file = folder / "models.py"
    file.write_text(MODULE.format(weights=weights.as_posix()))
    spec = SourceSpec("callable", "callable", callable="models:answer", file=file, weights=weights, **NORMAL)
    return Subject(spec, *answers(model, model.fc, prepared(target, Preprocessing(**NORMAL))), (file, weights))


def make_arrays(folder: Path, target: Target) -> Subject:
    rng = np.random.default_rng(6)
    ids = list(target.files)
    features = rng.normal(size=(len(ids), 12)).astype(np.float32)
    logits = rng.normal(size=(len(ids), CLASSES))
    order = rng.permutation(len(ids))  # rows stand in an order of their own
    np.save(folder / "features.npy", features[order])
    np.save(folder / "logits.npy", logits[order])
    lines = [f"{ids[row]},{target.digests[ids[row]]}\n" for row in order]
    (folder / "paths.csv").write_text("path,sha256\n" + "".join(lines))
    spec = SourceSpec(
        "arrays",
        "arrays",
        features=folder / "features.npy",
        logits=folder / "logits.npy",
        paths=folder / "paths.csv",
    )
    return Subject(spec, features, logits.astype(np.float32), tuple(folder.iterdir()))


MAKERS: dict[str, Callable[[Path, Target], Subject]] = {
    "timm": make_timm,
    "torchvision": make_torchvision,
    "hf": make_hf,
    "onnx": make_onnx,
    "callable": make_callable,
    "arrays": make_arrays,
}


@pytest.fixture(params=KINDS)
def subject(request: pytest.FixtureRequest, tmp_path: Path, target: Target) -> Subject:
    folder = tmp_path / "files"
    folder.mkdir()
    return MAKERS[request.param](folder, target)


def extracted(spec: SourceSpec, target: Target, tmp_path: Path, **settings: Any) -> SourceOutputs:
    return extract_source(spec, target, list(target.files), cache_dir=tmp_path / "cache", offline=True, **settings)


def assert_same(found: SourceOutputs, features: np.ndarray, logits: np.ndarray) -> None:
    """Features within 1e-3 of the largest (float16 rounds by 5e-4), probabilities within 1e-3, the same first class."""
    rows = np.arange(len(features))
    assert found.features is not None
    assert found.logits is not None
    stored = np.asarray(found.features[rows], dtype=np.float64)
    assert np.abs(stored - features).max() <= 1e-3 * np.abs(features).max()
    wanted = np.exp(logits - logits.max(axis=1, keepdims=True))
    wanted /= wanted.sum(axis=1, keepdims=True)
    probs = found.logits.probs(rows)
    assert np.abs(probs - wanted).max() <= 1e-3
    clear = np.diff(np.sort(wanted, axis=1)[:, -2:], axis=1)[:, 0] > 2e-3
    assert clear.mean() > 0.5
    assert np.array_equal(probs.argmax(axis=1)[clear], wanted.argmax(axis=1)[clear])


def test_the_answers_are_those_of_the_models_own_library(subject: Subject, target: Target, tmp_path: Path) -> None:
    found = extracted(subject.spec, target, tmp_path)
    assert_same(found, subject.features, subject.logits)
    assert found.label_space == "source"
    assert found.cost.forwards == (0 if subject.spec.model == "arrays" else len(target.files))


def test_what_was_answered_once_needs_neither_the_model_nor_its_files(
    subject: Subject, target: Target, tmp_path: Path
) -> None:
    first = extracted(subject.spec, target, tmp_path)
    for path in subject.files:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = extracted(subject.spec, target, tmp_path)
    assert again.cost.forwards == 0
    assert again.key == first.key
    assert np.array_equal(np.asarray(first.features), np.asarray(again.features))
    assert again.classes == first.classes
    with pytest.raises(SourceError, match=f"'{subject.spec.name}'.* not found"):
        extracted(subject.spec, target, tmp_path / "another")


def test_a_changed_byte_of_any_file_is_another_source(subject: Subject, target: Target, tmp_path: Path) -> None:
    before = source_identity(subject.spec)
    assert json.loads(json.dumps(before)) == before
    for path in subject.files:
        file = next(iter(path.glob("*.safetensors"))) if path.is_dir() else path
        content = file.read_bytes()
        file.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        assert source_identity(subject.spec) != before
        file.write_bytes(content)
    assert source_identity(subject.spec) == before
    if subject.spec.model != "arrays":
        for change in ({"image_size": 48}, {"mean": (0.1, 0.2, 0.3)}, {"crop": 0.5}, {"interpolation": "nearest"}):
            assert source_identity(dataclasses.replace(subject.spec, **change)) != before, change


def test_another_number_of_classes_is_refused_and_none_gives_features_alone(
    subject: Subject, target: Target, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"'.*num_classes|expected logits of 9 classes|has 5 classes"):
        open_source(dataclasses.replace(subject.spec, num_classes=9), offline=True)
    if subject.spec.model.startswith("timm/"):
        return  # a file with a classifier does not fit a timm model without one, and says so
    found = extracted(dataclasses.replace(subject.spec, num_classes=0), target, tmp_path)
    assert found.logits is None
    assert found.label_space == "clusters"
    features = np.asarray(found.features, dtype=np.float64)
    assert np.abs(features - subject.features).max() <= 1e-3 * np.abs(subject.features).max()


def test_damaged_files_are_an_error_of_this_source(subject: Subject) -> None:
    for path in subject.files:
        file = next(iter(path.glob("*.safetensors"))) if path.is_dir() else path
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 3])
        if file.suffix != ".py" and not (subject.spec.model == "callable" and file == subject.spec.weights):
            with pytest.raises(SourceError, match=f"{subject.spec.name}|{file.name}"):
                open_source(subject.spec, offline=True)
        file.write_bytes(content)


def test_batches_of_any_size_give_the_same_answers(subject: Subject, target: Target, tmp_path: Path) -> None:
    one = extracted(subject.spec, target, tmp_path / "one", batch_size=1)
    many = extracted(subject.spec, target, tmp_path / "many", batch_size=64)
    for found in (one, many):
        assert_same(found, subject.features, subject.logits)


def test_what_a_source_lacks_is_said_by_what_needs_it(target: Target, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    spec = make_callable(folder, target).spec
    plain = extracted(dataclasses.replace(spec, callable="models:pixels"), target, tmp_path)
    assert plain.logits is None
    assert plain.features is not None
    assert plain.features.shape == (len(target.files), 3 * SIZE * SIZE)
    opinion = extracted(dataclasses.replace(spec, callable="models:opinion"), target, tmp_path)
    assert opinion.features is None
    assert opinion.logits is not None
    assert opinion.logits.num_classes == 3
    assert "features" in SIMILARITIES["parc"].needs
    assert "probs" in SIMILARITIES["leep"].needs


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "arrays"])
def test_size_is_told_where_the_model_can_be_looked_into(kind: str, target: Target, tmp_path: Path) -> None:
    source = open_source(MAKERS[kind](tmp_path, target).spec, offline=True)
    assert isinstance(source, FrozenSource)
    assert (source.params is None) == (source.depth is None) == (kind in ("onnx", "callable"))


def test_another_version_of_the_models_own_library_is_compared_once(
    subject: Subject, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted(subject.spec, target, tmp_path)
    kind = subject.spec.model.partition("/")[0]
    assert set(drift.library_versions(kind)) == set(drift.LIBRARIES[kind])
    monkeypatch.setattr(drift, "library_versions", lambda _: {"library": "9"})
    compared = 0 if kind == "arrays" else drift.COMPARED_ROWS
    assert extracted(subject.spec, target, tmp_path).cost.forwards == compared
    assert extracted(subject.spec, target, tmp_path).cost.forwards == 0
