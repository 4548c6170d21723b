"""`potstill rank`: every source of the zoo, best first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill.config import RunConfig
from potstill.data import scoring_ids
from potstill.pipeline.preparation import gather_material, open_configured, rank_material, ranking_record
from potstill.types import Progress, no_progress


def rank_zoo(
    data: Path, *, config: RunConfig, scoring_only: bool = False, progress: Progress = no_progress
) -> dict[str, Any]:
    """Rank the configured zoo on the target.

    Every image of the target goes once through every source and is kept for distillation; with `scoring_only` just
    the images on which similarity is computed do.

    Returns:
        The JSON of `potstill rank`.
    """
    target = open_configured(data, config, progress)
    ids = scoring_ids(target, limit=config.scoring_images, seed=config.seed) if scoring_only else None
    material = gather_material(target, config, progress, image_ids=ids)
    return ranking_record(rank_material(material, target, config), material)
