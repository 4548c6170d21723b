"""The single steps as Python functions, for those who build their own pipeline."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from potstill.cache import default_cache_dir, extract_outputs
from potstill.config import RunConfig, build_config
from potstill.data import scoring_ids
from potstill.pipeline.preparation import Material, device_of, resolve_config
from potstill.pipeline.ranking import rank_material
from potstill.pipeline.student_runs import StudentRun, train_method
from potstill.reporting import claim_directory
from potstill.similarity import AnyMetric, Given, rank_sources
from potstill.types import Progress, Ranking, SourceOutputs, SourceSpec, SourceWeights, Target, Zoo, no_progress

log = logging.getLogger(__name__)


def extract(
    target: Target,
    zoo: Zoo,
    *,
    cache_dir: Path | None = None,
    device: str = "auto",
    workers: int = 2,
    offline: bool = False,
    progress: Progress = no_progress,
) -> dict[str, SourceOutputs]:
    """Run every source once over every image of the target; what is in the cache is not run again.

    A source that fails is left out, with a warning in the log.

    Raises:
        SourceError: no source could be run.
    """
    outputs, errors = extract_outputs(
        target,
        zoo,
        image_ids=tuple(sorted(target.files)),
        cache_dir=cache_dir or default_cache_dir(),
        device=device_of(RunConfig(device=device)),
        workers=workers,
        offline=offline,
        progress=progress,
    )
    for name, reason in errors.items():
        log.warning("source %s takes no part: %s", name, reason)
    return outputs


def rank(
    outputs: Mapping[str, SourceOutputs],
    target: Target,
    *,
    metric: AnyMetric = "auto",
    also: Sequence[AnyMetric] = (),
    scoring_images: int = 500,
    seed: int = 0,
    given: Given | None = None,
) -> Ranking:
    """Rank sources by similarity to the target, on at most `scoring_images` labeled training images.

    Args:
        outputs: source name -> its outputs.
        target: only labels of its labeled training images are read.
        metric: `auto`, a name of `potstill.similarity.SIMILARITIES`, `RANKERS` or `BASELINES`, `module:function`, or a
            function (features, labels) -> float.
        also: further metrics to compute beside it.
        scoring_images: cap of the stratified sample.
        seed: of the sample.
        given: what some metrics need beside the outputs, for the images of `scoring_ids` in their order.
    """
    ids = scoring_ids(target, limit=scoring_images, seed=seed)
    return rank_sources(outputs, ids, target.labels_of(ids), metric=metric, also=tuple(also), given=given, seed=seed)


def distill(
    target: Target,
    outputs: Mapping[str, SourceOutputs],
    *,
    weights: SourceWeights,
    student: str = "timm/tf_efficientnet_lite0",
    output: Path | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
    **settings: Any,
) -> StudentRun:
    """Distil weighted sources into a student.

    Args:
        target: the labels and images.
        outputs: of every source in `weights`.
        weights: how much each source counts; those with less than `min_weight` of the largest are left out.
        student: `timm/NAME`.
        output: run directory; None keeps the student in memory of a temporary folder only.
        overwrite: start again where a run is.
        progress: told after each step.
        settings: further fields of `RunConfig` (student_weights, steps, lr, ...).

    Returns:
        The trained and evaluated student.
    """
    config = resolve_config(build_config({**settings, "student": student}), target)
    sources = {name: SourceSpec(name, "outputs") for name in outputs}
    material = Material(target, Zoo("given", sources), outputs, {})
    with ExitStack() as stack:
        if output is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            directory = output
            claim_directory(directory, overwrite=overwrite, resume=False)
        config = replace(config, seed=target.split.seed)
        ranking = rank_material(material, target, config, scores_only=True)
        return train_method(
            "weighted", target, material, ranking, config, directory=directory, weights=weights, progress=progress
        )
