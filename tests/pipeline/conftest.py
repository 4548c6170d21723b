"""Settings of a tiny student with a zoo of two sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.config import RunConfig, build_config


@pytest.fixture
def config(models: Path, tmp_path: Path) -> RunConfig:
    return build_config(
        {
            "zoo": str(models / "zoo.yaml"),
            "cache_dir": tmp_path / "cache",
            "student": "timm/test_efficientnet",
            "student_weights": models / "student.safetensors",
            "image_size": 32,
            "steps": 2,
            "batch_size": 24,
            "offline": True,
            "precision": "float32",
            "memory_format": "contiguous",
            "device": "cpu",
        }
    )
