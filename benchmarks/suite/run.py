"""Run the protocol: every method on every target, with `potstill compare`; one result file for each target.

    python benchmarks/suite/run.py [--part 0/2] [--minutes 60] [--device cpu] [--table main] [--targets NAME ...]
    python benchmarks/suite/run.py --quick     # two tiny targets, two methods, one seed; no package is fetched

Needs what build.py and zoo.py made. Repeat the command until it says that all is done: finished students are not
trained again, and one that was cut off goes on from its checkpoint. Several processes share the work by `--part`. What
`compare` writes for a target is copied to benchmarks/results/suite/<table>/<target>.json, as far as it is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from potstill.config import build_config  # noqa: E402
from potstill.errors import Interrupted  # noqa: E402
from potstill.pipeline.comparison import compare  # noqa: E402
from potstill.types import Progress  # noqa: E402
from suite.quick import quick_targets  # noqa: E402
from suite.tasks import TASKS  # noqa: E402
from suite.zoo import DATA, IMAGENET, write_zoo  # noqa: E402

PROTOCOL = Path(__file__).with_name("protocol.yaml")
RESULTS = ROOT / "benchmarks" / "results" / "suite"
STUDENT_UNITS = 1000  # of progress in "all runs" that a student counts


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


def jobs_of(protocol: dict[str, Any], table: str, data: Path, device: str) -> Iterator[Job]:
    """The jobs of a table, a target after the other."""
    asked = protocol["tables"][table]
    for target in asked["targets"]:
        left_out = {target, *protocol["shares_classes_with"].get(target, [])}
        settings = {
            **protocol["settings"],
            **asked["settings"],
            "overrides": protocol["overrides"],
            "image_size": TASKS[target].size,
            "flip": TASKS[target].flip,
            "student": protocol["student"],
            "student_weights": IMAGENET / f"{protocol['student'].removeprefix('timm/')}.safetensors",
            "zoo": str(write_zoo(data, target, left_out)),
            "cache_dir": data / "cache",
            "device": device,
            "offline": True,
        }
        output = data / "runs" / table / target
        manifest = data / "tasks" / target / "target.csv"
        yield Job(table, target, manifest, output, tuple(asked["methods"]), asked["seeds"], settings)


def run_job(job: Job, results: Path | None) -> dict[str, Any]:
    """Train what is missing; copy the results as far as they are, also when the time is up."""
    try:
        return compare(
            job.manifest,
            job.output,
            config=build_config(job.settings),
            methods=job.methods,
            seeds=job.seeds,
            resume=job.output.exists(),
            progress=progress_printer(),
        )
    finally:
        found = job.output / "results.json"
        if results is not None and found.exists():
            (results / job.table).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, results / job.table / f"{job.target}.json")


def progress_printer() -> Progress:
    """Prints a line for every finished student."""
    printed = 0

    def progress(task: str, done: int, total: int, /) -> None:
        nonlocal printed
        finished = done // STUDENT_UNITS
        if task == "all runs" and finished > printed:
            printed = finished
            print(f"  {finished} of {total // STUDENT_UNITS} students", flush=True)

    return progress


@contextmanager
def time_limit(minutes: float) -> Iterator[None]:
    """Ask this process to stop, as a person would with Ctrl-C, when the time is up."""
    timer = threading.Timer(60 * minutes, signal.raise_signal, [signal.SIGINT])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def run_quick() -> dict[str, dict[str, Any]]:
    """Two tiny targets by `transfer` and `weighted`, with the demo's student and zoo: target -> results."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, manifest, settings in quick_targets(Path(folder)):
            output = Path(folder) / "runs" / name
            job = Job("quick", name, manifest, output, ("transfer", "weighted"), 1, settings)
            found[name] = run_job(job, None)
            accuracies = {run["method"]: round(100 * run["accuracy"], 1) for run in found[name]["runs"]}
            print(f"{name}: {accuracies}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", default="main")
    parser.add_argument("--targets", nargs="+", metavar="NAME")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th target, from the i-th")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so many, with everything saved")
    parser.add_argument("--threads", type=int, default=1, help="two processes of one thread beat one of two")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        run_quick()
        return
    if not PROTOCOL.exists():
        parser.error(f"there is no {PROTOCOL.name} yet; --quick needs none")
    protocol = yaml.safe_load(PROTOCOL.read_text(encoding="utf-8"))
    number, parts = (int(text) for text in arguments.part.split("/"))
    jobs = list(jobs_of(protocol, arguments.table, arguments.data, arguments.device))[number::parts]
    try:
        with time_limit(arguments.minutes):
            for job in jobs:
                if arguments.targets is None or job.target in arguments.targets:
                    print(f"{job.target}:", flush=True)
                    summary = run_job(job, RESULTS)["summary"]
                    print(json.dumps({name: round(100 * each["mean"], 1) for name, each in summary.items()}))
    except (Interrupted, KeyboardInterrupt):
        print("Time is up; repeat the command to go on.")
        return
    print("All is done.")


if __name__ == "__main__":
    main()
