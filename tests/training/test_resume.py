"""A run that was stopped and goes on ends in the same bits: what must be in a checkpoint is in it."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn

from potstill.baselines.softmatch import SoftMatch
from potstill.baselines.supervised import supervised_objective
from potstill.errors import CheckpointError, Interrupted
from potstill.training.batches import BatchPlan, TrainingBatches
from potstill.training.checkpoint import Checkpoint, load_checkpoint, previous_of
from potstill.training.compute import ComputeChoice
from potstill.training.loop import Trained, train_student
from potstill.training.mixing import mixed
from potstill.training.optimization import CheckpointPolicy, Optimization
from potstill.training.student import Student
from potstill.types import ViewKind

STEPS, STOP_AFTER, ROWS = 5, 3, 12
SETTINGS = Optimization(steps=STEPS, lr=0.05, ema=0.9, seed=3)


class RandomViews:
    """Images of random pixels, a function of row, pass and draw."""

    def views(self, rows: np.ndarray, kind: ViewKind, *, epoch: np.ndarray, draw: int) -> torch.Tensor:
        images = [
            np.random.default_rng([int(row), int(number), draw]).integers(0, 256, (3, 32, 32), dtype=np.uint8)
            for row, number in zip(rows, epoch, strict=True)
        ]
        return torch.from_numpy(np.stack(images))

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        return ((images.float() - 128) / 64).contiguous(memory_format=torch.channels_last)


def train(
    settings: Optimization, *, drop_rate: float = 0.0, mixup: float = 0.0, remembering: bool = False, **options: Any
) -> Trained:
    torch.manual_seed(5)
    student = Student(timm.create_model("test_efficientnet", num_classes=3, drop_rate=drop_rate), {})
    batches = TrainingBatches(
        RandomViews(),
        np.arange(ROWS) % 3,
        pool_size=ROWS,
        plan=BatchPlan(
            labeled=8, pool_weak=8 * remembering, pool_strong=8 * remembering, forward_only_weak=remembering
        ),
        steps=settings.steps,
        seed=0,
        parts=settings.accumulation,
    )
    objective = SoftMatch(3, momentum=0.5) if remembering else supervised_objective()
    objective = mixed(objective, alpha=mixup) if mixup else objective
    return train_student(student, batches, objective, settings=settings, **options)


def train_interrupted(path: Path, settings: Optimization, **options: Any) -> Trained:
    """Stopped after each of the first steps, then trained to the end."""
    policy = CheckpointPolicy(path, fingerprint="abc")
    for step in range(1, STOP_AFTER + 1):
        with pytest.raises(Interrupted, match=f"after step {step} of {STEPS}"):
            train(settings, checkpoints=policy, should_stop=lambda: True, **options)
    return train(settings, checkpoints=policy, **options)


def same_bits(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def without_seconds(trained: Trained) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in trained.history]


VARIANTS: dict[str, tuple[Optimization, dict[str, Any]]] = {
    "batch statistics": (SETTINGS, {}),
    "frozen statistics": (replace(SETTINGS, bn="frozen"), {}),
    "accumulation": (replace(SETTINGS, accumulation=2), {"drop_rate": 0.3}),
    "mixup": (SETTINGS, {"mixup": 0.4}),
    "dropout": (SETTINGS, {"drop_rate": 0.3}),
    "bfloat16": (replace(SETTINGS, compute=ComputeChoice("bfloat16", channels_last=True)), {}),
    "contiguous": (replace(SETTINGS, compute=ComputeChoice("float32", channels_last=False)), {}),
    "an objective that remembers": (SETTINGS, {"remembering": True}),
    "last weights": (replace(SETTINGS, ema=0.0), {}),
}


@pytest.fixture(scope="module")
def plain() -> Trained:
    return train(SETTINGS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_going_on_gives_the_same_bits(tmp_path: Path, plain: Trained, variant: str) -> None:
    settings, options = VARIANTS[variant]
    whole = train(settings, **options)
    if variant != "batch statistics":  # the variant does something that could be lost
        assert not same_bits(whole.model, plain.model)
    resumed = train_interrupted(tmp_path / "last.safetensors", settings, **options)
    assert same_bits(resumed.model, whole.model)
    assert without_seconds(resumed) == without_seconds(whole)
    assert (resumed.steps, resumed.images_seen) == (whole.steps, whole.images_seen)


@pytest.mark.parametrize("part", ["student.", "average.", "optimizer."])
def test_no_part_of_the_state_could_be_left_out(
    tmp_path: Path, plain: Trained, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """What is not restored shows in the result, so the tests above would notice it."""
    intact = Checkpoint.part
    policy = CheckpointPolicy(tmp_path / "first.safetensors", fingerprint="abc")
    with pytest.raises(Interrupted):
        train(replace(SETTINGS, lr=1e-9), checkpoints=policy, should_stop=lambda: True)
    first = load_checkpoint(policy.path, fingerprint="abc")
    assert first is not None
    fresh = {"optimizer.": {}, "student.": intact(first, "student."), "average.": intact(first, "average.")}
    monkeypatch.setattr(
        Checkpoint, "part", lambda self, prefix: fresh[prefix] if prefix == part else intact(self, prefix)
    )
    assert not same_bits(train_interrupted(tmp_path / "last.safetensors", SETTINGS).model, plain.model)


def test_a_damaged_newest_checkpoint_costs_steps_but_no_bits(
    tmp_path: Path, plain: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "last.safetensors"
    policy = CheckpointPolicy(path, fingerprint="abc", every_seconds=-1.0)
    calls = iter(range(1, 9))
    with pytest.raises(Interrupted):
        train(SETTINGS, checkpoints=policy, should_stop=lambda: next(calls) == STOP_AFTER)
    path.write_bytes(path.read_bytes()[:-100])
    told: list[int] = []
    resumed = train(SETTINGS, checkpoints=policy, progress=lambda task, done, total: told.append(done))
    assert told[0] == STOP_AFTER
    assert "last.safetensors is damaged" in caplog.text
    assert same_bits(resumed.model, plain.model)


def test_the_file_holds_the_whole_state_in_plain_types(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    calls = iter(range(1, 9))
    policy = CheckpointPolicy(path, fingerprint="abc")
    with pytest.raises(Interrupted):
        train(SETTINGS, checkpoints=policy, should_stop=lambda: next(calls) == STOP_AFTER)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state = json.loads(metadata["state"])
    assert (state["step"], state["steps"]) == (STOP_AFTER, STEPS)
    assert state["seconds"] > 0
    assert [row["step"] for row in state["history"]] == [1, 2, 3]
    assert int(tensors["average.n_averaged"]) == STOP_AFTER
    model = timm.create_model("test_efficientnet", num_classes=3)
    for prefix in ("student.model.", "average.module."):
        held = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        assert {name: value.shape for name, value in held.items()} == {
            name: value.shape for name, value in model.state_dict().items()
        }
    momenta = [value for name, value in tensors.items() if name.startswith("optimizer.")]
    assert sorted(value.numel() for value in momenta) == sorted(value.numel() for value in model.parameters())
    assert all(value.any() for value in momenta)
    assert not torch.equal(tensors["student.model.conv_stem.weight"], tensors["average.module.conv_stem.weight"])


UNPICKLED: list[object] = []
_watching: list[bool] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _watching and event.startswith("pickle."):
        UNPICKLED.append(arguments)


def test_no_pickle_is_written_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.addaudithook(_watch)  # for good; it looks away after this test

    def forbidden(*arguments: object, **options: object) -> None:
        raise AssertionError("a pickle was opened")

    for owner, name in ((torch, "load"), (torch, "save"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(owner, name, forbidden)
    path = tmp_path / "last.safetensors"
    _watching.append(True)
    try:
        train_interrupted(path, SETTINGS)
    finally:
        _watching.clear()
    assert not UNPICKLED
    path.write_bytes(pickle.dumps({"step": 1}))
    previous_of(path).write_bytes(b"PK\x03\x04")  # how files of torch.save begin
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path, fingerprint="abc")
