"""Whatever happens to its files, the last good checkpoint loads."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from potstill.errors import CheckpointError, OutputError
from potstill.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    previous_of,
    remove_checkpoints,
    save_checkpoint,
)


def checkpoint(step: int) -> Checkpoint:
    """A small state that differs from that of every other step."""
    tensors = {
        "student.weight": torch.arange(12.0).reshape(3, 4) + step,
        "average.n_averaged": torch.tensor(step),
        "optimizer.0.momentum_buffer": torch.full((2,), 0.1 * step, dtype=torch.bfloat16),
    }
    return Checkpoint(step, 9, 1.5 * step, (step, 1.25 * step), [{"step": step, "loss": 0.1 + step}], tensors)


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


def test_a_bit_flipped_anywhere_is_recognised(two_saved: Path, caplog: pytest.LogCaptureFixture) -> None:
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
    places = {
        "next": two_saved.with_name("next-last.safetensors"),
        "last": two_saved,
        "previous": previous_of(two_saved),
    }
    save_checkpoint(places["next"], checkpoint(3), fingerprint="abc")
    for name in places.keys() - set(present):
        places[name].unlink()
    if unfinished:  # what a writer leaves that was killed while it wrote
        two_saved.with_name(".next-last.safetensors.4711.tmp").write_bytes(b"half of a")
    assert step_in(two_saved) == step
    save_checkpoint(two_saved, checkpoint(4), fingerprint="abc")
    assert step_in(two_saved) == 4
    assert {each.name for each in two_saved.parent.iterdir()} <= {two_saved.name, previous_of(two_saved).name}
    if "previous" in present:
        two_saved.write_bytes(b"")
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
