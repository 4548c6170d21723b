"""Compute the rows that entries lack: every image is decoded once for all sources that are asked together."""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from potstill.cache.choices import Choices, choose
from potstill.cache.drift import library_versions
from potstill.cache.encoding import ShardDraft, kept_classes
from potstill.cache.images import ImageReader
from potstill.cache.jobs import Entry, Job
from potstill.cache.plan import PlannedPart, finish_plans, has_plan, planned_parts, rows_left
from potstill.cache.records import locked
from potstill.cache.rows import AskedSource, Outputs
from potstill.cache.store import LOCK, OutputStore
from potstill.errors import OutputError, SourceError, UnknownNameError
from potstill.types import Preprocessing, Progress, no_progress

MOST_PARAMS = 500_000_000
"""Sources of so many parameters together are in memory at once (2 GB); further ones are asked in another round."""
UNKNOWN_PARAMS = 25_000_000
"""What a source that cannot be looked into counts as."""

Part = tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Work:
    """Rows of one entry that are computed together."""

    job: Job
    entry: Entry
    part: PlannedPart


@dataclass(frozen=True)
class Filling:
    """How entries are filled.

    Args:
        batch_size: images in a pass of entries without rows; None: see `choices`. Others keep theirs.
        workers: threads that decode.
        part: (i, n): rows of the plan in turn with n - 1 others (see `plan`). None: all of them, and other processes
            wait.
        progress: told of images times entries.
    """

    batch_size: int | None = None
    workers: int = 0
    part: Part | None = None
    progress: Progress = no_progress


def fill(jobs: Sequence[Job], reader: ImageReader, filling: Filling) -> dict[str, str]:
    """Compute what the entries of the jobs lack; the reasons of the sources that failed, by name.

    Of the sources none is opened but those that lack rows; `reader` decodes the images.

    Raises DataError for an image that cannot be read, CacheError for a damaged cache, OutputError if it cannot be
    written.
    """
    errors: dict[str, str] = {}
    for job in jobs:
        for entry in job.entries:
            _tidy(entry.store)
    left = [job for job in jobs if any(entry.store.missing(job.asked.digests) for entry in job.entries)]
    while left:
        group = _fitting(left, errors)
        left = [job for job in left if job not in group and job.name not in errors]
        if group:
            _Round(group, reader, errors, filling).run()
        for job in group:
            job.asked.close()
    return errors


def _tidy(store: OutputStore) -> None:
    """Join what an earlier process computed and did not join, unless somebody works on the entry or it is read-only."""
    if not has_plan(store):
        return
    with suppress(OutputError), locked(store.folder / LOCK, wait=False) as free:
        if free:
            store.refresh()
            finish_plans(store)


def _fitting(jobs: Sequence[Job], errors: dict[str, str]) -> list[Job]:
    """The first jobs whose sources fit into memory together, opened; no two of them write the same entry."""
    group: list[Job] = []
    params, keys = 0, set[str]()
    for job in jobs:
        if params >= MOST_PARAMS:
            break
        if job.keys & keys:
            continue
        try:
            params += job.asked.source.params or UNKNOWN_PARAMS
        except (SourceError, UnknownNameError) as error:
            errors[job.name] = str(error)
            continue
        group.append(job)
        keys |= job.keys
    return group


class _Round:
    """Jobs that are filled together."""

    def __init__(self, jobs: Sequence[Job], reader: ImageReader, errors: dict[str, str], filling: Filling) -> None:
        self._jobs = jobs
        self._reader = reader
        self._errors = errors
        self._filling = filling
        self._task = f"extract {jobs[0].name}" if len(jobs) == 1 else f"extract {len(jobs)} sources"
        self._bytes: dict[OutputStore, tuple[int, int]] = {}  # of an entry's parts and shards that are to be written
        self._done = 0
        self._total = 0

    def run(self) -> None:
        entries = sorted(
            ((job, entry) for job in self._jobs for entry in job.entries), key=lambda both: both[1].store.key
        )
        if self._filling.part is not None:
            tasks = self._planned(entries, hold=False)
            self._check_room()
            self._compute(tasks)
            for _, entry in entries:
                with entry.store.writing():
                    finish_plans(entry.store)
            return
        with ExitStack() as locks:  # in the order of their keys, as every process takes them
            for _, entry in entries:
                locks.enter_context(entry.store.writing())
            # A plan that an interruption left is finished first; images that came since are in the next one.
            while tasks := self._planned(entries, hold=True):
                self._check_room()
                self._compute(tasks)
                for _, entry in entries:
                    finish_plans(entry.store)

    def _planned(self, entries: Sequence[tuple[Job, Entry]], *, hold: bool) -> dict[tuple[str, ...], list[_Work]]:
        """The rows to be computed by this process, those of the same images together.

        `hold`: whether the caller holds the locks of all entries.
        """
        first, step = self._filling.part or (0, 1)
        tasks: defaultdict[tuple[str, ...], list[_Work]] = defaultdict(list)
        for job, entry in entries:
            if job.name in self._errors:
                continue
            with nullcontext() if hold else entry.store.writing():
                parts = planned_parts(entry.store, set(job.asked.digests))
                if parts and entry.store.manifest is None:
                    choices = self._choices(job, sum(len(part.digests) for part in parts))
                    entry.store.write_manifest(_first_manifest(job.asked, entry.fields, choices))
                if entry.store.manifest is not None:
                    digests = job.asked.digests
                    counts = len(rows_left(entry.store, digests)), len(entry.store.missing(digests))
                    self._bytes[entry.store] = counts[0] * entry.bytes_a_row, counts[1] * entry.bytes_a_row
            for part in parts:
                if part.number % step == first:
                    tasks[part.digests].append(_Work(job, entry, part))
        return tasks

    def _choices(self, job: Job, rows: int) -> Choices:
        """How a new entry is asked: as the other views of its source are, so that it is measured once."""
        asked = self._filling.batch_size
        for entry in job.entries:
            entry.store.refresh()
        known = next((entry.store.choices for entry in job.entries if entry.store.manifest is not None), None)
        if known is None:
            choices = choose(job.asked.source, rows, asked)
            if choices.measured is not None:
                job.asked.close()
            return choices
        return known if asked is None else replace(known, batch_size=asked)

    def _check_room(self) -> None:
        """Whether all rows fit on the disk, whoever computes them; shards are written beside their parts.

        Raises OutputError before anything is computed.
        """
        if not self._bytes:
            return
        needed = sum(parts for parts, _ in self._bytes.values()) + max(shards for _, shards in self._bytes.values())
        disk = shutil.disk_usage(next(iter(self._bytes)).folder)
        if disk.total and disk.free < needed:  # some file systems tell nothing
            raise OutputError(
                f"The answers take up to {needed / 1e6:,.0f} MB, and the disk of the cache has "
                f"{disk.free / 1e6:,.0f} MB left. Choose another with --cache-dir, ask fewer sources, or try "
                "`potstill cache prune`."
            )

    def _compute(self, tasks: Mapping[tuple[str, ...], list[_Work]]) -> None:
        self._done, self._total = 0, sum(len(digests) * len(works) for digests, works in tasks.items())
        if self._total:
            self._filling.progress(self._task, 0, self._total)
        for digests, works in sorted(tasks.items(), key=lambda task: task[0]):
            self._write_parts(digests, works)

    def _write_parts(self, digests: tuple[str, ...], works: list[_Work]) -> None:
        """Compute and write the same images for each of several entries."""
        drafts = {
            work: ShardDraft(work.entry.store.kept_classes, with_features=work.entry.view == 0)
            for work in works
            if work.job.name not in self._errors
        }
        for shown, pixels in self._blocks(digests, list(drafts)):
            for work in works:
                if work in drafts and (answers := self._answers(work, shown, pixels)) is not None:
                    drafts[work].add(*answers)
                self._done += len(shown)
                self._filling.progress(self._task, self._done, self._total)
            drafts = {work: draft for work, draft in drafts.items() if work.job.name not in self._errors}
            if not drafts:
                return
        for work, draft in drafts.items():
            arrays = draft.arrays(digests)
            # Processes that share an entry hold its lock while they write; one that works alone has it all the time.
            with locked(work.entry.store.folder / LOCK) if self._filling.part else nullcontext():
                work.part.write(arrays)

    def _answers(self, work: _Work, shown: tuple[str, ...], pixels: Mapping[Preprocessing, Any]) -> Outputs | None:
        """What the source says of the images; None, with the reason among the errors, if it fails."""
        asked, entry = work.job.asked, work.entry
        if work.job.name in self._errors:
            return None
        try:
            seen = [pixels[one] for one in asked.squares(entry.view)]
            return asked.answer(seen, shown, entry.view, entry.store.choices)
        except SourceError as error:
            self._errors[work.job.name] = str(error)
        except torch.OutOfMemoryError:
            self._errors[work.job.name] = (
                f"Source '{work.job.name}': {entry.store.choices.batch_size} images at a time do not fit into the "
                f"memory of the device, and its entry was begun so. Delete {entry.store.folder} to have that fitted."
            )
        return None

    def _blocks(
        self, digests: tuple[str, ...], works: Sequence[_Work]
    ) -> Iterator[tuple[tuple[str, ...], dict[Preprocessing, Any]]]:
        """Some images at a time, with the squares that any of the entries looks at.

        Entries are asked in batches of their own, so a block holds whole batches of each, or all images.
        """
        if not works:
            return
        squares = tuple(dict.fromkeys(one for work in works for one in work.job.asked.squares(work.entry.view)))
        size = min(len(digests), math.lcm(*(work.entry.store.choices.batch_size for work in works)))
        images = works[0].job.asked.images(digests)
        workers = self._filling.workers
        on_cpu = all(getattr(work.job.asked.source, "device", "cpu") == "cpu" for work in works)
        in_turns = on_cpu and workers >= torch.get_num_threads()
        blocks = self._reader.batches(images, squares, batch_size=size, workers=workers, in_turns=in_turns)
        for number, pixels in enumerate(blocks):
            shown = digests[number * size : (number + 1) * size]
            yield shown, dict(zip(squares, pixels, strict=True))


def _first_manifest(asked: AskedSource, fields: Mapping[str, Any], choices: Choices) -> dict[str, Any]:
    source = asked.source
    return {
        "fields": dict(fields),
        "source": {
            "name": source.name,
            "params": source.params,
            "depth": source.depth,
            "feature_dim": source.feature_dim,
            "num_classes": source.num_classes,
            **({"classes": list(source.classes)} if source.classes else {}),
        },
        "choices": {**choices.record(), "kept_classes": kept_classes(source.num_classes)},
        "versions": [library_versions(str(fields["source"]["kind"]))],
    }
