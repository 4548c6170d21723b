"""The pipeline from Python, and what it must never look at."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import potstill as ps
from potstill.config import RunConfig, config_record
from potstill.errors import UsageError
from potstill.pipeline import preparation
from potstill.pipeline.preparation import resolve_config
from potstill.types import SourceWeights, Target

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def settings(models: Path) -> dict[str, Any]:
    return {
        "student": "timm/test_efficientnet",
        "student_weights": models / "student.safetensors",
        "image_size": 32,
        "steps": 3,
        "batch_size": 24,
    }


def with_other_test_labels(target: Target) -> Target:
    """The same target, every label of the test part changed."""
    changed = {image_id: (target.labels[image_id] + 1) % len(target.classes) for image_id in target.split.test}
    return replace(target, labels={**target.labels, **changed})


def with_other_hidden_labels(target: Target) -> Target:
    changed = {image_id: (label + 1) % len(target.classes) for image_id, label in target.hidden_labels.items()}
    assert changed
    return replace(target, hidden_labels=changed)


@pytest.mark.parametrize("change", [with_other_test_labels, with_other_hidden_labels])
def test_no_label_of_test_or_unlabeled_images_has_any_influence(
    digits: Path, models: Path, settings: dict[str, Any], tmp_path: Path, change: Any
) -> None:
    target = ps.open_target(digits, labels_per_class=3)
    outputs = ps.extract(target, ps.load_zoo(models / "zoo.yaml"))
    students = []
    for number, seen in enumerate((target, change(target))):
        ranking = ps.rank(outputs, seen, also=("knn", "logme"))
        weights = ps.weigh(ranking)
        run = ps.distill(seen, outputs, weights=weights, output=tmp_path / str(number), **settings)
        scores = {row.name: {name: score.score for name, score in row.scores.items()} for row in ranking.sources}
        students.append((scores, weights, (run.directory / "student" / "model.safetensors").read_bytes()))
    assert students[0] == students[1]


def test_scoring_reads_labeled_training_images_alone(digits: Path, models: Path) -> None:
    target = ps.open_target(digits, labels_per_class=3)
    outputs = ps.extract(target, ps.load_zoo(models / "zoo.yaml"))
    visible = replace(target, labels={image_id: target.labels[image_id] for image_id in target.split.labeled})
    assert ps.rank(outputs, visible).scores() == ps.rank(outputs, target).scores()
    assert ps.rank(outputs, target).scoring_images == 12


def test_a_user_function_ranks(digits: Path, models: Path) -> None:
    target = ps.open_target(digits, labels_per_class=3)
    outputs = ps.extract(target, ps.load_zoo(models / "zoo.yaml"))
    ranking = ps.rank(outputs, target, metric=lambda features, labels: float(features.shape[1]))
    widths = {name: float(each.features.shape[1]) for name, each in outputs.items() if each.features is not None}
    assert ranking.scores() == widths


def test_a_student_can_be_kept_out_of_the_disk(digits: Path, models: Path, settings: dict[str, Any]) -> None:
    target = ps.open_target(digits, labels_per_class=3)
    outputs = ps.extract(target, ps.load_zoo(models / "zoo.yaml"))
    run = ps.distill(target, outputs, weights=ps.weigh({"headless": 1.0}), **settings)
    assert run.record["weights"] == {"headless": 1.0}
    assert run.evaluation.probs.shape == (len(target.split.test), 4)
    assert not run.directory.exists()
    assert run.student.classes == target.classes


def test_given_weights_that_are_weak_are_dropped_too(digits: Path, models: Path, settings: dict[str, Any]) -> None:
    target = ps.open_target(digits, labels_per_class=3)
    outputs = ps.extract(target, ps.load_zoo(models / "zoo.yaml"))
    weights = SourceWeights("mine", {"source": 0.9, "headless": 0.1})
    run = ps.distill(target, outputs, weights=weights, min_weight=0.2, **settings)
    assert run.record["weights"] == {"source": 1.0, "headless": 0.0}


def test_minutes_become_steps_once(digits: Path, settings: dict[str, Any]) -> None:
    target = ps.open_target(digits)
    config = RunConfig(**{**settings, "steps": None, "minutes": 0.5})
    resolved = resolve_config(config, target)
    assert resolved.minutes == 0.5  # stays as a limit
    record = config_record(resolved, digits)
    assert (record["steps"], record["minutes"]) == (resolved.steps, 0.5)  # who goes on from the file keeps both
    assert resolved.steps is not None
    assert resolved.steps > 10
    with pytest.raises(UsageError, match="too short"):
        resolve_config(replace(config, minutes=1e-7), target)


def test_a_process_times_only_what_it_sends_through_the_student_at_once(
    digits: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[int] = []

    def seconds(*_: object, batch_size: int, **__: object) -> float:
        timed.append(batch_size)
        return 0.125

    monkeypatch.setattr(preparation, "step_seconds", seconds)
    config = RunConfig(**{**settings, "steps": None, "minutes": 1.0, "batch_size": 96, "accumulation": 3})
    config = replace(config, precision="float32", memory_format="contiguous")
    target = ps.open_target(digits)
    assert resolve_config(config, target).steps == 144  # 0.9 minutes of three pieces of 1/8 second each
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert resolve_config(config, target).steps == 144  # four times the work is done at the same time
    assert timed == [32, 8]


def test_epochs_are_passes_over_the_pool_and_the_default_is_bounded(digits: Path, settings: dict[str, Any]) -> None:
    target = ps.open_target(digits)
    pool = len(target.split.pool)
    free = RunConfig(**{**settings, "steps": None})
    assert resolve_config(replace(free, epochs=4.0), target).steps == -(-4 * pool // 24)
    assert resolve_config(free, target).steps == 300


def test_the_python_example_of_the_readme_runs(
    digits: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    # Small models in place of downloaded ones; everything else as printed.
    code = code.replace('"timm/tf_efficientnet_lite0", steps=300', '"timm/test_efficientnet", **small')
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(digits)
    for file in models.iterdir():
        (tmp_path / file.name).symlink_to(file)
    small = {key: value for key, value in settings.items() if key != "student"}
    names: dict[str, Any] = {"small": small}
    exec(compile(code, "README.md", "exec"), names)
    assert 0 <= names["student"].record["accuracy"] <= 1
