"""How long will it take to ask sources, and how much will their answers weigh? Measured on a few images each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from potstill.cache.choices import choose
from potstill.cache.encoding import ShardDraft, kept_classes
from potstill.cache.images import ImageReader
from potstill.cache.jobs import Job
from potstill.cache.plan import rows_left
from potstill.errors import SourceError, UnknownNameError
from potstill.types import Progress

IMAGES = 64
"""Of each source so many are timed."""


@dataclass(frozen=True)
class SourceForecast:
    """What is left of one source: image passes, the seconds of its forward passes, the bytes of its rows."""

    name: str
    passes: int
    seconds: float
    bytes: int


def forecast_extraction(
    jobs: Sequence[Job], reader: ImageReader, *, workers: int, progress: Progress
) -> tuple[list[SourceForecast], float, dict[str, str]]:
    """What `fill` would do for the jobs; nothing is written.

    Returns:
        One forecast a source; the seconds that decoding takes beside them, once for all sources; why a source failed.
        With workers, decoding and forward passes overlap, and the longer of the two is what it takes.
    """
    found: list[SourceForecast] = []
    errors: dict[str, str] = {}
    slowest_decode = 0.0
    for number, job in enumerate(jobs):
        progress("measure sources", number, len(jobs))
        missing = {entry.view: rows_left(entry.store, job.asked.digests) for entry in job.entries}
        passes = sum(len(digests) for digests in missing.values())
        if not passes:
            found.append(SourceForecast(job.name, 0, 0.0, 0))
            continue
        entry = next(entry for entry in job.entries if missing[entry.view])
        view, shown = entry.view, missing[entry.view][:IMAGES]
        try:
            squares = job.asked.squares(view)
            choices = choose(job.asked.source, 0) if entry.store.manifest is None else entry.store.choices
            started = time.perf_counter()
            pixels = reader.batch(job.asked.images(shown), squares)
            decode = (time.perf_counter() - started) / len(shown)
            job.asked.answer(pixels, shown, view, choices)  # the first pass also allocates
            started = time.perf_counter()
            answers = job.asked.answer(pixels, shown, view, choices)
            seconds = (time.perf_counter() - started) / len(shown)
            draft = ShardDraft(kept_classes(job.asked.source.num_classes), with_features=view == 0)
            draft.add(*answers)
            row = sum(array.nbytes for array in draft.arrays(shown).values()) / len(shown)
        except (SourceError, UnknownNameError) as error:
            errors[job.name] = str(error)
            continue
        finally:
            job.asked.close()
        slowest_decode = max(slowest_decode, decode * max(len(digests) for digests in missing.values()))
        found.append(SourceForecast(job.name, passes, seconds * passes, round(row * passes)))
    progress("measure sources", len(jobs), len(jobs))
    return found, slowest_decode / max(1, workers), errors
