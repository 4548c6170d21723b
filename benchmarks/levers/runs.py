"""Every lever on every target and label draw: one student each.

    python benchmarks/levers/runs.py [--part 0/2] [--minutes 9]

Repeat the command until it says that all runs are done: each run leaves a file under `.build-data/levers/runs/`, and
what is there is not run again. Needs the targets of benchmarks/metric_choice/targets.py. A run takes 3 to 15 seconds
on one core; all of them are 360.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from levers import BASE, LABELS_PER_CLASS, LEVERS, SEEDS, TARGETS
from potstill.config import RunConfig, build_config
from potstill.demo import STUDENT, student_weights
from potstill.pipeline.preparation import Material, gather_material, open_configured
from potstill.pipeline.ranking import rank_material
from potstill.pipeline.student_runs import train_method
from potstill.types import Ranking, Target

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "metric_choice"))

from targets import TARGETS as KINDS  # noqa: E402


def main() -> None:
    arguments = _parse()
    torch.set_num_threads(1)
    started = time.monotonic()
    runs = arguments.data / "levers" / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    wanted = list(itertools.product(TARGETS, SEEDS, LEVERS))
    number, parts = (int(text) for text in arguments.part.split("/"))
    # Runs of one target and draw share their preparation, so parts are made of those.
    draws = list(itertools.product(TARGETS, SEEDS))
    for name, seed, lever in wanted:
        path = runs / f"{name}-{seed}-{lever.replace(' ', '_')}.json"
        if path.exists() or draws.index((name, seed)) % parts != number:
            continue
        if time.monotonic() - started > 60 * arguments.minutes:
            print("Time is up; repeat the command to go on.")
            return
        record = _run_once(name, seed, lever, arguments.data)
        path.with_suffix(".unfinished").write_text(json.dumps(record) + "\n", encoding="utf-8")
        path.with_suffix(".unfinished").replace(path)
        print(f"{name:17s} {seed} {lever:36s} {100 * record['accuracy']:.1f} {record['train_seconds']} s", flush=True)
    print("All runs are done.")


def _run_once(name: str, seed: int, lever: str, data: Path) -> dict[str, Any]:
    target, material, ranking = _drawn(name, seed, data)
    config = replace(_config(name, seed, data), **LEVERS[lever])
    with tempfile.TemporaryDirectory() as folder:
        run = train_method("weighted", target, material, ranking, config, directory=Path(folder))
    keep = ("accuracy", "nll", "ece", "images_seen", "images_trained", "train_seconds")
    return {"target": name, "seed": seed, "lever": lever, **{key: run.record[key] for key in keep}}


@cache
def _drawn(name: str, seed: int, data: Path) -> tuple[Target, Material, Ranking]:
    config = _config(name, seed, data)
    target = open_configured(data / "metric_choice" / "targets" / name, config)
    material = gather_material(target, config)
    return target, material, rank_material(material, target, config, scores_only=True)


def _config(name: str, seed: int, data: Path) -> RunConfig:
    return build_config(
        {
            **BASE,
            "seed": seed,
            "labels_per_class": LABELS_PER_CLASS,
            "zoo": str(_strict_zoo(name, data)),
            "student": STUDENT,
            "student_weights": student_weights(),
            "cache_dir": data / "metric_choice" / "cache",
        }
    )


@cache
def _strict_zoo(name: str, data: Path) -> Path:
    """The zoo without the sources that know the target's classes or pictures."""
    folder = data / "metric_choice"
    sources = yaml.safe_load((folder / "zoo.yaml").read_text(encoding="utf-8"))["sources"]
    path = folder / f"zoo-for-{name}.yaml"
    kept = [source for source in sources if source["name"] not in KINDS[name][1]]
    path.write_text(yaml.safe_dump({"sources": kept}, sort_keys=False), encoding="utf-8")
    return path


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".build-data"))
    parser.add_argument("--part", default="0/1", help="i/n: every n-th target and draw, from the i-th")
    parser.add_argument("--minutes", type=float, default=9.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
