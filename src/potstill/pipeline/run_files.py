"""The files of a run directory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from potstill.config import RunConfig, config_record
from potstill.data import target_fingerprint, write_splits
from potstill.errors import UsageError
from potstill.pipeline.preparation import Material
from potstill.pipeline.ranking import ranking_record
from potstill.reporting import environment_record, read_json, write_json, write_lines, write_predictions, write_yaml
from potstill.training.checkpoint import remove_checkpoints
from potstill.training.loop import Trained
from potstill.types import Evaluation, Ranking, SourceWeights, Target

CHECKPOINT = Path("checkpoints") / "last.safetensors"
TEACHER = "teacher"
"""The directory of a student that teaches the one of the run."""


def finished_on(directory: Path, target: Target) -> bool:
    """Whether the directory holds a finished run on this data.

    Raises:
        UsageError: it holds a finished run on other images or another split than the target's.
    """
    if not (directory / "results.json").exists():
        return False
    if read_json(directory / "results.json").get("data_sha256") != target_fingerprint(target):
        raise UsageError(
            f"The images have changed since {directory.name} was made, so it is not taken over. "
            "Choose another --output, or start again with --overwrite."
        )
    return True


def write_plan(
    directory: Path,
    target: Target,
    material: Material,
    ranking: Ranking,
    weights: SourceWeights | None,
    config: RunConfig,
) -> None:
    """What is known before training starts."""
    if not (directory / "config.yaml").exists():
        write_yaml(directory / "config.yaml", config_record(config, directory))
    write_json(directory / "environment.json", environment_record())
    if weights is not None:
        write_json(directory / "ranking.json", ranking_record(ranking, material))
        write_json(
            directory / "weights.json",
            {
                "schema": 1,
                "scheme": weights.scheme,
                "weights": dict(weights.values),
                "effective_sources": weights.effective_sources,
            },
        )
    write_splits(target, directory / "splits.csv")


def write_outcome(
    directory: Path, target: Target, trained: Trained, evaluation: Evaluation, record: dict[str, Any]
) -> None:
    write_lines(directory / "metrics.jsonl", trained.history)
    write_predictions(
        directory / "predictions.parquet", evaluation.image_ids, evaluation.labels, evaluation.probs, target.classes
    )
    # Written last: a directory with results.json is complete.
    write_json(directory / "results.json", record)
    for owner in (directory, directory / TEACHER):
        remove_checkpoints(owner / CHECKPOINT)
    with suppress(OSError):  # there was no teacher
        (directory / TEACHER / CHECKPOINT).parent.rmdir()
        (directory / TEACHER).rmdir()
