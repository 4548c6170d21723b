"""Checkpoints: one safetensors file with every tensor and, as JSON in its metadata, every number of the run's state.

The newest one and the one before it are kept. A file that was cut off or changed is recognised by its digest, and the
other one is used. Wherever a run is killed, the newest complete file is found.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from potstill.errors import CheckpointError, OutputError
from potstill.models import save_state

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` finished steps of `steps`.

    `tensors` keys start with `student.`, `average.`, `optimizer.` or `objective.`.
    """

    step: int
    steps: int
    seconds: float
    pace: tuple[int, float]
    history: list[dict[str, float]]
    tensors: Mapping[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of one part, without its prefix."""
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


def previous_of(path: Path) -> Path:
    """Where the checkpoint before that in `path` is."""
    return path.with_name(f"previous-{path.name}")


def _next_of(path: Path) -> Path:
    """Where a checkpoint lies until the one in `path` has made room for it."""
    return path.with_name(f"next-{path.name}")


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, fingerprint: str) -> None:
    """Write atomically: at every moment a complete checkpoint is on disk, once there was one.

    Args:
        path: the file; the one that it holds is kept as `previous_of(path)`.
        checkpoint: the state.
        fingerprint: of everything that must be the same when the run goes on (configuration, split, sources).

    Raises:
        OutputError: the folder cannot be written; earlier checkpoints are untouched.
    """
    state = {
        "step": checkpoint.step,
        "steps": checkpoint.steps,
        "seconds": checkpoint.seconds,
        "pace": checkpoint.pace,
        "history": checkpoint.history,
    }
    text = json.dumps(state)
    metadata = {"fingerprint": fingerprint, "state": text, "digest": _digest(fingerprint, text, checkpoint.tensors)}
    newest = _next_of(path)
    _remove_unfinished(path)
    save_state(newest, checkpoint.tensors, metadata=metadata)
    try:
        if path.exists():
            path.replace(previous_of(path))
        newest.replace(path)
    except OSError as error:
        raise OutputError(
            f"Cannot write {path}: {error.strerror or error}. Check the folder and its rights."
        ) from error


def load_checkpoint(path: Path, *, fingerprint: str) -> Checkpoint | None:
    """The newest undamaged state, or None where there is none.

    Raises:
        CheckpointError: every file is damaged, or one belongs to a run with another configuration.
    """
    damage: CheckpointError | None = None
    for candidate in _newest_first(path):
        if not candidate.exists():
            continue
        try:
            found, owner = _read(candidate)
        except CheckpointError as error:
            log.warning("%s", error)
            damage = damage or error
            continue
        if owner != fingerprint:
            raise CheckpointError(
                f"The checkpoint {candidate.name} belongs to a run with another configuration, split or zoo, or with "
                "another number of rows in a step (other numbers of processes may need other ones). "
                "Repeat the command as it was, or start again with --overwrite."
            )
        return found
    if damage is not None:
        raise damage
    return None


def remove_checkpoints(path: Path) -> None:
    """Delete what `save_checkpoint` wrote, also where it was killed."""
    for each in _newest_first(path):
        each.unlink(missing_ok=True)
    _remove_unfinished(path)


def _newest_first(path: Path) -> tuple[Path, ...]:
    """Every place of a complete checkpoint. One that waits for its place is there only if its writer was killed."""
    return _next_of(path), path, previous_of(path)


def _remove_unfinished(path: Path) -> None:
    """Delete the parts of files, as large as a whole one, that writers left behind when they were killed."""
    with suppress(OSError):  # a folder that cannot be changed says so when the next file is written
        for part in path.parent.glob(f".{_next_of(path).name}.*.tmp"):
            part.unlink(missing_ok=True)


def _read(path: Path) -> tuple[Checkpoint, str]:
    """A checkpoint and the fingerprint of its run. Raises CheckpointError for a damaged file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if metadata["digest"] != _digest(metadata["fingerprint"], metadata["state"], tensors):
            raise ValueError("its content does not match its digest")
        state = json.loads(metadata["state"])
        steps, seconds = state.pop("pace", (0, 0.0))  # earlier versions did not write it
        return Checkpoint(tensors=tensors, pace=(steps, seconds), **state), metadata["fingerprint"]
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"The checkpoint {path.name} is damaged ({error}). Delete it or start again with --overwrite."
        ) from error


def _digest(fingerprint: str, state: str, tensors: Mapping[str, Tensor]) -> str:
    """Of the run, the numbers and every tensor's name, type, shape and bytes."""
    total = hashlib.blake2b(json.dumps([fingerprint, state]).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The momentum buffers by parameter number; everything else of the optimiser follows from the configuration."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        f"{number}.{name}": value
        for number, parameter in enumerate(parameters)
        for name, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put momentum buffers back where `optimizer_tensors` took them from."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        parameter = parameters[int(number)]
        # In the memory order of the parameter: the fused update walks through both as they lie.
        optimizer.state[parameter][name] = torch.empty_like(parameter).copy_(value)
