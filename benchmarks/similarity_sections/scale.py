"""Seconds and peak memory of metrics on up to 20,000 labeled images, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill.similarity import SIMILARITIES
from recording import peak_bytes
from similarity_sections.problems import SIGNAL, Network, labels_of

METRICS = ("parc", "cka", "knn", "logme", "hscore")
SIZES = (500, 1000, 2000, 5000, 10_000, 20_000)
DIMENSIONS, CLASSES = 1280, 100
GOAL_BYTES = 4 * 2**30
MOST_SECONDS = 240.0  # of one process
BENCHMARKS = Path(__file__).resolve().parents[1]


def measure_scale(metrics: Sequence[str], sizes: Sequence[int], threads: int) -> dict[str, Any]:
    """The section `scale` of the record, of these metrics: metric -> images -> seconds and peak bytes."""
    found: dict[str, Any] = {}
    for metric in metrics:
        found[metric] = {}
        for images in sizes:
            found[metric][str(images)] = one = _in_own_process(metric, images, threads)
            print(f"{metric:8s} {images:6d} images: {one}", flush=True)
            if "error" in one:
                break  # more images will not do either
    return found


def _in_own_process(metric: str, images: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, metric, str(images)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(
            command, env=environment, cwd=BENCHMARKS, capture_output=True, text=True, timeout=MOST_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {MOST_SECONDS:g} seconds"}
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": f"exit code {done.returncode}: {last}"}  # a negative one: ended by the system
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "within_goal": result["peak_bytes"] < GOAL_BYTES}


def measure_one(metric: str, images: int) -> dict[str, Any]:
    """What the process of one metric and size prints. Features are float32, as a model gives them."""
    labels = labels_of(images, CLASSES)
    network = Network(CLASSES, DIMENSIONS, signal=SIGNAL, seed=0)
    features = np.empty((images, DIMENSIONS), dtype=np.float32)
    for start in range(0, images, 1000):  # in parts, so that making them leaves no mark on the peak
        rows = slice(start, start + 1000)
        features[rows] = network.features(labels[rows], seed=start)
    before = peak_bytes()
    start_time = time.perf_counter()
    score = SIMILARITIES[metric].function(features, labels)
    seconds = time.perf_counter() - start_time
    return {"seconds": seconds, "peak_bytes": peak_bytes(), "peak_bytes_before": before, "score": score}


if __name__ == "__main__":
    print(json.dumps(measure_one(sys.argv[1], int(sys.argv[2]))))
