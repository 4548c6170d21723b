"""`potstill distill`: one student by one method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill.config import RunConfig
from potstill.pipeline.methods import MethodChoice, parse_method
from potstill.pipeline.preparation import (
    gather_material,
    open_configured,
    without_sources,
)
from potstill.pipeline.ranking import rank_material
from potstill.pipeline.run_files import finished_on
from potstill.pipeline.settling import settle_config
from potstill.pipeline.source_use import require_usable_sources
from potstill.pipeline.student_runs import train_method
from potstill.reporting import claim_directory, logged_to, read_json, write_json, write_report
from potstill.types import Progress, no_progress


def train_single(
    data: Path,
    output: Path,
    *,
    config: RunConfig,
    method: str,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train and evaluate one student; sources are asked only if the method uses them.

    Returns:
        The content of results.json.
    """
    choice = parse_method(method)
    claim_directory(output, overwrite=overwrite, resume=resume)
    with logged_to(output):
        return _train(data, output, config, choice, progress)


def _train(data: Path, output: Path, config: RunConfig, choice: MethodChoice, progress: Progress) -> dict[str, Any]:
    results = output / "results.json"
    target = open_configured(data, config, progress)
    command = {"command": "distill", "method": choice.name}
    config = settle_config(config, target, data=data, output=output, command=command)
    if not finished_on(output, target):
        material = gather_material(target, config, progress) if choice.method.scheme else without_sources(target)
        ranking = rank_material(material, target, config, progress=progress)
        require_usable_sources(choice, ranking, material, config)
        run = train_method(choice.name, target, material, ranking, config, directory=output, progress=progress)
        record = {**run.record, "schema": 1, "target": target.name, "classes": list(target.classes)}
        write_json(results, {**record, "findings": list(target.notes)})
        write_report(output)
    finished: dict[str, Any] = read_json(results)
    return finished
