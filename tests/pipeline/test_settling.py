"""A directory keeps the length that it was started with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import potstill as ps
from potstill.config import RunConfig, build_config
from potstill.errors import UsageError
from potstill.pipeline import preparation
from potstill.pipeline.settling import settle_config
from potstill.reporting import read_yaml

Settle = Callable[..., RunConfig]


@pytest.fixture
def settle(digits: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settle:
    """Settles settings of one directory; a step takes `step_seconds`."""
    target = ps.open_target(digits)

    def settled(step_seconds: float = 0.125, **settings: Any) -> RunConfig:
        monkeypatch.setattr(preparation, "step_seconds", lambda *_, **__: step_seconds)
        common = {"student": "timm/test_efficientnet", "student_weights": models / "student.safetensors"}
        machine = {"image_size": 32, "precision": "float32", "memory_format": "contiguous", "device": "cpu"}
        config = build_config({**common, **machine, **settings})
        return settle_config(config, target, data=digits, output=tmp_path, command={"command": "distill"})

    return settled


def test_planned_minutes_are_not_planned_again(settle: Settle, tmp_path: Path) -> None:
    first = settle(minutes=1)
    assert (first.steps, first.minutes) == (432, 1)
    assert settle(step_seconds=0.5, minutes=1) == first


def test_the_limit_may_change(settle: Settle, tmp_path: Path) -> None:
    settle(minutes=1)
    longer = settle(minutes=3)
    assert (longer.steps, longer.minutes) == (432, 3)
    assert read_yaml(tmp_path / "config.yaml")["minutes"] == 3


def test_minutes_stand_beside_passes_and_steps(settle: Settle) -> None:
    by_passes = settle(epochs=3, minutes=60)
    assert by_passes.minutes == 60
    assert settle(epochs=3, minutes=60) == by_passes


def test_another_length_is_refused(settle: Settle) -> None:
    settle(steps=100, minutes=5)
    with pytest.raises(UsageError, match="steps: 100 -> 1000"):
        settle(steps=1000, minutes=5)
