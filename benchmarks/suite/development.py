"""Development targets with what all sources say about them, for questions that need no student."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from potstill.config import RunConfig
from potstill.pipeline.preparation import Material, gather_material, open_configured, resolve_config
from suite.run import PROTOCOL, jobs_of
from suite.zoo import DATA

TARGETS = ("lower-case", "clip-art", "parts-of-buildings", "scanned-digits", "units")
LABELS: tuple[dict[str, Any], ...] = ({"label_fraction": 0.2}, {"labels_per_class": 4})


def development_materials(data: Path) -> Iterator[tuple[str, RunConfig, Material]]:
    """Name, settings and material of each target; none of them is a target of the report."""
    protocol = yaml.safe_load(PROTOCOL.read_text(encoding="utf-8"))
    table: Mapping[str, Any] = {"targets": list(TARGETS), "seeds": 1, "settings": {}, "methods": ["stacked"]}
    for job in jobs_of({**protocol, "tables": {"development": table}}, "development", data, "cpu"):
        target = open_configured(job.manifest, job.config())
        config = resolve_config(job.config(), target)
        material = gather_material(target, config)
        if material.errors:
            raise SystemExit(f"{job.target}: {material.errors}")
        yield job.target, config, material


def measure_and_write(measure: Callable[[Path], Iterable[Mapping[str, Any]]], output: Path, description: str) -> None:
    """The command of a script: the rows that it measures on the data go to `output`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(measure(arguments.data))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"schema": 1, "rows": rows}, indent=1) + "\n", encoding="utf-8")
