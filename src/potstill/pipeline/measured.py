"""How fast a student trains in each precision and layout: measured once, kept in the cache directory.

A measurement is read from `measured/` there by later runs with the same student, sizes, machine (processor, cores,
threads) and versions of torch and timm. A damaged file is measured again, with a warning.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from potstill.cache.records import canonical_json, read_record, write_record
from potstill.errors import CacheError, UsageError
from potstill.models import create_model
from potstill.reporting import environment_record
from potstill.training.compute import (
    CHOICES,
    ComputeChoice,
    ComputeTimes,
    candidates,
    choose_compute,
    measure_choices,
)
from potstill.types import Progress, no_progress

log = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bfloat16"]
MemoryFormat = Literal["auto", "contiguous", "channels-last"]

FOLDER = "measured"
HARDWARE_FIELDS = ("cpu", "cores", "threads", "gpu")
BUSY = 1.25
"""A median round that takes so many times the fastest one tells of other work on the machine; 1.1 is usual."""
PROBE_CLASSES = 10
"""Classes of the model that is timed: the head takes next to no time, so one measurement serves every target."""


def student_compute(
    student: str,
    image_size: int,
    *,
    batch_size: int,
    device: str,
    cache_dir: Path,
    precision: Precision = "auto",
    memory_format: MemoryFormat = "auto",
    compiled: bool = False,
    progress: Progress = no_progress,
) -> ComputeChoice:
    """How to compute the training steps of a student: as asked, and what is left open as measured.

    Nothing is measured where the arguments leave one choice. On a machine that is busy with something else the times
    say little: float32 in channels_last, or what is nearest to it, is taken and nothing is kept.

    Args:
        student: `timm/NAME`.
        image_size: side of the student's input.
        batch_size: student forward rows of a step.
        device: resolved: cpu, cuda, cuda:1, mps.
        cache_dir: where measurements are kept.
        precision: auto, or the dtype that must be used.
        memory_format: auto, or the layout that must be used.
        compiled: whether `torch.compile` was asked for; it is never chosen by measurement.
        progress: told while measuring.

    Raises:
        UnknownNameError: no such student.
        UsageError: the student trains in none of the choices that the arguments allow.
        OutputError: the cache directory cannot be written.
    """
    place = torch.device(device)
    allowed = _allowed(place, precision, memory_format)
    chosen = allowed[0]
    if len(allowed) > 1:
        times = _times(student, image_size, batch_size, place, cache_dir, allowed, progress)
        seconds = {name: each for name, each in times.fastest.items() if CHOICES[name] in allowed}
        if not seconds:
            raise UsageError(f"{student} does not train in {precision} here. Use --precision auto or float32.")
        if not _was_busy(times):
            chosen = choose_compute(seconds)
        elif chosen.name not in seconds:
            chosen = CHOICES[next(iter(seconds))]
        figures = ", ".join(f"{name} {1000 * each:.3g} ms" for name, each in seconds.items())
        log.info("%s trains in %s (a step of %d images: %s)", student, chosen.name, times.batch_size, figures)
    return replace(chosen, compiled=compiled)


def step_seconds(
    student: str,
    image_size: int,
    *,
    batch_size: int,
    device: str,
    cache_dir: Path,
    choice: ComputeChoice,
    progress: Progress = no_progress,
) -> float:
    """Seconds that a training step of the student typically takes, not compiled; measured once like `student_compute`.

    Where fewer images than `batch_size` were timed, their time is scaled up.

    Raises:
        UsageError: the student cannot be trained in this choice.
    """
    choice = replace(choice, compiled=False)
    times = _times(student, image_size, batch_size, torch.device(device), cache_dir, (choice,), progress)
    if choice.name not in times.typical:
        raise UsageError(f"{student} does not train in {choice.name} here. Use --precision auto or float32.")
    return times.typical[choice.name] * batch_size / times.batch_size


def _allowed(device: torch.device, precision: Precision, memory_format: MemoryFormat) -> tuple[ComputeChoice, ...]:
    """The choices that the arguments allow: those worth measuring, or all of them where none of those is allowed."""
    asked = [
        choice
        for choice in CHOICES.values()
        if precision in ("auto", choice.dtype)
        and memory_format in ("auto", "channels-last" if choice.channels_last else "contiguous")
    ]
    worthwhile = candidates(device)
    return tuple(choice for choice in asked if choice in worthwhile) or tuple(asked)


def _times(
    student: str,
    image_size: int,
    batch_size: int,
    device: torch.device,
    cache_dir: Path,
    wanted: tuple[ComputeChoice, ...],
    progress: Progress,
) -> ComputeTimes:
    """Times of the wanted choices: those that are kept, or new ones.

    All choices worth measuring are measured together, whatever is wanted: times of different hours cannot be compared.
    """
    key = _key(student, image_size, batch_size, device)
    file = cache_dir / FOLDER / f"{hashlib.sha256(canonical_json(key).encode()).hexdigest()[:32]}.json"
    times = _read_times(file, key) if file.exists() else None
    if times is None or not all(choice.name in times.rounds for choice in wanted):
        times = measure_choices(
            partial(create_model, student, num_classes=PROBE_CLASSES, image_size=image_size),
            image_size=image_size,
            batch_size=batch_size,
            device=device,
            choices=tuple(dict.fromkeys((*candidates(device), *wanted))),
            progress=progress,
        )
        if _was_busy(times):
            log.warning(
                "This machine was busy while precision and layout were measured, so the times are not kept. They are "
                "measured again in the next run; --precision and --memory-format decide without them."
            )
            return times
        rounds = {name: list(seconds) for name, seconds in times.rounds.items()}
        write_record(file, {"key": key, "rounds": rounds, "images": times.batch_size})
    return times


def _was_busy(times: ComputeTimes) -> bool:
    return any(times.typical[name] > BUSY * fastest for name, fastest in times.fastest.items())


def _key(student: str, image_size: int, batch_size: int, device: torch.device) -> dict[str, Any]:
    """What a measurement depends on."""
    environment = environment_record()
    machine = {name: environment[name] for name in HARDWARE_FIELDS}
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    return {
        "student": student,
        "image_size": image_size,
        "batch_size": batch_size,
        "device": device.type,
        "machine": machine,
        "packages": {name: environment["packages"][name] for name in ("torch", "timm")},
    }


def _read_times(file: Path, key: dict[str, Any]) -> ComputeTimes | None:
    """What the file says about this key, or None if it is damaged."""
    try:
        record = read_record(file)
        if record["key"] != key:
            raise CacheError(f"The cache file {file} belongs to another measurement.")
        rounds = {str(name): tuple(float(each) for each in seconds) for name, seconds in record["rounds"].items()}
        times = ComputeTimes(rounds, int(record["images"]))
        if times.batch_size < 1:
            raise CacheError(f"The cache file {file} tells of a step without images.")
        choose_compute(times.fastest)  # raises where a name or a number makes no sense
    except (CacheError, KeyError, TypeError, ValueError, AttributeError) as error:
        # Without the folder, and so without the error's text: logs are shared.
        log.warning("%s/%s cannot be used (%s) and is made again.", FOLDER, file.name, type(error).__name__)
        return None
    return times
