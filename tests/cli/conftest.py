"""Running commands as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from potstill.cli import main

FAST = ["--student", "timm/test_efficientnet", "--image-size", "32", "--steps", "4", "--batch-size", "24"]


@dataclass(frozen=True)
class Outcome:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def potstill(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call the command line in this process: `potstill("rank", folder, ...) -> Outcome`."""
    import signal

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["potstill", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        printed = capfd.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture
def student_options(models: Path) -> list[str]:
    """Options of a student that trains in a second."""
    return [*FAST, "--student-weights", str(models / "student.safetensors"), "--zoo", str(models / "zoo.yaml")]


@pytest.fixture
def start_potstill(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the command line in a process of its own, for what only a process can show; its output goes to a file."""
    started: list[subprocess.Popen[bytes]] = []
    with (tmp_path / "output.txt").open("wb") as output:

        def start(*arguments: object) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "potstill", *map(str, arguments)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
            started.append(process)
            return process

        yield start
        for process in started:
            process.kill()
            process.wait()
