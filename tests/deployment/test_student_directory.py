"""A saved student comes back the same, here and in timm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from potstill.deployment.student_directory import load_student, save_student
from potstill.errors import CheckpointError
from potstill.types import Preprocessing

CLASSES = ("ash", "birch", "übertree")


@pytest.fixture
def saved(tmp_path: Path) -> tuple[torch.nn.Module, Path]:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    preprocessing = Preprocessing(32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bicubic", 1.0)
    save_student(model, tmp_path / "student", name="timm/test_resnet", classes=CLASSES, preprocessing=preprocessing)
    return model, tmp_path


def test_comes_back_with_classes_and_preprocessing(saved: tuple[torch.nn.Module, Path]) -> None:
    model, directory = saved
    student = load_student(directory)
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        expected = torch.softmax(model(images), dim=1).numpy()
    np.testing.assert_allclose(student.probs(images), expected, atol=1e-6)
    assert student.classes == CLASSES
    assert student.preprocessing == Preprocessing(32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bicubic", 1.0)


def test_timm_loads_it_as_a_local_directory(saved: tuple[torch.nn.Module, Path]) -> None:
    model, directory = saved
    loaded = timm.create_model(f"local-dir:{directory / 'student'}", pretrained=True).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(images), model(images))
    data = timm.data.resolve_data_config(model=loaded)
    assert tuple(data["mean"]) == (0.4, 0.5, 0.6)
    assert loaded.pretrained_cfg["label_names"] == list(CLASSES)


def test_timm_loads_an_architecture_of_one_size_at_another(tmp_path: Path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=96).eval()
    preprocessing = Preprocessing(96, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    save_student(model, tmp_path, name="timm/vit_tiny_patch16_224", classes=CLASSES, preprocessing=preprocessing)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(loaded(images), model(images))
        assert load_student(tmp_path).probs(images).shape == (1, 3)


def test_absent_and_damaged_students_are_named(saved: tuple[torch.nn.Module, Path]) -> None:
    _, directory = saved
    with pytest.raises(CheckpointError, match="no student in"):
        load_student(directory / "nowhere")
    weights = directory / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="damaged"):
        load_student(directory)
