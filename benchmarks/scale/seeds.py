"""Does it matter to accuracy that each process normalises by the statistics of its own part of a batch?

The digits of the demo, five label draws, one process beside two; `--bn batch` without SyncBatchNorm, as on CPUs.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from potstill.demo import STUDENT, student_weights, write_demo_target

METHODS = "transfer,weighted"
SEEDS = 5


def measure_seeds(folder: Path) -> dict[str, Any]:
    data = write_demo_target(folder / "digits")
    accuracies = {str(count): _accuracies(folder, data, count) for count in (1, 2)}
    found: dict[str, Any] = {"accuracies": accuracies, "seeds": SEEDS, "settings": _settings(folder)[2:]}
    for method in METHODS.split(","):
        one, two = accuracies["1"][method], accuracies["2"][method]
        found[method] = {
            "mean_one_process": statistics.mean(one),
            "mean_two_processes": statistics.mean(two),
            "sd_of_seeds": statistics.stdev(one),
            "mean_difference": statistics.mean(b - a for a, b in zip(one, two, strict=True)),
        }
    return found


def _settings(folder: Path) -> list[str]:
    student = f"--student {STUDENT} --image-size 32 --lr 0.03 --temperature 6 --label-weight 0.3 --bn batch"
    length = f"--methods {METHODS} --labels-per-class 4 --batch-size 96 --steps 60 --device cpu --offline"
    return ["--cache-dir", str(folder / "cache-digits"), "--zoo", "mini", *student.split(), *length.split()]


def _accuracies(folder: Path, data: Path, processes: int) -> dict[str, list[float]]:
    output = folder / f"digits-{processes}"
    shutil.rmtree(output, ignore_errors=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "potstill", "compare", str(data)]
    command += ["--output", str(output), "--seeds", str(SEEDS), "--student-weights", str(student_weights())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *_settings(folder)], check=True, env=environment)
    runs = json.loads((output / "results.json").read_text(encoding="utf-8"))["runs"]
    return {
        method: [run["accuracy"] for run in sorted(runs, key=lambda run: run["seed"]) if run["method"] == method]
        for method in METHODS.split(",")
    }
