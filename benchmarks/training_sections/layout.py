"""Is the measured precision and layout faster than what torch does by default, and is it the best one?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from potstill.models import create_model
from potstill.pipeline.measured import student_compute
from potstill.training.compute import candidates
from training_sections.photos import IMAGE_SIZE, image_ids, labels_of_photos, views_of_photos
from training_sections.timing import compared, interleaved_steps, milliseconds
from training_sections.workload import BATCH, CLASSES, STUDENT, WARMUP, seconds_of_step, supervised_run

STUDENTS: Mapping[str, tuple[int, float | None]] = {
    # student -> measured steps in a round, how many times faster than torch's default it is to be
    STUDENT: (6, 1.4),
    "timm/tf_efficientnet_lite0": (1, 1.4),
    "timm/mobilenetv4_conv_small": (4, 1.4),
    "timm/resnet18": (1, None),
    "timm/deit_tiny_patch16_224": (1, None),
}
PROBE_GOAL = 0.95
TORCH = "torch's default"


def measure_layout(students: Sequence[str], rounds: int) -> dict[str, Any]:
    """The section `layout` of the record, of these students; about 5 minutes for all five on two cores."""
    return {name: _measure_student(name, rounds) for name in students}


def _measure_student(name: str, rounds: int) -> dict[str, Any]:
    steps, goal = STUDENTS[name]
    with tempfile.TemporaryDirectory() as folder:  # so that nothing measured before is read
        started = time.perf_counter()
        chosen = student_compute(name, IMAGE_SIZE, batch_size=BATCH, device="cpu", cache_dir=Path(folder))
        probing = time.perf_counter() - started
    choices = candidates(torch.device("cpu"))
    calls: dict[str, Callable[[], float]] = {TORCH: partial(seconds_of_torch_step, name, steps)}
    for choice in choices:
        calls[choice.name] = partial(seconds_of_step, supervised_run(name, compute=choice), steps)
    timed = interleaved_steps(calls, rounds)
    best = min((choice.name for choice in choices), key=timed["median_seconds"].__getitem__)
    gain, share = compared(timed, TORCH, chosen.name), compared(timed, best, chosen.name)
    print(
        f"{name:28s} {milliseconds(timed)}; chosen {chosen.name}: {gain['ratio']:.2f}x torch's default, "
        f"{share['ratio']:.3f} of the best",
        flush=True,
    )
    return {
        "batch": BATCH,
        "image_size": IMAGE_SIZE,
        "steps_a_round": steps,
        **timed,
        "chosen": chosen.name,
        "best": best,
        "probing_seconds": probing,
        "over_torch": gain if goal is None else {**gain, "goal": goal, "reached": gain["ratio"] >= goal},
        "of_the_best": {**share, "goal": PROBE_GOAL, "reached": share["ratio"] >= PROBE_GOAL},
    }


def seconds_of_torch_step(name: str, steps: int) -> float:
    """Mean seconds of a step as torch does it if nobody says otherwise: contiguous float32, images ready in memory, a
    plain optimiser, no averaged weights, nothing of ours.
    """
    model = create_model(name, num_classes=CLASSES, image_size=IMAGE_SIZE).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003, momentum=0.9, weight_decay=5e-4, nesterov=True)
    views, labels = views_of_photos(), labels_of_photos()
    batches = []
    for step in range(WARMUP + steps):
        rows = np.arange(step * BATCH, (step + 1) * BATCH) % len(image_ids())
        images = views.normalise(views.views(rows, "plain")).contiguous(memory_format=torch.contiguous_format)
        batches.append((images, torch.from_numpy(labels[rows])))
    started = 0.0
    for step, (images, targets) in enumerate(batches):
        if step == WARMUP:
            started = time.perf_counter()
        functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - started) / steps
