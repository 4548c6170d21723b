"""Processes that train the students of several comparisons; each stays with a target as long as it has work."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill.config import RunConfig, build_config
from potstill.pipeline.comparison import Comparison, WholeProgress, prepare_comparison
from potstill.pipeline.methods import parse_method
from potstill.pipeline.preparation import gather_material, open_configured
from potstill.reporting import claim_directory, logged_to, read_json, read_predictions, write_json
from potstill.sources import load_zoo
from potstill.types import no_progress


@dataclass(frozen=True)
class Job:
    """One target of one table: what `compare` is asked."""

    table: str
    target: str
    manifest: Path
    output: Path
    methods: tuple[str, ...]
    seeds: int
    settings: dict[str, Any]

    @property
    def key(self) -> str:
        """The job among all."""
        return f"{self.table}/{self.target}"

    def config(self) -> RunConfig:
        """Its settings, checked."""
        return build_config(self.settings)


def prepare(job: Job) -> Comparison:
    """The job's comparison, ready for its runs."""
    claim_directory(job.output, resume=True)
    return prepare_comparison(
        job.manifest,
        job.output,
        config=job.config(),
        choices=[parse_method(name) for name in job.methods],
        seeds=job.seeds,
    )


def collect(job: Job, comparison: Comparison, results: Path) -> int:
    """Write what is finished as `compare` does, and which test images each student got right; the number of runs."""
    records = comparison.finished()
    if not records:
        return 0
    already = results / job.table / f"{job.target}.json"
    if already.exists():
        lost = {run["path"] for run in read_json(already)["runs"]} - {record["path"] for record in records}
        if lost:
            raise ValueError(
                f"{already.name} holds runs that are not among those of this machine ({sorted(lost)[0]} and "
                f"{len(lost) - 1} more), so it is not replaced; bring their directories here or choose other --results"
            )
    found = comparison.results(records)
    write_json(job.output / "results.json", found)
    folder = results / job.table
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{job.target}.json", found)
    write_json(folder / f"{job.target}.correct.json", correct_record(job.output, records, comparison))
    return len(records)


def correct_record(output: Path, records: Iterable[Mapping[str, Any]], comparison: Comparison) -> dict[str, Any]:
    """Every figure about several targets needs which test images were right (one hexadecimal digit for four of them);
    beside it the GPU, or else CPU, that each student was trained on."""
    target = comparison.material.target
    bits, machines = {}, {}
    for record in records:
        environment = read_json(output / record["path"] / "environment.json")
        machines[record["path"]] = environment["gpu"] or environment["cpu"]
        predictions = read_predictions(output / record["path"] / "predictions.parquet")
        if tuple(predictions.image_ids) != target.split.test:
            raise ValueError(f"{record['path']}: expected the target's test images in their order")
        right = predictions.probs.argmax(axis=1) == predictions.labels
        bits[record["path"]] = np.packbits(right).tobytes().hex()
    groups = [target.groups.get(image_id, image_id) for image_id in target.split.test]
    return {"images": len(groups), "groups": groups, "correct": bits, "machines": machines}


def serve(connection: Connection, jobs: Sequence[Job], threads: int, results: Path) -> None:
    """A process's work: answer every request until there is none."""
    torch.set_num_threads(threads)
    logging.getLogger("potstill").addHandler(logging.NullHandler())
    by_key = {job.key: job for job in jobs}
    opened: dict[str, Comparison] = {}
    while (request := connection.recv()) is not None:
        kind, key, name, seed = request
        started = time.monotonic()
        job = by_key[key]
        try:
            answer: Any = None
            if kind == "ask":
                config = job.config()
                gather_material(open_configured(job.manifest, config), config, sources=[name])
                connection.send((True, answer, time.monotonic() - started))
                continue
            if key not in opened:
                opened = {key: prepare(job)}  # the last one's material is let go
            comparison = opened[key]
            if kind == "left":
                answer = [(left, draw.target.split.seed) for left, draw in comparison.left()]
            elif kind == "collect":
                answer = collect(job, comparison, results)
            else:
                with logged_to(job.output):
                    run = comparison.run(name, comparison.draws[seed], WholeProgress(no_progress, 1))
                answer = run.get("accuracy")
            connection.send((True, answer, time.monotonic() - started))
        except Exception as error:  # whatever it is, the other runs go on and it is told in the end
            connection.send((False, f"{type(error).__name__}: {error}", time.monotonic() - started))


class Workers:
    """Some processes and what is asked of them."""

    def __init__(self, jobs: Sequence[Job], *, processes: int, threads: int, results: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, list(jobs), threads, results), daemon=True)
            process.start()
            self._pipes.append(here)
            self._processes.append(process)

    def everywhere(self, requests: Sequence[tuple[str, str, str, int]], *, seconds: float, say: Say) -> list[Any]:
        """Answers to requests in their order, None for those that failed or were not begun in time.

        A process takes a request of the job that it served last, else of the job that has most left.
        """
        answers: list[Any] = [None] * len(requests)
        waiting: dict[str, list[int]] = defaultdict(list)
        for number, (_, key, _, _) in enumerate(requests):
            waiting[key].append(number)
        lock, started = threading.Lock(), time.monotonic()
        serving: dict[str, int] = defaultdict(int)

        def next_number(last: str | None) -> int | None:
            with lock:
                if last is not None:
                    serving[last] -= 1
                left = {key: len(numbers) / (1 + serving[key]) for key, numbers in waiting.items() if numbers}
                if not left or time.monotonic() - started > seconds:
                    return None
                key = (
                    last if last in left and left[last] >= 0.5 * max(left.values()) else max(left, key=left.__getitem__)
                )
                serving[key] += 1
                return waiting[key].pop(0)

        def keep_busy(pipe: Connection) -> None:
            last = None
            while (number := next_number(last)) is not None:
                last = requests[number][1]
                pipe.send(requests[number])
                worked, answer, took = pipe.recv()
                if worked:
                    answers[number] = answer
                say(requests[number], worked, answer, took)

        with ThreadPoolExecutor(len(self._pipes)) as threads:
            list(threads.map(keep_busy, self._pipes))
        return answers

    def close(self) -> None:
        """Let every process end."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(timeout=30)


Say = Callable[[tuple[str, str, str, int], bool, Any, float], None]


def train_all(
    jobs: Sequence[Job],
    results: Path,
    *,
    processes: int,
    threads: int,
    seconds: float,
    methods: Sequence[str] | None = None,
) -> bool:
    """Prepare every job, train what is not finished as far as the time goes, write the results.

    `methods`: those to train now; all, if not given. Whether nothing of it is left.
    """
    started, by_key = time.monotonic(), {job.key: job for job in jobs}

    def say(request: tuple[str, str, str, int], worked: bool, answer: Any, took: float) -> None:
        kind, key, name, seed = request
        shown = "failed: " + answer if not worked else f"{100 * answer:.1f}" if isinstance(answer, float) else ""
        print(f"[{time.monotonic() - started:5.0f} s] {kind} {key} {name} {seed} {shown} ({took:.1f} s)", flush=True)

    workers = Workers(jobs, processes=processes, threads=threads, results=results)
    try:
        # Every source by itself first: otherwise a target's sources would answer one after the other.
        workers.everywhere(
            [("ask", job.key, name, 0) for job in jobs for name in load_zoo(job.config().zoo).sources],
            seconds=seconds,
            say=say,
        )
        asked = [("left", job.key, "", 0) for job in jobs]
        left = workers.everywhere(asked, seconds=seconds, say=say)
        runs = [
            ("run", job.key, name, seed)
            for job, some in zip(jobs, left, strict=True)
            for name, seed in some or ()
            if methods is None or name in methods
        ]
        # All seeds of a method before the next method: what the time leaves out are the last methods, not seeds.
        runs.sort(key=lambda run: by_key[run[1]].methods.index(run[2]))
        remaining = seconds - (time.monotonic() - started)
        done = workers.everywhere(runs, seconds=remaining, say=say)
        workers.everywhere([("collect", job.key, "", 0) for job in jobs], seconds=1e9, say=say)
    finally:
        workers.close()
    print(json.dumps({"asked": len(runs), "done": sum(each is not None for each in done), "pid": os.getpid()}))
    return all(some is not None for some in left) and all(each is not None for each in done)
