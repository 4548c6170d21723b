"""`potstill cache fill`: ask sources before they are needed, by as many processes as there are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.cache import ImageReader, fill_cache, forecast_extraction, open_jobs
from potstill.config import RunConfig
from potstill.errors import UsageError
from potstill.pipeline.preparation import cache_dir_of, configured_zoo, device_of, open_configured
from potstill.types import Progress, no_progress


def part_of_process(text: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """The part of this process: "i/n" as given, else its number among those of torchrun, srun or a SLURM array.

    None if there is one process. Raises UsageError for another text.

    >>> part_of_process("1/3"), part_of_process(None, {"RANK": "0", "WORLD_SIZE": "2"}), part_of_process(None, {})
    ((1, 3), (0, 2), None)
    """
    if text is not None:
        first, slash, count = text.partition("/")
        if not (slash and first.isdigit() and count.isdigit() and int(first) < int(count)):
            raise UsageError(f"--part must be i/n with 0 <= i < n, as 0/4, got '{text}'.")
        return int(first), int(count)
    if int(environment.get("WORLD_SIZE", "1")) > 1:
        return int(environment["RANK"]), int(environment["WORLD_SIZE"])
    if int(environment.get("SLURM_ARRAY_TASK_COUNT", "1")) > 1:
        first_task = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
        step = max(1, int(environment.get("SLURM_ARRAY_TASK_STEP", "1")))
        tasks = int(environment["SLURM_ARRAY_TASK_COUNT"])
        last_task = int(environment.get("SLURM_ARRAY_TASK_MAX", str(first_task + (tasks - 1) * step)))
        if first_task + (tasks - 1) * step != last_task:
            raise UsageError("The tasks of this SLURM array are not evenly spaced. Give --part i/n to each.")
        return (int(environment["SLURM_ARRAY_TASK_ID"]) - first_task) // step, tasks
    return None


def ask_sources(
    data: Path, *, config: RunConfig, part: tuple[int, int] | None = None, progress: Progress = no_progress
) -> dict[str, Any]:
    """Ask every source of the configured zoo about all images of the target that it was not asked about.

    Returns `{schema, target, images, part, sources: [{name, passes, missing, error}]}`: passes that were made, images
    that lack an answer still (those of other parts).
    """
    target = open_configured(data, config, progress)
    zoo, ids = configured_zoo(config), sorted(target.files)
    passes, missing, errors = fill_cache(
        target,
        zoo,
        ids,
        part=part,
        cache_dir=cache_dir_of(config),
        device=device_of(config),
        workers=config.workers,
        offline=config.offline,
        views=config.stored_views,
        flip=config.flip,
        progress=progress,
    )
    rows = [
        {"name": name, "passes": passes.get(name, 0), "missing": missing.get(name), "error": errors.get(name)}
        for name in zoo.sources
    ]
    shown = None if part is None else f"{part[0]}/{part[1]}"
    return {"schema": 1, "target": target.name, "images": len(ids), "part": shown, "sources": rows}


def forecast_asking(data: Path, *, config: RunConfig, progress: Progress = no_progress) -> dict[str, Any]:
    """What `ask_sources` would cost here, from 64 images a source; nothing but the file index is written.

    Returns `{schema, target, images, seconds, bytes, decode_seconds, sources}`, of each source `{name, passes, seconds,
    bytes, error}`; `seconds` is the longer of decoding, which `workers` threads share, and all forward passes.
    """
    target = open_configured(data, config, progress)
    zoo, ids = configured_zoo(config), sorted(target.files)
    reader = ImageReader(target.files)
    jobs, errors = open_jobs(
        target,
        zoo,
        ids,
        reader,
        cache_dir=cache_dir_of(config),
        device=device_of(config),
        offline=config.offline,
        views=config.stored_views,
        flip=config.flip,
    )
    found, decode, failed = forecast_extraction(jobs, reader, workers=config.workers, progress=progress)
    errors |= failed
    rows = [
        {"name": one.name, "passes": one.passes, "seconds": one.seconds, "bytes": one.bytes, "error": None}
        for one in found
    ]
    rows += [
        {"name": name, "passes": None, "seconds": None, "bytes": None, "error": reason}
        for name, reason in errors.items()
    ]
    asking = sum(one.seconds for one in found)
    return {
        "schema": 1,
        "target": target.name,
        "images": len(ids),
        "seconds": max(asking, decode) if config.workers else asking + decode,
        "bytes": sum(one.bytes for one in found),
        "decode_seconds": decode,
        "sources": rows,
    }
