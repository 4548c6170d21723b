"""Processes that train the students of several comparisons; each stays with a target as long as it has work."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from potstill.errors import PotstillError
from potstill.pipeline.comparison import Comparison, WholeProgress
from potstill.pipeline.preparation import gather_material, open_configured
from potstill.reporting import logged_to
from potstill.sources import load_zoo
from potstill.types import no_progress
from suite.jobs import Job, collect, prepare


@dataclass(frozen=True)
class Request:
    """What a process is asked: to let a source answer, to say what is left, to train a student, to collect a job.

    `name` is a source or a method.
    """

    kind: str
    job: str
    name: str = ""
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.job} {self.name} {self.seed}"


@dataclass(frozen=True)
class Answer:
    """`value` is None where it failed; `error` says why then."""

    value: Any
    seconds: float
    error: str | None = None


def serve(connection: Connection, jobs: Sequence[Job], threads: int, results: Path) -> None:
    """A process's work: answer every request until there is none."""
    torch.set_num_threads(threads)
    logging.getLogger("potstill").addHandler(logging.NullHandler())
    by_key = {job.key: job for job in jobs}
    opened: dict[str, Comparison] = {}
    while (request := connection.recv()) is not None:
        started = time.monotonic()
        job = by_key[request.job]
        try:
            if request.kind == "ask":
                value: Any = _let_answer(job, request.name)
            else:
                if job.key not in opened:
                    opened = {job.key: prepare(job)}  # the last one's material is let go
                value = _answer(request, job, opened[job.key], results)
            connection.send(Answer(value, time.monotonic() - started))
        except Exception as error:  # whatever it is, the other runs go on and it is told in the end
            connection.send(Answer(None, time.monotonic() - started, f"{type(error).__name__}: {error}"))


def _let_answer(job: Job, source: str) -> bool:
    config = job.config()
    material = gather_material(open_configured(job.manifest, config), config, sources=[source])
    if source in material.errors:
        raise PotstillError(material.errors[source])
    return True


def _answer(request: Request, job: Job, comparison: Comparison, results: Path) -> Any:
    if request.kind == "left":
        return [(left, draw.target.split.seed) for left, draw in comparison.left()]
    if request.kind == "collect":
        return collect(job, comparison, results)
    with logged_to(job.output):
        run = comparison.run(request.name, comparison.draws[request.seed], WholeProgress(no_progress, 1))
    if run["status"] != "done":
        raise PotstillError(run["error"])
    return run["accuracy"]


class Workers:
    """Some processes and what is asked of them."""

    def __init__(self, jobs: Sequence[Job], *, processes: int, threads: int, results: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        self._ended: set[int] = set()
        for _ in range(processes):
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, list(jobs), threads, results), daemon=True)
            process.start()
            self._pipes.append(here)
            self._processes.append(process)

    @property
    def process_ids(self) -> list[int]:
        """Of the operating system."""
        return [process.pid for process in self._processes if process.pid is not None]

    def everywhere(self, requests: Sequence[Request], *, seconds: float, say: Say) -> list[Any]:
        """Values of the answers in the order of the requests, None for those that failed or were not begun in time.

        A process takes a request of the job that it served last, else of the job that has most left.
        """
        answers: list[Any] = [None] * len(requests)
        waiting: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            waiting[request.job].append(number)
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

        def keep_busy(worker: int) -> None:
            last = None
            while worker not in self._ended and (number := next_number(last)) is not None:
                last = requests[number].job
                answer = self._asked(worker, requests[number])
                answers[number] = answer.value
                say(requests[number], answer)

        with ThreadPoolExecutor(len(self._pipes)) as threads:
            list(threads.map(keep_busy, range(len(self._pipes))))
        return answers

    def _asked(self, worker: int, request: Request) -> Answer:
        started = time.monotonic()
        try:
            self._pipes[worker].send(request)
            answer: Answer = self._pipes[worker].recv()
        except (EOFError, OSError):
            self._processes[worker].join(timeout=30)
            self._ended.add(worker)
            code = self._processes[worker].exitcode
            return Answer(None, time.monotonic() - started, f"its process ended with {code}; -9 is lack of memory")
        return answer

    def close(self) -> None:
        """Let every process end."""
        for worker, pipe in enumerate(self._pipes):
            if worker not in self._ended:
                with suppress(OSError):  # it has died since
                    pipe.send(None)
        for process in self._processes:
            process.join(timeout=30)


Say = Callable[[Request, Answer], None]


@dataclass(frozen=True)
class Outcome:
    """How many students were left to train and how many of them are trained now; what failed, and why.

    `unknown` counts the jobs of which is not known what is left, because the time was up or a source failed.
    """

    left: int
    trained: int
    unknown: int
    failures: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether nothing is left."""
        return self.trained == self.left and self.unknown == 0 and not self.failures


def train_all(
    jobs: Sequence[Job],
    results: Path,
    *,
    processes: int,
    threads: int,
    seconds: float,
    methods: Sequence[str] | None = None,
) -> Outcome:
    """Prepare every job, train what is not finished as far as the time goes, write the results.

    A job with a source that fails is not trained: its zoo would be another one. `methods`: those to train now; all,
    if not given.
    """
    started, by_key = time.monotonic(), {job.key: job for job in jobs}
    failures: dict[str, str] = {}

    def say(request: Request, answer: Answer) -> None:
        if answer.error is not None:
            failures[str(request)] = answer.error
        accuracy = f"{100 * answer.value:.1f}" if isinstance(answer.value, float) else ""
        said = accuracy if answer.error is None else f"failed: {answer.error}"
        print(f"[{time.monotonic() - started:5.0f} s] {request} {said} ({answer.seconds:.1f} s)", flush=True)

    def remaining() -> float:
        return seconds - (time.monotonic() - started)

    workers = Workers(jobs, processes=processes, threads=threads, results=results)
    try:
        # Every source by itself first: otherwise a target's sources would answer one after the other.
        asked = [Request("ask", job.key, name) for job in jobs for name in load_zoo(job.config().zoo).sources]
        worked = workers.everywhere(asked, seconds=remaining(), say=say)
        short = {request.job for request, each in zip(asked, worked, strict=True) if each is None}
        ready = [job for job in jobs if job.key not in short]
        left = workers.everywhere([Request("left", job.key) for job in ready], seconds=remaining(), say=say)
        known = {job.key: some for job, some in zip(ready, left, strict=True) if some is not None}
        runs = [
            Request("run", key, name, seed)
            for key, some in known.items()
            for name, seed in some
            if methods is None or name in methods
        ]
        # All seeds of a method before the next method: what the time leaves out are the last methods, not seeds.
        runs.sort(key=lambda run: by_key[run.job].methods.index(run.name))
        trained = workers.everywhere(runs, seconds=remaining(), say=say)
        workers.everywhere([Request("collect", key) for key in known], seconds=float("inf"), say=say)
    finally:
        workers.close()
    return Outcome(len(runs), sum(each is not None for each in trained), len(jobs) - len(known), failures)
