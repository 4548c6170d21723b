"""The configuration that a directory is bound to: decided once, written to config.yaml, held to on resume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from potstill.config import MACHINE_FIELDS, RunConfig, config_record, portable_path
from potstill.errors import UsageError
from potstill.pipeline.methods import parse_method
from potstill.pipeline.preparation import resolve_config
from potstill.reporting import read_yaml, write_yaml
from potstill.types import Target

MAY_CHANGE = ("methods", "seeds", "minutes")


def settle_config(
    config: RunConfig, target: Target, *, data: Path, output: Path, command: Mapping[str, Any]
) -> RunConfig:
    """Decide what the configuration leaves open and write it to `output`/config.yaml, or hold to what is there.

    Args:
        config: as the user gave it.
        target: the opened data.
        data: its path.
        output: the directory of the run or comparison.
        command: entries beside the settings: `command`, and `method` or `methods` and `seeds`.

    Raises:
        UsageError: the directory was started with other settings. Machine settings and the limit of time may differ,
            and a comparison may get more methods and seeds.
    """
    for name in config.overrides:
        parse_method(name)
    path = output / "config.yaml"
    earlier = read_yaml(path) if path.exists() else None
    if earlier is not None:
        config = _with_measurements(config, earlier)
    config = resolve_config(config, target)
    record = {**command, "data": portable_path(data, output), **config_record(config, output)}
    if earlier is not None:
        free = (*MACHINE_FIELDS, *MAY_CHANGE)
        changed = [key for key in record if key not in free and record[key] != earlier.get(key)]
        if changed:
            listing = ", ".join(f"{key}: {earlier.get(key)!r} -> {record[key]!r}" for key in changed)
            raise UsageError(
                f"{output.name} was started with other settings ({listing}). "
                "Repeat them, choose another --output, or start again with --overwrite."
            )
    write_yaml(path, record)
    return config


def _with_measurements(config: RunConfig, earlier: Mapping[str, Any]) -> RunConfig:
    """The configuration with what was measured when the directory was started; measured again, it could differ."""
    measured: dict[str, Any] = {
        name: earlier.get(name, "auto")  # not written by version 0.1
        for name in ("precision", "memory_format")
        if getattr(config, name) == "auto"
    }
    if config.minutes is not None and config.steps is None and config.epochs is None:
        measured["steps"] = earlier["steps"]
    return replace(config, **measured)
