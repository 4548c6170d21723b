"""Run a table of the protocol: every method on every target, as `potstill compare` does; one result file a target.

    python benchmarks/suite/run.py --table main [--targets NAME ...] [--processes 2] [--minutes 60] [--device cpu]
    python benchmarks/suite/run.py --quick     # two tiny targets, two methods, one seed; no package is fetched

Needs what build.py and zoo.py made. Repeat the command until it says that all is done: finished students are not
trained again, and one that was cut off goes on from its checkpoint. Machines share the work by `--part`. What is
finished is written to benchmarks/results/suite/<table>/: <target>.json as `compare` writes it, and
<target>.correct.json with the test images that each student got right.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from potstill.errors import unknown_name  # noqa: E402
from potstill.pipeline.comparison import compare  # noqa: E402
from suite.jobs import Job  # noqa: E402
from suite.quick import quick_targets  # noqa: E402
from suite.tasks import TASKS  # noqa: E402
from suite.workers import train_all  # noqa: E402
from suite.zoo import DATA, initial_weights, write_zoo  # noqa: E402

PROTOCOL = Path(__file__).with_name("protocol.yaml")
RESULTS = ROOT / "benchmarks" / "results" / "suite"
STUDENT_SEED = 1  # of a student's random weights; sources that start from random ones have seed 0
QUICK_METHODS = ("transfer", "weighted")


def jobs_of(protocol: Mapping[str, Any], table: str, data: Path, device: str) -> Iterator[Job]:
    """The jobs of a table, a target after the other."""
    asked = protocol["tables"][table]
    student = asked.get("student", protocol["student"])
    for target in asked["targets"]:
        size = TASKS[target].size
        steps = protocol["steps"][size]
        left_out = {target, *protocol["shares_classes_with"].get(target, [])}
        variants = {**protocol["settings_of"], **asked.get("settings_of", {})}
        zoo = write_zoo(data, target, left_out)
        settings = {
            **protocol["settings"],
            **asked.get("settings", {}),
            "steps": steps,
            "overrides": {name: _overrides(own, steps) for name, own in variants.items()},
            "image_size": size,
            "flip": TASKS[target].flip,
            "student": student,
            "student_weights": initial_weights(student.removeprefix("timm/"), data, seed=STUDENT_SEED),
            "zoo": str(zoo),
            "cache_dir": data / "cache",
            "device": device,
            "offline": True,
        }
        output = data / "runs" / table / target
        manifest = data / "tasks" / target / "target.csv"
        methods = [each for name in asked.get("methods") or asked["settings_of"] for each in _expanded(name, zoo)]
        yield Job(table, target, manifest, output, tuple(methods), asked["seeds"], settings)


def _expanded(method: str, zoo: Path) -> list[str]:
    """`nearest-only-*` is one method for each source of the zoo."""
    if not method.endswith("*"):
        return [method]
    sources = yaml.safe_load(zoo.read_text(encoding="utf-8"))["sources"]
    return [method.removesuffix("*") + source["name"] for source in sources]


def _overrides(own: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Settings of one method; its `budget`, a share of all image passes, becomes a number of steps."""
    settings = dict(own)
    if (budget := settings.pop("budget", None)) is not None:
        settings["steps"] = round(budget * steps)
    return settings


def run_quick() -> dict[str, dict[str, Any]]:
    """Two tiny targets by `transfer` and `weighted`, with the demo's student and zoo: target -> results."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Job("quick", name, manifest, Path(folder) / "runs" / name, QUICK_METHODS, 1, settings)
            for name, manifest, settings in quick_targets(Path(folder))
        ]
        for job in jobs:
            found[job.target] = compare(job.manifest, job.output, config=job.config(), methods=job.methods, seeds=1)
            accuracies = {run["method"]: round(100 * run["accuracy"], 1) for run in found[job.target]["runs"]}
            print(f"{job.target}: {accuracies}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", nargs="+", default=["main"], metavar="NAME")
    parser.add_argument("--targets", nargs="+", metavar="NAME")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="train these first, in a later call the others")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th target, from the i-th")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no student after so many")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each process: two of one thread beat one of two")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.quick:
        run_quick()
        return
    protocol = yaml.safe_load(PROTOCOL.read_text(encoding="utf-8"))
    number, parts = (int(text) for text in arguments.part.split("/"))
    tables = _known("table", arguments.table, protocol["tables"])
    every = {table: list(jobs_of(protocol, table, arguments.data, arguments.device)) for table in tables}
    targets = _known("target", arguments.targets, {job.target for jobs in every.values() for job in jobs})
    asked = [job for jobs in every.values() for job in jobs[number::parts] if job.target in targets]
    methods = _known("method", arguments.methods, {name for job in asked for name in job.methods})
    outcome = train_all(
        asked,
        arguments.results,
        processes=arguments.processes,
        threads=arguments.threads,
        seconds=60 * arguments.minutes,
        methods=methods,
    )
    print(f"{outcome.trained} of {outcome.left} students trained.")
    for request, reason in outcome.failures.items():
        print(f"failed: {request}: {reason}")
    if outcome.complete:
        print("All of it is done." if arguments.methods or arguments.targets or parts > 1 else "All is done.")
    else:
        raise SystemExit("Some is left; repeat the command.")


def _known(what: str, asked: Sequence[str] | None, known: Collection[str]) -> list[str]:
    """What was asked for; all, if nothing was."""
    for name in asked or ():
        if name not in known:
            raise SystemExit(str(unknown_name(what, name, known)))
    return list(asked or known)


if __name__ == "__main__":
    main()
