"""The truth: how well a student and a probe learn each target from each single source; and what metrics may look at.

    python benchmarks/metric_choice/runs.py --regime demo --seeds 0 1 [--minutes 8]
    python benchmarks/metric_choice/runs.py --regime calm --seeds 0

Repeat the command until it says that all runs are done; what is in `.build-data/metric_choice/runs/` is not run again.
A run is one (regime of training, seed, label budget, target, source): `<name>.json` has the accuracies, `<name>.npz`
the labels, features and logits of the labeled training images, which are all that a metric sees.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from targets import TARGETS

import potstill as ps
from potstill.demo import STUDENT, student_weights
from potstill.pipeline.demonstration import DISTILLATION
from potstill.probes import fit_probe, probe_logits
from potstill.types import SourceOutputs, SourceWeights, Target, Zoo

BUDGETS = (2, 5, 10)  # labels a class
SEEDS = (0, 1, 2)
SETTINGS: dict[str, Any] = {
    "image_size": 32,
    "batch_size": 96,
    "steps": 60,
    "device": "cpu",
    "workers": 0,
    "offline": True,
    "metric": "params",  # distilling asks for some ranking and does not use it; this one costs nothing
}
# How the student trains decides how much a bad source can harm, so there are two ways.
REGIMES: dict[str, dict[str, float]] = {
    # The demo's, searched on digits and the mini zoo (benchmarks/demo_settings): the source's answers are nearly all.
    "demo": DISTILLATION,
    # The package's defaults of `distill` but for the learning rate, which at 0.03 learns little in 60 steps.
    "calm": {"lr": 0.1, "temperature": 1.0, "label_weight": 0.3},
}


def open_drawn(folder: Path, name: str, budget: int, seed: int, cache_dir: Path) -> Target:
    """The target with the labels of one draw visible."""
    return ps.open_target(folder / "targets" / name, labels_per_class=budget, seed=seed, cache_dir=cache_dir)


def probe_accuracy(outputs: SourceOutputs, target: Target) -> float:
    """Test accuracy of a probe on the source's features of the labeled images."""
    if outputs.features is None:
        raise ValueError(f"{outputs.source} stores no features")
    split = target.split
    labeled, test = (
        np.asarray(outputs.features[outputs.rows(ids)], dtype=np.float64) for ids in (split.labeled, split.test)
    )
    probe = fit_probe(labeled, target.labels_of(split.labeled), len(target.classes))
    guesses = probe_logits(probe, test).argmax(axis=1)
    return float((guesses == target.labels_of(split.test)).mean())


def save_scoring_set(outputs: SourceOutputs, target: Target, path: Path) -> None:
    """What a metric may look at: labels, features and, where the source has classes, logits."""
    ids = target.split.labeled
    rows = outputs.rows(ids)
    arrays = {"labels": target.labels_of(ids), "features": np.asarray(outputs.features[rows])}
    if outputs.logits is not None:
        arrays["logits"] = outputs.logits.logits(rows)
    np.savez(path, **arrays)


def facts_of(source: str, outputs: SourceOutputs, zoo: Zoo) -> dict[str, Any]:
    """What is known of a source without any image."""
    accuracy = zoo.sources[source].accuracy
    return {
        "params": outputs.cost.params,
        "depth": outputs.cost.depth,
        "stated_accuracy": float(accuracy["value"]) if accuracy else None,
    }


def run_once(
    source: str, target: Target, outputs: Mapping[str, SourceOutputs], zoo: Zoo, path: Path, key: Mapping[str, Any]
) -> dict[str, Any]:
    """Distil the one source, fit its probe, write both accuracies; the JSON appears last, when all is there."""
    started = time.monotonic()
    run = ps.distill(
        target,
        {source: outputs[source]},
        weights=SourceWeights("nearest", {source: 1.0}),
        student=STUDENT,
        student_weights=student_weights(),
        **SETTINGS,
        **REGIMES[str(key["regime"])],
    )
    record = {
        **key,
        "classes": len(target.classes),
        "labeled": len(target.split.labeled),
        "test_images": len(target.split.test),
        "student": run.record["accuracy"],
        "probe": probe_accuracy(outputs[source], target),
        **facts_of(source, outputs[source], zoo),
        "seconds": round(time.monotonic() - started, 2),
    }
    save_scoring_set(outputs[source], target, path.with_suffix(".npz"))
    path.with_suffix(".unfinished").write_text(json.dumps(record) + "\n")
    path.with_suffix(".unfinished").replace(path)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".build-data"))
    parser.add_argument("--regime", choices=REGIMES, default="demo")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    folder = arguments.data / "metric_choice"
    runs = folder / "runs" / arguments.regime
    runs.mkdir(parents=True, exist_ok=True)
    zoo = ps.load_zoo(folder / "zoo.yaml")

    @cache
    def outputs_of(name: str) -> dict[str, SourceOutputs]:
        target = open_drawn(folder, name, 2, 0, folder / "cache")
        return ps.extract(target, zoo, cache_dir=folder / "cache", device="cpu", workers=1, offline=True)

    for seed, budget, name in itertools.product(arguments.seeds, arguments.budgets, TARGETS):
        paths = {source: runs / f"{name}-{budget}-{seed}-{source}.json" for source in zoo.sources}
        missing = [source for source, path in paths.items() if not path.exists()]
        if not missing:
            continue
        target, outputs = open_drawn(folder, name, budget, seed, folder / "cache"), outputs_of(name)
        for source in missing:
            if time.monotonic() - started > 60 * arguments.minutes:
                print("Time is up; repeat the command to go on.")
                return
            key = {"regime": arguments.regime, "target": name, "budget": budget, "seed": seed, "source": source}
            record = run_once(source, target, outputs, zoo, paths[source], key)
            accuracies = f"student {100 * record['student']:.1f}  probe {100 * record['probe']:.1f}"
            print(f"{name:17s} {budget:2d} {seed} {source:18s} {accuracies}  {record['seconds']} s", flush=True)
    print("All runs are done.")


if __name__ == "__main__":
    main()
