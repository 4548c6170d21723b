"""What every step trains on, in every virtual environment alike, and how a script measures and reports it.

Needs numpy, torch and timm alone: the scripts of the peers import it, and nothing of Potstill is installed there.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE = 128
BATCH = 64
CLASSES = 37
STUDENT = "mobilenetv3_small_100"
LIGHT_SOURCE = "tf_efficientnet_lite0"
HEAVY_SOURCE = "resnet50"
SOURCES, SOURCE_CLASSES = 28, 89  # 2,492 classes together
FIXMATCH_LABELED, FIXMATCH_RATIO = 16, 3  # 16 labeled images and 48 others, these in two views: 112 rows
LR, MOMENTUM, WEIGHT_DECAY, EMA = 0.03, 0.9, 5e-4, 0.99
TEMPERATURE, LABEL_WEIGHT = 2.0, 0.3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Arguments:
    """Of one process: which variant of a script's steps, how many of them, on how many threads."""

    variant: str
    steps: int
    warmup: int
    threads: int


def parse_arguments(variants: Sequence[str]) -> Arguments:
    """From the command line; sets the number of threads and the seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=variants)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = Arguments(**vars(parser.parse_args()))
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    return arguments


def pictures(count: int, *, seed: int = 0) -> Tensor:
    """Smooth coloured fields with some noise, uint8 `(count, 3, S, S)`, S = IMAGE_SIZE; channels are last in memory."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    smooth = functional.interpolate(coarse, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic")
    noise = torch.randn(smooth.shape, generator=generator)
    pixels = (255 * smooth + 8 * noise).clamp(0, 255).to(torch.uint8)
    return pixels.contiguous(memory_format=torch.channels_last)


def normalised(images: Tensor) -> Tensor:
    """float32 in the plain layout, as the peers' loaders deliver images."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return ((images / 255 - mean) / std).contiguous()


def labels(count: int) -> npt.NDArray[np.int64]:
    """int64 `(count,)` in 0..CLASSES-1."""
    return np.random.default_rng(0).integers(CLASSES, size=count)


def student_model() -> nn.Module:
    """The student with random weights, which cost as much as trained ones."""
    model: nn.Module = timm.create_model(STUDENT, num_classes=CLASSES)
    return model


def source_model(name: str, num_classes: int) -> nn.Module:
    """A source with random weights, in evaluation mode; its batch statistics are those of some pictures."""
    model: nn.Module = timm.create_model(name, num_classes=num_classes)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain mean, so that one batch is enough
    with torch.no_grad():
        model.train()(normalised(pictures(8, seed=1)))
    return model.eval().requires_grad_(False)


def measure_steps(step: Callable[[], object], arguments: Arguments) -> list[float]:
    """Seconds of each step after those of the warm-up."""
    seconds = []
    for _ in range(arguments.warmup + arguments.steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds[arguments.warmup :]


def report(
    arguments: Arguments,
    seconds: Sequence[float],
    *,
    packages: Sequence[str],
    compute: str = "float32 contiguous",
    source_forward: float | None = None,
) -> None:
    """One line of JSON on standard output, the last one of the process.

    source_forward: median seconds of one forward pass of one live source over the batch, measured beside the step.
    """
    record = {
        "variant": arguments.variant,
        "median_seconds": statistics.median(seconds),
        "seconds": list(seconds),
        "compute": compute,
        "source_forward": source_forward,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "torchvision", "timm", "numpy", *packages)},
    }
    sys.stdout.write("\n" + json.dumps(record) + "\n")
