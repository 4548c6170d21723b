"""A job is one target of one table: how it is prepared, and how its finished runs become result files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill.config import RunConfig, build_config
from potstill.pipeline.comparison import Comparison, prepare_comparison
from potstill.pipeline.methods import parse_method
from potstill.reporting import claim_directory, read_json, read_predictions, write_json


@dataclass(frozen=True)
class Job:
    """One target of one table: what `compare` is asked."""

    table: str
    target: str
    manifest: Path
    output: Path
    methods: tuple[str, ...]
    seeds: int
    settings: dict[str, Any]

    @property
    def key(self) -> str:
        """The job among all."""
        return f"{self.table}/{self.target}"

    def config(self) -> RunConfig:
        """Its settings, checked."""
        return build_config(self.settings)


def prepare(job: Job) -> Comparison:
    """The job's comparison, ready for its runs."""
    claim_directory(job.output, resume=True)
    return prepare_comparison(
        job.manifest,
        job.output,
        config=job.config(),
        choices=[parse_method(name) for name in job.methods],
        seeds=job.seeds,
    )


def collect(job: Job, comparison: Comparison, results: Path) -> int:
    """Write what is finished as `compare` does, and which test images each student got right; the number of runs."""
    records = comparison.finished()
    if not records:
        return 0
    already = results / job.table / f"{job.target}.json"
    if already.exists():
        lost = {run["path"] for run in read_json(already)["runs"]} - {record["path"] for record in records}
        if lost:
            raise ValueError(
                f"{already.name} holds runs that are not among those of this machine ({sorted(lost)[0]} and "
                f"{len(lost) - 1} more), so it is not replaced; bring their directories here or choose other --results"
            )
    found = comparison.results(records)
    write_json(job.output / "results.json", found)
    folder = results / job.table
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{job.target}.json", found)
    write_json(folder / f"{job.target}.correct.json", correct_record(job.output, records, comparison))
    return len(records)


def correct_record(output: Path, records: Iterable[Mapping[str, Any]], comparison: Comparison) -> dict[str, Any]:
    """Every figure about several targets needs which test images were right (one hexadecimal digit for four of them);
    beside it the GPU, or else CPU, that each student was trained on."""
    target = comparison.material.target
    bits, machines = {}, {}
    for record in records:
        environment = read_json(output / record["path"] / "environment.json")
        machines[record["path"]] = environment["gpu"] or environment["cpu"]
        predictions = read_predictions(output / record["path"] / "predictions.parquet")
        if tuple(predictions.image_ids) != target.split.test:
            raise ValueError(f"{record['path']}: expected the target's test images in their order")
        right = predictions.probs.argmax(axis=1) == predictions.labels
        bits[record["path"]] = np.packbits(right).tobytes().hex()
    groups = [target.groups.get(image_id, image_id) for image_id in target.split.test]
    return {"images": len(groups), "groups": groups, "correct": bits, "machines": machines}
