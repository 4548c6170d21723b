"""Sources are needed once: when their files are gone, everything that was learned from them can be had again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]

METHODS = "transfer,probe,nearest,equal,weighted,stacked,auto"
TIMED = ("train_seconds",)


def test_comparing_without_the_weights_gives_the_same_numbers(
    potstill: Run, digits: Path, models: Path, student_options: list[str], tmp_path: Path
) -> None:
    own = tmp_path / "models"
    shutil.copytree(models, own)
    options = [option.replace(str(models), str(own)) for option in student_options]
    command = ["compare", digits, "--labels-per-class", 4, "--seeds", 2, *options, "--methods", METHODS, "--json"]
    command += ["--cache-dir", tmp_path / "cache", "--offline"]
    first = potstill(*command, "--output", tmp_path / "first")
    assert first.code == 0, first.err
    for name in ("source.safetensors", "headless.safetensors"):
        (own / name).unlink()
    second = potstill(*command, "--output", tmp_path / "second")
    assert second.code == 0, second.err
    assert len(first.json["runs"]) == 2 * len(METHODS.split(","))
    for before, after in zip(first.json["runs"], second.json["runs"], strict=True):
        assert set(before) >= {"accuracy", "nll", "weights"}
        assert {key: before[key] for key in before if key not in TIMED} == {
            key: after[key] for key in after if key not in TIMED
        }
    students = [sorted((tmp_path / name).rglob("*.safetensors")) for name in ("first", "second")]
    assert len(students[0]) >= 2 * 5  # auto takes over the student of another method
    for before, after in zip(*students, strict=True):
        assert before.read_bytes() == after.read_bytes(), before
