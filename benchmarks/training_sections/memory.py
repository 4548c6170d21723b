"""Peak memory of training with and without sources, each run in a process of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from recording import peak_bytes

BENCHMARKS = Path(__file__).resolve().parents[1]
PLAIN = "plain"
PROCESSES = 3  # of each variant, in turns
STEPS = 6


def measure_memory(zoos: Sequence[str], goal: float, *, judged: Sequence[str]) -> dict[str, Any]:
    """Peak bytes of a few steps, over all and above what the process had after its imports; medians of PROCESSES.

    The goal is about all that the process needs; the imports, which are the same in all, make that ratio smaller, so
    the ratio of what training adds stands beside it.
    """
    found: dict[str, list[dict[str, int]]] = {variant: [] for variant in (PLAIN, *zoos)}
    for _ in range(PROCESSES):
        for variant, results in found.items():
            results.append(_in_own_process(variant))
    medians = {
        variant: {key: statistics.median(each[key] for each in results) for key in ("peak_bytes", "added_bytes")}
        for variant, results in found.items()
    }
    over_plain: dict[str, dict[str, Any]] = {}
    for zoo in zoos:
        total, added = (medians[zoo][key] / medians[PLAIN][key] for key in ("peak_bytes", "added_bytes"))
        over_plain[zoo] = {"total": total, "added": added}
        if zoo in judged:
            over_plain[zoo] |= {"goal": goal, "reached": total <= goal}
        print(
            f"memory, {zoo:14s} {medians[zoo]['added_bytes'] / 2**20:.0f} MiB added, {added:.3f}x; total {total:.3f}x",
            flush=True,
        )
    return {"processes": PROCESSES, "steps": STEPS, "medians": medians, "all": found, "over_plain": over_plain}


def _in_own_process(variant: str) -> dict[str, int]:
    threads = str(torch.get_num_threads())
    command = [sys.executable, "-m", __name__, variant]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    done = subprocess.run(command, env=environment, cwd=BENCHMARKS, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure_one(variant: str) -> dict[str, int]:
    """What the process of one variant prints."""
    from training_sections.workload import ZOOS, distilled_run, measured_compute, seconds_of_step, supervised_run

    # Choosing a layout by measurement would leave its own mark on the peak; the parent has done it.
    compute = measured_compute("timm/mobilenetv3_small_100")
    before = peak_bytes()
    run = supervised_run(compute=compute) if variant == PLAIN else distilled_run(ZOOS[variant], compute=compute)
    seconds_of_step(run, STEPS)
    return {"peak_bytes": peak_bytes(), "added_bytes": peak_bytes() - before}


if __name__ == "__main__":
    print(json.dumps(_measure_one(sys.argv[1])))
