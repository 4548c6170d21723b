"""Weights files: read and written as safetensors, and loaded into a model in every key or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from potstill.errors import SourceError
from potstill.files import write_bytes

PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
LISTED_KEYS = 8


def save_state(path: Path, state: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors in one step. Raises OutputError."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_bytes(path, save(tensors, dict(metadata) if metadata else None))


def load_state(path: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file; half-precision values are cast up to float32.

    PyTorch's own files (.pth, .pt, .bin, .ckpt) are read only with `allow_pickle`, and then with weights_only; a state
    dict under the key "state_dict" or "model" is found. Raises SourceError if the file is absent, damaged or refused.
    """
    if not path.is_file():
        raise SourceError(f"Weights file not found: {path}. Check the path in the zoo file or on the command line.")
    if path.suffix == ".safetensors":
        try:
            state: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise SourceError(f"Weights file {path} is not a readable safetensors file: {error}.") from error
    elif path.suffix not in PICKLE_SUFFIXES:
        raise SourceError(f"Weights file {path}: expected .safetensors or {', '.join(PICKLE_SUFFIXES)}.")
    elif not allow_pickle:
        raise SourceError(f"Weights file {path} is a pickle; convert it to safetensors or set allow_pickle: true.")
    else:
        state = _load_pickle(path)
    return {key: _upcast(value) for key, value in state.items()}


def load_strictly(
    model: nn.Module,
    state: dict[str, Tensor],
    name: str,
    path: Path,
    *,
    ignore_classifier: bool,
    heads: tuple[str, ...] | None = None,
) -> None:
    """Load `state` into `model`, or raise a SourceError that lists every key that does not fit.

    `heads` are the key prefixes of the classifier, for a model that is not timm's; `ignore_classifier` leaves the
    file's classifier out.
    """
    if heads is None:
        heads = _classifier_prefixes(model)
    if ignore_classifier:
        state = {key: value for key, value in state.items() if not key.startswith(heads)}
    wanted = model.state_dict()
    # Files older than PyTorch 0.4.1 lack this counter; nothing that we compute reads it.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in wanted]
    misshapen = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if not missing and not unexpected and not misshapen:
        model.load_state_dict(state, strict=False)
        return
    shapes = [f"{key} (expected {tuple(wanted[key].shape)}, found {tuple(state[key].shape)})" for key in misshapen]
    lines = [f"Weights {path} do not fit '{name}' with num_classes={getattr(model, 'num_classes', '?')}:"]
    for title, keys in (("missing in the file", missing), ("not in the model", unexpected), ("other shape", shapes)):
        if keys:
            more = f" and {len(keys) - LISTED_KEYS} more" if len(keys) > LISTED_KEYS else ""
            lines.append(f"  {title} ({len(keys)}): {', '.join(keys[:LISTED_KEYS])}{more}")
    lines.append("  " + _likely_cure(heads, missing, unexpected, misshapen, state))
    raise SourceError("\n".join(lines))


def _classifier_prefixes(model: nn.Module) -> tuple[str, ...]:
    """Key prefixes of the classifier's tensors, ("fc.",); empty if timm names no classifier."""
    classifier: Any = model.default_cfg.get("classifier")  # type: ignore[operator, union-attr]
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    return tuple(f"{one}." for one in names)


def _likely_cure(
    heads: tuple[str, ...],
    missing: list[str],
    unexpected: list[str],
    misshapen: list[str],
    state: Mapping[str, Tensor],
) -> str:
    wrong = missing + unexpected + misshapen
    if heads and all(key.startswith(heads) for key in wrong):
        if missing and not misshapen and not unexpected:
            return "The file holds no classifier: set num_classes to 0."
        found = sorted({len(state[key]) for key in unexpected + misshapen if key.endswith("bias")})
        classes = found[0] if len(found) == 1 else "the file's number of classes"
        return f"Only the classifier differs: set num_classes to {classes}, or drop it with ignore_classifier."
    if misshapen and all("pos_embed" in key or "rel_pos" in key for key in wrong):
        return "Only position embeddings differ: set image_size to the size that the weights were trained at."
    for prefix in ("module.", "_orig_mod.", "model.", "backbone."):
        if unexpected and all(key.startswith(prefix) for key in state):
            return f"Every key of the file starts with '{prefix}': save the weights without it."
    return "The weights seem to be those of another architecture: check `model`."


def _load_pickle(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise SourceError(f"Weights file {path} cannot be read with weights_only=True: {error}.") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SourceError(f"Weights file {path} holds no state dict (a mapping from keys to tensors).")
    return state


def _upcast(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
