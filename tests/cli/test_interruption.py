"""A comparison that is killed at any moment goes on to the same results."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from potstill.reporting import read_json

METHODS = "transfer,fixmatch,weighted"


def without_times(value: Any) -> Any:
    """The results with every duration left out."""
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if not key.endswith("seconds")}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def wait_for_students(process: subprocess.Popen[bytes], root: Path, count: int) -> None:
    """Until that many students are finished and the next has begun, or the process has ended."""
    while process.poll() is None:
        if len(list(root.glob("*/config.yaml"))) > count and len(list(root.glob("*/results.json"))) >= count:
            return
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_at_random_moments_and_resumed(
    digits: Path,
    student_options: list[str],
    tmp_path: Path,
    start_potstill: Callable[..., subprocess.Popen[bytes]],
    number: signal.Signals,
) -> None:
    options = [*student_options, "--steps", "25", "--labels-per-class", "3", "--methods", METHODS, "--seeds", "2"]

    def command(root: Path, *more: str) -> list[object]:
        return ["compare", digits, "--output", root, *options, *more]

    assert start_potstill(*command(tmp_path / "whole")).wait() == 0
    # Moments are counted in students that are done, not in seconds: a machine's pace changes from run to run.
    chance = random.Random(int(number))
    codes = []
    for finished in (0, 1, 3):
        broken = start_potstill(*command(tmp_path / "broken", "--resume"))
        wait_for_students(broken, tmp_path / "broken", finished)
        time.sleep(chance.uniform(0, 0.2))
        broken.send_signal(number)
        codes.append(broken.wait())
    # A signal that comes while the interpreter still starts ends it in the usual way; nothing has begun then.
    assert 130 in codes
    assert set(codes) <= {0, 130, -number}
    last = start_potstill(*command(tmp_path / "broken", "--resume"))
    assert last.wait() == 0
    expected, given = (read_json(tmp_path / name / "results.json") for name in ("whole", "broken"))
    assert without_times(given) == without_times(expected)
    for path in (tmp_path / "whole").glob("*/student/model.safetensors"):
        one, other = load_file(path), load_file(tmp_path / "broken" / path.relative_to(tmp_path / "whole"))
        assert all((one[name] == other[name]).all() for name in one)
