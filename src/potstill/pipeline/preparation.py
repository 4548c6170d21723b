"""From a data folder and a zoo to cached source outputs, and what a configuration leaves open."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from potstill.cache import default_cache_dir, extract_outputs
from potstill.config import RunConfig, check_data_path
from potstill.data import open_target
from potstill.errors import PotstillError, SourceError, UsageError
from potstill.models import preprocessing_of, pretrained_cfg_of
from potstill.pipeline.measured import step_seconds, student_compute
from potstill.sources import load_zoo
from potstill.sources.licenses import permissive_sources
from potstill.training.processes import process_count
from potstill.types import Preprocessing, Progress, SourceOutputs, Target, Zoo, no_progress

log = logging.getLogger(__name__)

SHORTEST_RUN, LONGEST_RUN, DEFAULT_EPOCHS = 300, 2000, 40
SHARE_OF_MINUTES = 0.9


@dataclass(frozen=True)
class Material:
    """What every method of a comparison shares: the target, the zoo and what its sources said."""

    target: Target
    zoo: Zoo
    outputs: Mapping[str, SourceOutputs]
    errors: Mapping[str, str]

    @property
    def forwards(self) -> int:
        """Images x sources that went through a source in this call."""
        return sum(each.cost.forwards for each in self.outputs.values())


def open_configured(data: Path, config: RunConfig, progress: Progress = no_progress) -> Target:
    """Open the target as the configuration says."""
    target = open_target(
        check_data_path(data),
        layout=config.layout,
        unlabeled=config.unlabeled,
        split_seed=config.split_seed,
        test_fraction=config.test_fraction,
        label_fraction=config.label_fraction,
        labels_per_class=config.labels_per_class,
        seed=config.seed,
        max_bad=config.max_bad,
        cache_dir=cache_dir_of(config),
        workers=config.workers,
        progress=progress,
    )
    for note in target.notes:
        log.info("%s", note)
    for bad in target.bad_images:
        log.warning("%s cannot be read: %s", bad.image_id, bad.reason)
    return target


def cache_dir_of(config: RunConfig) -> Path:
    """The configured cache directory, or the machine's default one."""
    return config.cache_dir or default_cache_dir()


def device_of(config: RunConfig) -> str:
    """The configured device; auto is the first GPU, else the CPU."""
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=config.device)
    # torch says so in three ways: a wrong name, a build without CUDA, a kind of device that it only knows by name.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"There is no device '{config.device}' here ({reason}). Use --device auto or cpu.") from None
    return config.device


def gather_material(
    target: Target,
    config: RunConfig,
    progress: Progress = no_progress,
    *,
    image_ids: Sequence[str] | None = None,
    sources: Collection[str] | None = None,
    views: int = 0,
) -> Material:
    """Run every source of the configured zoo, or those named, once over the images (all of the target's by default).

    With `views` they also see so many stored views of each.
    """
    zoo = configured_zoo(config)
    if sources is not None:
        zoo = Zoo(zoo.name, {name: spec for name, spec in zoo.sources.items() if name in sources})
    outputs, errors = extract_outputs(
        target,
        zoo,
        image_ids=tuple(sorted(target.files)) if image_ids is None else tuple(image_ids),
        cache_dir=cache_dir_of(config),
        device=device_of(config),
        workers=config.workers,
        offline=config.offline,
        views=views,
        flip=config.flip,
        progress=progress,
    )
    errors = {name: without_folders(reason) for name, reason in errors.items()}
    for name, reason in errors.items():
        log.warning("source %s takes no part: %s", name, reason)
    material = Material(target, zoo, outputs, errors)
    log.info("%d sources answered, %d image passes were needed", len(outputs), material.forwards)
    return material


def configured_zoo(config: RunConfig) -> Zoo:
    """The zoo, without sources whose licence the configuration does not allow.

    Raises what `load_zoo` raises, and SourceError if no source is left.
    """
    zoo = load_zoo(config.zoo)
    if config.licenses == "any":
        return zoo
    kept, left_out = permissive_sources(zoo)
    told = ", ".join(f"{name} ({each})" for name, each in left_out.items())
    if not len(kept):
        raise SourceError(
            f"No source of the zoo '{zoo.name}' is under a known permissive licence: {told}. Use --licenses any or "
            "another zoo."
        )
    if left_out:
        log.info("left out by licence: %s", told)
    return kept


def without_folders(reason: str) -> str:
    """A reason as it may stand in a file that is shared: every absolute path by its last part alone.

    >>> without_folders("not found: /home/me/zoo/a.onnx; fetch https://x.org/a/b.pth to /root/.cache/b.pth.")
    'not found: a.onnx; fetch https://x.org/a/b.pth to b.pth.'
    """
    return re.sub(r"(?<![\w:/.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:'\"]+[/\\])*(?=[^\s/\\])", "", reason)


def with_stored_views(
    material: Material, target: Target, sources: Collection[str], config: RunConfig, progress: Progress = no_progress
) -> Material:
    """The material with what the named sources say about the stored views of the pool, if the configuration has any."""
    if config.stored_views == 0 or not sources:
        return material
    if not material.zoo.sources:
        raise UsageError(
            "Stored views need the zoo: sources must be run on them. Use the commands, or stored_views=0 with "
            "outputs of your own."
        )
    pool = tuple(sorted(target.split.pool))
    seen = gather_material(target, config, progress, image_ids=pool, sources=sources, views=config.stored_views)
    lost = sorted(set(sources) - set(seen.outputs))
    if lost:
        raise SourceError(f"Source {lost[0]} answered before but fails on stored views: {seen.errors[lost[0]]}")
    return replace(material, outputs={**material.outputs, **seen.outputs})


def without_sources(target: Target) -> Material:
    """The material of methods that use no source: no zoo is opened and no image is shown to one."""
    return Material(target, Zoo("none", {}), {}, {})


@contextmanager
def explained_memory() -> Iterator[None]:
    """Say what to do where a step does not fit into the device's memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PotstillError(
            f"A training step does not fit into the device's memory ({str(error).split('. ')[0]}). Use --accumulation, "
            "up to the number of labeled images of a step, a smaller --batch-size or a smaller --image-size."
        ) from error


@explained_memory()
def resolve_config(config: RunConfig, target: Target, progress: Progress = no_progress) -> RunConfig:
    """Decide what was left open: image size, device, precision, number of steps. The result repeats the run exactly.

    An epoch is as many student image passes as the pool has images; a step makes `batch_size` of them. Where minutes
    alone are given they become steps once; they stay beside them as a limit.
    """
    preprocessing = student_preprocessing(config)
    # What a process sends through the student at once; more might not fit into a device's memory.
    piece = math.ceil(config.batch_size / (process_count() * config.accumulation))
    config = replace(config, image_size=preprocessing.image_size, device=device_of(config))
    choice = student_compute(
        config.student,
        preprocessing.image_size,
        batch_size=piece,
        device=config.device,
        cache_dir=cache_dir_of(config),
        precision=config.precision,
        memory_format=config.memory_format,
        progress=progress,
    )
    layout: Literal["channels-last", "contiguous"] = "channels-last" if choice.channels_last else "contiguous"
    config = replace(config, precision=choice.dtype, memory_format=layout)
    if config.steps is not None:
        return config
    pool = len(target.split.pool)
    if config.epochs is not None:
        return replace(config, steps=max(1, math.ceil(config.epochs * pool / config.batch_size)), epochs=None)
    if config.minutes is not None:
        seconds = config.accumulation * step_seconds(
            config.student,
            preprocessing.image_size,
            batch_size=piece,
            device=config.device,
            cache_dir=cache_dir_of(config),
            choice=choice,
        )
        # What surrounds the student's own work takes some of the time; a run that is late is shortened anyway.
        steps = int(SHARE_OF_MINUTES * config.minutes * 60 / seconds)
        if steps < 1:
            raise UsageError(f"--minutes {config.minutes} is too short: one step takes about {seconds:.1f} s.")
        return replace(config, steps=steps)
    steps = math.ceil(DEFAULT_EPOCHS * pool / config.batch_size)
    return replace(config, steps=int(np.clip(steps, SHORTEST_RUN, LONGEST_RUN)))


def student_preprocessing(config: RunConfig) -> Preprocessing:
    """Evaluation transform of the student: the model's own, but the whole shorter side is seen."""
    return preprocessing_of(pretrained_cfg_of(config.student), image_size=config.image_size, crop=1.0)
