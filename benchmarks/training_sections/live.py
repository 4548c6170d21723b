"""What does caching the sources' answers save, and after how many epochs has extraction paid for itself?"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from potstill.evaluation import model_cost
from potstill.models import create_model
from potstill.training.compute import CHOICES, ComputeChoice
from potstill.training.loop import Forward, Objective
from potstill.types import Batch, DenseTargets
from training_sections.photos import IMAGE_SIZE, image_ids, views_of_photos
from training_sections.timing import compared, interleaved_steps
from training_sections.workload import (
    BATCH,
    DISTILLED,
    STUDENT,
    TEMPERATURE,
    Run,
    batches_of,
    distillation_objective,
    distilled_run,
    seconds_between,
    seconds_of_step,
    student_for,
    zoo_of,
)

SOURCES, CLASSES = 28, 89
# Answers are cached in float32, so these are the same objective. Live sources in bfloat16 give other answers, faster.
FLOAT32, BFLOAT16 = ("float32 channels_last", "float32 contiguous"), "bfloat16 channels_last"


@dataclass(frozen=True)
class Kind:
    """An architecture of all 28 sources, how many times slower it is to be, rounds that fit the time, and the side of
    its images in pixels: that of the student's, which is the least that a live source costs, or its own, at which the
    cache asks it."""

    model: str
    goal: float
    rounds: int
    pixels: int = IMAGE_SIZE


KINDS = {
    "tf_efficientnet_lite0": Kind("timm/tf_efficientnet_lite0", 20.0, 7),
    "tf_efficientnet_lite0 at 224 pixels": Kind("timm/tf_efficientnet_lite0", 20.0, 3, 224),
    "resnet18": Kind("timm/resnet18", 20.0, 3),
    "resnet50": Kind("timm/resnet50", 100.0, 3),
    "resnet50 at 224 pixels": Kind("timm/resnet50", 100.0, 2, 224),
}


def measure_live(kinds: Sequence[str], rounds: int) -> dict[str, Any]:
    """The section `live` of the record, of these kinds of sources; about 9 minutes for all on
    two cores, most of it for ResNet-50."""
    return {name: _measure_kind(name, KINDS[name], rounds) for name in kinds}


def _measure_kind(name: str, kind: Kind, rounds: int) -> dict[str, Any]:
    source = _source(kind.model)
    student_cost, source_cost = model_cost(student_for(STUDENT).model, IMAGE_SIZE), model_cost(source, kind.pixels)
    forward = _forward_seconds(source, kind.pixels, rounds)
    layout = min(FLOAT32, key=forward["median_seconds"].__getitem__)
    cached = distilled_run(zoo_of(CLASSES, SOURCES))
    timed = interleaved_steps(
        {
            "cached": partial(seconds_of_step, cached, 10),
            "live": partial(seconds_between, _live_run(cached, source, kind.pixels, layout), 1, 2, steps=2),
            "live in bfloat16": partial(
                seconds_between, _live_run(cached, source, kind.pixels, BFLOAT16), 1, 2, steps=2
            ),
        },
        min(rounds, kind.rounds),
    )
    gain, gain_over_bfloat16 = (compared(timed, each, "cached") for each in ("live", "live in bfloat16"))
    epochs = _epochs(timed, forward["median_seconds"][layout])
    print(
        f"28 x {name}: {gain['ratio']:.1f}x, goal {kind.goal:g}x, in bfloat16 {gain_over_bfloat16['ratio']:.1f}x; "
        f"extraction pays for itself in epoch {epochs['break_even_epoch']:.2f}",
        flush=True,
    )
    return {
        "source": {"model": kind.model, **source_cost},
        "student": {"model": STUDENT, **student_cost},
        "macs_over_student": source_cost["macs"] / student_cost["macs"],
        "forward": {"images": BATCH, "layout": layout, **forward},
        "step": timed,
        "live_over_cached": {**gain, "goal": kind.goal, "reached": gain["ratio"] >= kind.goal},
        "bfloat16_over_cached": gain_over_bfloat16,
        **epochs,
    }


def _live_run(cached: Run, source: nn.Module, pixels: int, choice: str) -> Run:
    """The same run with live sources, each with weights of its own, as real ones have."""
    compute = CHOICES[choice]
    sources = [copy.deepcopy(source).to(memory_format=compute.memory_format) for _ in range(SOURCES)]
    return replace(cached, batches=batches_of(DISTILLED), objective=live_objective(sources, pixels, compute))


def _epochs(timed: Mapping[str, Any], forward: float) -> dict[str, float]:
    """Seconds of an epoch of the pool, and of extraction, from those of a step and of one forward of a source."""
    images = len(image_ids())
    steps = images / DISTILLED.pool_weak
    cached, live = (steps * timed["median_seconds"][name] for name in ("cached", "live"))
    extraction = SOURCES * forward * images / BATCH
    return {
        "pool_images": images,
        "cached_epoch_seconds": cached,
        "live_epoch_seconds": live,
        "extraction_seconds": extraction,
        "break_even_epoch": extraction / (live - cached),
    }


def live_objective(sources: Sequence[nn.Module], pixels: int, compute: ComputeChoice) -> Objective:
    """The objective of cached training, with answers that the sources give while the student trains."""
    objective = distillation_objective(len(sources))

    def with_live_sources(student: Forward, batch: Batch) -> Mapping[str, Tensor]:
        if batch.pool_weak is None:
            raise ValueError("live sources need a batch with pool images")
        images = _at_size(batch.pool_weak, pixels).contiguous(memory_format=compute.memory_format)
        with torch.no_grad(), compute.autocast(images.device):
            logits = [source(images) for source in sources]
        answers = tuple(DenseTargets(torch.softmax(each.float() / TEMPERATURE, dim=1)) for each in logits)
        return objective(student, replace(batch, answers=answers))

    return with_live_sources


def _source(model: str) -> nn.Module:
    """A source with random weights; its batch statistics are those of some photos, so that its answers are finite."""
    source = create_model(model, num_classes=CLASSES)
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean, so that one batch is enough
    with torch.no_grad():
        source.train()(_images(16))
    return source.eval().requires_grad_(False)


def _images(count: int) -> Tensor:
    views = views_of_photos()
    return views.normalise(views.views(np.arange(count), "plain"))


def _at_size(images: Tensor, pixels: int) -> Tensor:
    if images.shape[-1] == pixels:
        return images
    return functional.interpolate(images, size=(pixels, pixels), mode="bilinear", antialias=True)


def _forward_seconds(source: nn.Module, pixels: int, rounds: int) -> dict[str, Any]:
    """Seconds of one forward of one source on a batch, in each precision and layout that a CPU has."""
    images = _at_size(_images(BATCH), pixels)
    calls: dict[str, Callable[[], float]] = {}
    for name in (*FLOAT32, BFLOAT16):
        layout = CHOICES[name].memory_format
        model = copy.deepcopy(source).to(memory_format=layout)
        calls[name] = partial(_seconds_of_forward, model, images.contiguous(memory_format=layout), CHOICES[name])
        calls[name]()
    return interleaved_steps(calls, rounds)


def _seconds_of_forward(source: nn.Module, images: Tensor, choice: ComputeChoice) -> float:
    started = time.perf_counter()
    with torch.no_grad(), choice.autocast(images.device):
        source(images)
    return time.perf_counter() - started
