"""From a data folder and a zoo to cached source outputs, and what a configuration leaves open."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from potstill.cache import default_cache_dir, extract_outputs
from potstill.config import RunConfig, check_data_path
from potstill.data import open_target
from potstill.errors import UsageError
from potstill.models import create_model, preprocessing_of, pretrained_cfg_of
from potstill.sources import load_zoo
from potstill.types import Preprocessing, Progress, SourceOutputs, Target, Zoo, no_progress

log = logging.getLogger(__name__)

SHORTEST_RUN, LONGEST_RUN, DEFAULT_EPOCHS = 300, 2000, 40


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
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"There is no device '{config.device}' here ({reason}). Use --device auto or cpu.") from None
    return config.device


def gather_material(
    target: Target, config: RunConfig, progress: Progress = no_progress, *, image_ids: Sequence[str] | None = None
) -> Material:
    """Run every source of the configured zoo once over the images (all of the target's by default)."""
    zoo = load_zoo(config.zoo)
    outputs, errors = extract_outputs(
        target,
        zoo,
        image_ids=tuple(sorted(target.files)) if image_ids is None else tuple(image_ids),
        cache_dir=cache_dir_of(config),
        device=device_of(config),
        workers=config.workers,
        offline=config.offline,
        progress=progress,
    )
    errors = {name: _without_folder(zoo, name, reason) for name, reason in errors.items()}
    for name, reason in errors.items():
        log.warning("source %s takes no part: %s", name, reason)
    material = Material(target, zoo, outputs, errors)
    log.info("%d sources answered, %d image passes were needed", len(outputs), material.forwards)
    return material


def _without_folder(zoo: Zoo, name: str, reason: str) -> str:
    """A reason as it may stand in a file that is shared: its weights file by name alone."""
    weights = zoo.sources[name].weights
    return reason.replace(f"{weights.parent}{os.sep}", "") if weights else reason


def without_sources(target: Target) -> Material:
    """The material of methods that use no source: no zoo is opened and no image is shown to one."""
    return Material(target, Zoo("none", {}), {}, {})


def resolve_config(config: RunConfig, target: Target) -> RunConfig:
    """Decide what was left open: image size, device and the number of steps. The result repeats the run exactly.

    An epoch is as many student image passes as the pool has images; a step makes `batch_size` of them.
    """
    preprocessing = student_preprocessing(config)
    config = replace(config, image_size=preprocessing.image_size, device=device_of(config))
    if config.steps is not None:
        return config
    if config.minutes is not None:
        seconds = _seconds_per_step(config, len(target.classes))
        steps = int(config.minutes * 60 / seconds)
        if steps < 1:
            raise UsageError(f"--minutes {config.minutes} is too short: one step takes about {seconds:.1f} s.")
        return replace(config, steps=steps, minutes=None)
    pool = len(target.split.pool)
    if config.epochs is not None:
        return replace(config, steps=max(1, math.ceil(config.epochs * pool / config.batch_size)), epochs=None)
    steps = math.ceil(DEFAULT_EPOCHS * pool / config.batch_size)
    return replace(config, steps=int(np.clip(steps, SHORTEST_RUN, LONGEST_RUN)))


def student_preprocessing(config: RunConfig) -> Preprocessing:
    """Evaluation transform of the student: the model's own, but the whole shorter side is seen."""
    return preprocessing_of(pretrained_cfg_of(config.student), image_size=config.image_size, crop=1.0)


def _seconds_per_step(config: RunConfig, num_classes: int) -> float:
    """Median time of a training step of the student on random images, after one step to warm up."""
    size = config.image_size or student_preprocessing(config).image_size
    model = create_model(config.student, num_classes=num_classes, image_size=size).to(device_of(config)).train()
    images = torch.randn(config.batch_size, 3, size, size, device=device_of(config))
    times = []
    for _ in range(4):
        started = time.perf_counter()
        model(images).square().mean().backward()
        if images.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))
