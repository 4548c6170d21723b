"""Kill a training run without warning at 20 random moments, go on, and compare the student with an uninterrupted one.

    python benchmarks/resume/measure.py [--output benchmarks/results/resume.json] [--minutes 9]

Each moment is a run of its own, killed once (SIGKILL) and ended by a second sitting, which may prepare batches in
another way: by 0 to 4 workers that are threads, forked or spawned processes. The file is written after each moment;
moments that are in it are not repeated, so the command can be repeated until it is done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sitting import EVERY_SECONDS, STEPS

from potstill.reporting import environment_record

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from recording import commit_of  # noqa: E402

WORK = ROOT / ".build-data" / "resume"
MOMENTS, SEED = 20, 0
PATIENCE = 300.0
"""Seconds that a sitting may take to its next step."""


@dataclass(frozen=True)
class Moment:
    """When a run is killed: `wait` seconds after it finished `step`; step 0 is its start. Then who goes on."""

    step: int
    wait: float
    killed: tuple[int, str]
    resumed: tuple[int, str]


def moments() -> list[Moment]:
    """The same ones in every call; every way to prepare batches is killed at least once."""
    chance = random.Random(SEED)
    ways = [(0, "thread"), *((workers, way) for workers in range(1, 5) for way in ("thread", "fork", "spawn"))]
    killed = [*ways, *chance.sample(ways, MOMENTS - len(ways))]
    chance.shuffle(killed)
    # Some are killed before their first step.
    steps = sorted(max(0, chance.randrange(-STEPS // 8, STEPS)) for _ in range(MOMENTS))
    return [
        # Starting takes seconds, a step some tens of milliseconds.
        Moment(step, round(chance.uniform(0, 0.1 if step else 8.0), 4), way, chance.choice(ways))
        for step, way in zip(steps, killed, strict=True)
    ]


def start(run: Path, way: tuple[int, str], journal: Path) -> subprocess.Popen[bytes]:
    workers, kind = way
    journal.unlink(missing_ok=True)
    script = Path(__file__).with_name("sitting.py")
    options = ["--journal", str(journal), "--workers", str(workers), "--start", kind]
    return subprocess.Popen([sys.executable, str(script), str(run), *options])


def finish(run: Path, way: tuple[int, str], journal: Path) -> None:
    process = start(run, way, journal)
    if process.wait() != 0:
        raise RuntimeError(f"the sitting of {run.name} ended with exit code {process.returncode}")


def steps_of(journal: Path) -> list[tuple[float, int]]:
    """(time, number) of every step in a journal whose last line may be cut off."""
    if not journal.exists():
        return []
    lines = journal.read_text(encoding="utf-8").split("\n")[:-1]
    return [(float(moment), int(step)) for moment, step in (line.split() for line in lines)]


def kill_at(moment: Moment, run: Path, journal: Path) -> float:
    """Start a run, kill it, and return the time at which that was."""
    process = start(run, moment.killed, journal)
    started = time.monotonic()
    while moment.step and (not (steps := steps_of(journal)) or steps[-1][1] < moment.step):
        if process.poll() is not None or time.monotonic() - started > PATIENCE:
            process.kill()
            raise RuntimeError(f"{run.name} did not get to step {moment.step}")
        time.sleep(0.002)
    time.sleep(moment.wait)
    killed = time.time()
    process.kill()
    process.wait()
    return killed


def digests(run: Path) -> dict[str, str]:
    """Of everything that training and evaluating a student leaves, without durations."""
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = json.dumps([{key: value for key, value in row.items() if key != "seconds"} for row in history])
    contents = {
        "student": (run / "student" / "model.safetensors").read_bytes(),
        "predictions": (run / "predictions.parquet").read_bytes(),
        "history": lines.encode(),
    }
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def measure(moment: Moment, expected: dict[str, str]) -> dict[str, Any]:
    """Kill a new run at the moment, go on, and say what that cost and whether the results are the same."""
    run, before, after = WORK / "killed", WORK / "before.txt", WORK / "after.txt"
    shutil.rmtree(run, ignore_errors=True)
    killed = kill_at(moment, run, before)
    done = steps_of(before)
    finish(run, moment.resumed, after)
    resumed_from = steps_of(after)[0][1] - 1
    # A run that was killed before its first checkpoint lost what it had done since its first step.
    saved = next((when for when, step in done if step == resumed_from), done[0][0] if done else killed)
    found = digests(run)
    last = done[-1][1] if done else 0
    return {
        **asdict(moment),
        "last_step": last,
        "resumed_from": resumed_from,
        "steps_lost": max(0, last - resumed_from),
        "seconds_lost": round(killed - saved, 3),
        "identical": {name: found[name] == digest for name, digest in expected.items()},
    }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures that matter."""
    return {
        "moments": len(found),
        "all_identical": sum(all(each["identical"].values()) for each in found),
        "killed_before_the_first_step": sum(each["last_step"] == 0 for each in found),
        "went_on_from_a_checkpoint": sum(each["resumed_from"] > 0 for each in found),
        "most_steps_lost": max(each["steps_lost"] for each in found),
        "most_seconds_lost": max(each["seconds_lost"] for each in found),
    }


def main() -> None:
    arguments = _parse()
    started = time.monotonic()
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
    shutil.rmtree(WORK / "whole", ignore_errors=True)
    finish(WORK / "whole", (1, "thread"), WORK / "after.txt")
    expected = digests(WORK / "whole")
    record: dict[str, Any] = {"schema": 1, "uninterrupted": expected, "moments": []}
    if arguments.output.exists():
        earlier = json.loads(arguments.output.read_text(encoding="utf-8"))
        if earlier["uninterrupted"] == expected:
            record = earlier
        else:
            print("The uninterrupted run is not that of the file: code or machine have changed. Starting again.")
    for number, moment in enumerate(moments()):
        if number < len(record["moments"]):
            continue
        if time.monotonic() - started > 60 * arguments.minutes:
            print("Time is up; repeat the command to go on.")
            return
        record["moments"].append(measure(moment, expected))
        settings = {"steps": STEPS, "seconds_between_checkpoints": EVERY_SECONDS, "seed": SEED}
        record |= {"settings": settings, "summary": summary(record["moments"])}
        record |= {
            "commit": commit_of("benchmarks/resume"),
            "environment": {**environment_record(), "threads": arguments.threads},
        }
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(record["moments"][-1]), flush=True)
    print(json.dumps(record["summary"]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "resume.json")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
