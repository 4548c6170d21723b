"""Development targets with what all sources say about them, for questions that need no student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from potstill.config import RunConfig
from potstill.pipeline.preparation import Material, gather_material, open_configured, resolve_config
from suite.run import PROTOCOL, jobs_of

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
