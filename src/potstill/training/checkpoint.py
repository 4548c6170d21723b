"""Checkpoints: one safetensors file with every tensor and, as JSON in its metadata, every number of the run's state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from potstill.errors import CheckpointError
from potstill.models import save_state


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` finished steps. `tensors` keys start with `student.`, `average.` or `optimizer.`."""

    step: int
    seconds: float
    history: list[dict[str, float]]
    tensors: Mapping[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of one part, without its prefix."""
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, fingerprint: str) -> None:
    """Write atomically: the old file stays until the new one is complete on disk.

    Args:
        path: the file.
        checkpoint: the state.
        fingerprint: of everything that must be the same when the run goes on (configuration, split, sources).
    """
    state = {"step": checkpoint.step, "seconds": checkpoint.seconds, "history": checkpoint.history}
    metadata = {"fingerprint": fingerprint, "state": json.dumps(state)}
    save_state(path, checkpoint.tensors, metadata=metadata)


def load_checkpoint(path: Path, *, fingerprint: str) -> Checkpoint | None:
    """The saved state, or None where there is none.

    Raises:
        CheckpointError: the file is damaged, or belongs to a run with another configuration.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        state = json.loads(metadata["state"])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(
            f"The checkpoint {path.name} is damaged ({error}). Delete it or start again with --overwrite."
        ) from error
    if metadata["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"The checkpoint {path.name} belongs to a run with another configuration, split or zoo. "
            "Repeat the command as it was, or start again with --overwrite."
        )
    return Checkpoint(step=state["step"], seconds=state["seconds"], history=state["history"], tensors=tensors)


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
        optimizer.state[parameter][name] = value.to(parameter.device)
