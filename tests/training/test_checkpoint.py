"""A checkpoint survives whatever happens to its files, and a run that goes on from one ends in the same bits."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn

from potstill.baselines.supervised import supervised_objective
from potstill.errors import CheckpointError, Interrupted, OutputError
from potstill.training.batches import BatchPlan, TrainingBatches
from potstill.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    previous_of,
    remove_checkpoints,
    save_checkpoint,
)
from potstill.training.compute import ComputeChoice
from potstill.training.loop import Trained, train_student
from potstill.training.mixing import mixed
from potstill.training.optimization import CheckpointPolicy, Optimization
from potstill.training.student import Student
from potstill.types import ViewKind

STEPS, STOP_AFTER, ROWS = 5, 3, 12
SETTINGS = Optimization(steps=STEPS, lr=0.05, ema=0.9, seed=3)


def checkpoint(step: int) -> Checkpoint:
    """A small state that differs from that of every other step."""
    tensors = {
        "student.weight": torch.arange(12.0).reshape(3, 4) + step,
        "average.n_averaged": torch.tensor(step),
        "optimizer.0.momentum_buffer": torch.full((2,), 0.1 * step, dtype=torch.bfloat16),
    }
    return Checkpoint(step, 9, 1.5 * step, [{"step": step, "loss": 0.1 + step}], tensors)


def step_in(path: Path) -> int | None:
    found = load_checkpoint(path, fingerprint="abc")
    return found.step if found else None


@pytest.fixture
def two_saved(tmp_path: Path) -> Path:
    """Checkpoints after step 1 and 2."""
    path = tmp_path / "checkpoints" / "last.safetensors"
    for step in (1, 2):
        save_checkpoint(path, checkpoint(step), fingerprint="abc")
    return path


def test_what_is_saved_comes_back(two_saved: Path) -> None:
    found, expected = load_checkpoint(two_saved, fingerprint="abc"), checkpoint(2)
    assert found is not None
    assert replace(found, tensors={}) == replace(expected, tensors={})
    assert found.tensors.keys() == expected.tensors.keys()
    for name, value in expected.tensors.items():
        assert found.tensors[name].dtype == value.dtype
        assert torch.equal(found.tensors[name], value)
    assert list(found.part("student.")) == ["weight"]


def test_the_newest_and_the_one_before_are_kept(two_saved: Path) -> None:
    save_checkpoint(two_saved, checkpoint(3), fingerprint="abc")
    assert step_in(two_saved) == 3
    assert step_in(previous_of(two_saved)) == 2
    assert len(list(two_saved.parent.iterdir())) == 2
    remove_checkpoints(two_saved)
    assert step_in(two_saved) is None
    assert not list(two_saved.parent.iterdir())


def test_every_single_flipped_bit_is_recognised(two_saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = two_saved.read_bytes()
    assert len(whole) < 1000  # length, names, numbers, fingerprint, tensors: all of it is tried
    for position in range(len(whole)):
        for bit in range(position % 2, 8, 2):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            two_saved.write_bytes(flipped)
            caplog.clear()
            assert step_in(two_saved) == 1, f"bit {bit} of byte {position}"
            assert "last.safetensors is damaged" in caplog.text


def test_a_file_cut_off_anywhere_is_recognised(two_saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = two_saved.read_bytes()
    for length in range(len(whole)):
        two_saved.write_bytes(whole[:length])
        caplog.clear()
        assert step_in(two_saved) == 1, f"cut off after {length} bytes"
        assert "last.safetensors is damaged" in caplog.text


def test_two_damaged_files_are_an_error_that_names_the_newest(two_saved: Path) -> None:
    for each in (two_saved, previous_of(two_saved)):
        each.write_bytes(each.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"checkpoint last.safetensors is damaged .* --overwrite"):
        step_in(two_saved)


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_a_checkpoint_of_another_run_is_refused(two_saved: Path, damaged: bool) -> None:
    if damaged:
        two_saved.write_bytes(b"")
    with pytest.raises(CheckpointError, match="another configuration"):
        load_checkpoint(two_saved, fingerprint="abd")


@pytest.mark.parametrize(
    ("present", "step"),
    [
        (("next", "last", "previous"), 3),  # killed before the first renaming
        (("next", "previous"), 3),  # killed between the two
        (("next",), 3),  # killed before the first checkpoint got its place
        (("last", "previous"), 2),
        (("previous",), 1),
        ((), None),
    ],
)
@pytest.mark.parametrize("unfinished", [False, True], ids=["", "unfinished"])
def test_killed_between_any_two_renamings(
    two_saved: Path, present: tuple[str, ...], step: int | None, unfinished: bool
) -> None:
    places = {"next": two_saved.with_name("next-last.safetensors"), "last": two_saved, "previous": None}
    places["previous"] = previous_of(two_saved)
    other = two_saved.parent.parent / "other" / "last.safetensors"
    save_checkpoint(other, checkpoint(3), fingerprint="abc")
    other.rename(places["next"])
    for name in places.keys() - set(present):
        places[name].unlink()
    if unfinished:  # what a writer leaves that was killed while it wrote
        two_saved.with_name(".next-last.safetensors.4711.tmp").write_bytes(b"half of a")
    assert step_in(two_saved) == step
    save_checkpoint(two_saved, checkpoint(4), fingerprint="abc")
    assert step_in(two_saved) == 4
    assert {each.name for each in two_saved.parent.iterdir()} <= {two_saved.name, previous_of(two_saved).name}
    two_saved.write_bytes(b"")
    if step is not None and present != ("next",):
        assert step_in(two_saved) in (1, 2)


def test_files_of_a_killed_run_are_removed_with_the_others(two_saved: Path) -> None:
    for name in ("next-last.safetensors", ".next-last.safetensors.4711.tmp"):
        two_saved.with_name(name).write_bytes(b"half of a")
    two_saved.with_name("notes.txt").touch()
    remove_checkpoints(two_saved)
    assert [each.name for each in two_saved.parent.iterdir()] == ["notes.txt"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def unchanged_after_failure(path: Path) -> bool:
    return step_in(path) == 2 and len(list(path.parent.iterdir())) == 2


def test_a_file_that_may_not_grow(two_saved: Path) -> None:
    with largest_file(200), pytest.raises(OutputError, match=r"Cannot write .*next-last.safetensors: File too large"):
        save_checkpoint(two_saved, checkpoint(3), fingerprint="abc")
    assert unchanged_after_failure(two_saved)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_in_the_middle(two_saved: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def write_half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_half)
        with pytest.raises(OutputError, match=os.strerror(number)):
            save_checkpoint(two_saved, checkpoint(3), fingerprint="abc")
    assert unchanged_after_failure(two_saved)


@pytest.mark.parametrize("renamings", [0, 1])
def test_a_renaming_that_fails(two_saved: Path, monkeypatch: pytest.MonkeyPatch, renamings: int) -> None:
    replaced, done = Path.replace, []

    def rename(path: Path, target: Path) -> Path:
        if not path.name.startswith("."):
            if len(done) == renamings:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            done.append(path)
        return replaced(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", rename)
        with pytest.raises(OutputError, match="Permission denied"):
            save_checkpoint(two_saved, checkpoint(3), fingerprint="abc")
    assert step_in(two_saved) == 3  # complete, though not in its place


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every folder")
def test_a_folder_that_is_read_only(two_saved: Path) -> None:
    two_saved.parent.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            save_checkpoint(two_saved, checkpoint(3), fingerprint="abc")
        assert unchanged_after_failure(two_saved)
    finally:
        two_saved.parent.chmod(0o700)


def test_a_folder_that_cannot_be_made(two_saved: Path) -> None:
    with pytest.raises(OutputError, match="Cannot write"):
        save_checkpoint(two_saved / "in-a-file" / "last.safetensors", checkpoint(3), fingerprint="abc")


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


def train(settings: Optimization, *, drop_rate: float = 0.0, mixup: float = 0.0, **options: Any) -> Trained:
    torch.manual_seed(5)
    student = Student(timm.create_model("test_efficientnet", num_classes=3, drop_rate=drop_rate), {})
    batches = TrainingBatches(
        RandomViews(),
        np.arange(ROWS) % 3,
        pool_size=ROWS,
        plan=BatchPlan(labeled=8),
        steps=settings.steps,
        seed=0,
        parts=settings.accumulation,
    )
    objective = supervised_objective()
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
    fresh: dict[str, dict[str, torch.Tensor]] = {"optimizer.": {}}
    with pytest.raises(Interrupted):
        policy = CheckpointPolicy(tmp_path / "first.safetensors", fingerprint="abc")
        train(replace(SETTINGS, lr=1e-9), checkpoints=policy, should_stop=lambda: True)
    first = load_checkpoint(tmp_path / "first.safetensors", fingerprint="abc")
    assert first is not None
    fresh.update({name: intact(first, name) for name in ("student.", "average.")})
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
    save_checkpoint(path, checkpoint(1), fingerprint="abc")
    path.write_bytes(pickle.dumps({"step": 1}))
    previous_of(path).write_bytes(b"PK\x03\x04")  # how files of torch.save begin
    with pytest.raises(CheckpointError, match="damaged"):
        step_in(path)
