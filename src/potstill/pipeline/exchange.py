"""Answers of sources as plain arrays, for other tools and for a machine that cannot run the sources."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from potstill.config import RunConfig
from potstill.files import replacing
from potstill.pipeline.preparation import gather_material, open_configured
from potstill.reporting import claim_directory
from potstill.types import DenseLogits, Progress, SourceOutputs, SourceSpec, no_progress

KEPT_KEYS = ("license", "trained_on", "accuracy", "url")


def export_answers(data: Path, output: Path, *, config: RunConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """Write what every source of the configured zoo says about the target's images.

    `output` gets `paths.csv` (path, sha256), NAME-features.npy and NAME-logits.npy (float32, a row for each line of
    paths.csv), and `zoo.yaml`, with which these files are sources of kind `arrays`. Sources with more classes than the
    cache keeps give their features alone.

    Returns:
        `{schema, zoo, images, sources: [{name, feature_dim, num_classes}], errors: {name: reason}}`.
    """
    claim_directory(output)
    target = open_configured(data, config, progress)
    material = gather_material(target, config, progress)
    ids = sorted(target.files)
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / "paths.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "sha256"))
        writer.writerows((image_id, target.digests[image_id]) for image_id in ids)
    rows, entries = [], []
    stems: dict[str, str] = {}
    for name, answers in material.outputs.items():
        arrays = _arrays(answers, np.asarray(answers.rows(ids)))
        if not arrays:
            continue
        spec = material.zoo.sources[name]
        entry: dict[str, Any] = {"name": name, "model": "arrays", "paths": "paths.csv"}
        stem = _plain(name)
        while stem in stems.values():
            stem += "_"
        stems[name] = stem
        for kind, values in arrays.items():
            file_name = f"{stem}-{kind}.npy"
            with replacing(output / file_name) as temporary, temporary.open("wb") as stream:
                np.save(stream, values, allow_pickle=False)
            entry[kind] = file_name
        described = _described(spec)
        if "logits" in arrays and answers.classes is not None:
            described["classes"] = list(answers.classes)
        entries.append({**entry, **described})
        sizes = {kind: values.shape[1] for kind, values in arrays.items()}
        rows.append({"name": name, "feature_dim": sizes.get("features", 0), "num_classes": sizes.get("logits", 0)})
    with replacing(output / "zoo.yaml") as temporary:
        temporary.write_text(
            yaml.safe_dump({"sources": entries}, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
    return {
        "schema": 1,
        "zoo": material.zoo.name,
        "images": len(ids),
        "sources": rows,
        "errors": dict(material.errors),
    }


def _arrays(answers: SourceOutputs, rows: Any) -> dict[str, Any]:
    found = {}
    if answers.features is not None:
        found["features"] = np.asarray(answers.features[rows], dtype=np.float32)
    if isinstance(answers.logits, DenseLogits):
        found["logits"] = answers.logits.logits(rows)
    return found


def _described(spec: SourceSpec) -> dict[str, Any]:
    """What the zoo file says of the source beside how to load it."""
    known = {key: getattr(spec, key) for key in KEPT_KEYS if getattr(spec, key) is not None}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}


def _plain(name: str) -> str:
    """The name as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
