"""A run that is killed without warning, by whatever means batches are prepared, goes on to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

# The command line with a checkpoint after every step. Spawned workers read this file, too, and need none of it.
COMMAND = """
if __name__ == "__main__":
    from functools import partial

    from potstill.cli import main
    from potstill.pipeline import student_training

    student_training.CheckpointPolicy = partial(student_training.CheckpointPolicy, every_seconds=0.0)
    main()
"""
SITTINGS = (("2", "thread"), ("2", "fork"), ("1", "spawn"), ("0", "thread"))
"""Workers and how they start, in each sitting of the killed run; the last one ends it."""
PATIENCE = 60.0

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command with its workers in a group of their own."""
    script = tmp_path / "command.py"
    script.write_text(COMMAND, encoding="utf-8")
    started: list[subprocess.Popen[bytes]] = []
    with (tmp_path / "output.txt").open("wb") as output:

        def start(*arguments: object) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, str(script), *map(str, arguments)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
            started.append(process)
            return process

        yield start
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def group_ended(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(condition: Callable[[], bool], what: str) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < PATIENCE, f"{what} did not happen"
        time.sleep(0.01)


def last_step(checkpoints: Path) -> int:
    """The newest step that was saved in the folder, 0 where there is none."""
    steps = [0]
    for path in checkpoints.glob("*.safetensors"):
        # Opened once: it may just be renamed, and safetensors' own reader opens a file twice.
        with suppress(FileNotFoundError), path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            steps.append(json.loads(header["__metadata__"]["state"])["step"])
    return max(steps)


def reached(checkpoints: Path, step: int) -> bool:
    return last_step(checkpoints) >= step


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_killed_at_random_moments_and_resumed(
    digits: Path, student_options: list[str], tmp_path: Path, start: Start
) -> None:
    options = ["--steps", "60", "--batch-size", "24", "--labels-per-class", "3", "--mixup", "0.2", "--device", "cpu"]
    options += ["--method", "weighted", "--precision", "float32", "--memory-format", "channels-last"]  # not measured

    def command(root: Path, workers: str, way: str) -> subprocess.Popen[bytes]:
        more = ["--workers", workers, "--worker-start", way, "--resume"]
        return start("distill", digits, "--output", root, *student_options, *options, *more)

    assert command(tmp_path / "whole", "1", "thread").wait() == 0
    broken = tmp_path / "broken"
    checkpoints = broken / "checkpoints"
    moments = random.Random(4)
    steps = [0]
    for sitting in SITTINGS[:-1]:
        process = command(broken, *sitting)
        wait_until(partial(reached, checkpoints, steps[-1] + moments.randint(1, 18)), "a checkpoint")
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        wait_until(partial(group_ended, process.pid), "the end of the workers")
        steps.append(last_step(checkpoints))
    assert steps == sorted(set(steps))  # each sitting went further
    assert steps[-1] < 60
    assert command(broken, *SITTINGS[-1]).wait() == 0
    assert not list(checkpoints.iterdir())
    for name in ("student/model.safetensors", "predictions.parquet"):
        assert sha256(broken / name) == sha256(tmp_path / "whole" / name)
