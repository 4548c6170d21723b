"""Settings of the demo: every method searched over the same number of trials, on a split that the demo never shows.

python benchmarks/demo_settings/sweep.py [--output benchmarks/results/demo_settings.json] [--minutes 9]

One JSON file holds every trial; one that is in it is not run again, so the command can be repeated until it is done.
The demo's own split has split seed 0; the trials use split seed 1, so its test part chooses nothing here that the demo
then reports. Accuracy is the mean over the label draws of `SEEDS`. `nearest` and `equal` take the settings of
`weighted`, `ceiling` those of `transfer`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.cache import default_cache_dir
from potstill.config import build_config
from potstill.demo import student_weights, write_demo_target
from potstill.pipeline import compare
from potstill.pipeline.demonstration import SETTINGS
from potstill.reporting import environment_record

SEEDS = 3
LENGTHS = (60, 120)
GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "transfer": {"lr": (0.01, 0.03, 0.1), "weight_decay": (5e-5, 5e-4, 5e-3)},
    "fixmatch": {"lr": (0.01, 0.03, 0.1), "threshold": (0.95, 0.8, 0.6)},
    "weighted": {"lr": (0.03, 0.1, 0.2), "temperature": (1.0, 3.0, 6.0)},
}


def trials() -> Iterator[tuple[str, dict[str, Any]]]:
    """(method, settings) of every trial: as many for each method."""
    for steps, (method, grid) in itertools.product(LENGTHS, GRIDS.items()):
        for values in itertools.product(*grid.values()):
            yield method, {**dict(zip(grid, values, strict=True)), "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/demo_settings.json"))
    parser.add_argument("--minutes", type=float, default=9.0)
    arguments = parser.parse_args()
    record: dict[str, Any] = {"environment": environment_record(), "seeds": SEEDS, "split_seed": 1, "trials": []}
    if arguments.output.exists():
        record = json.loads(arguments.output.read_text(encoding="utf-8"))
    done = {(trial["method"], json.dumps(trial["settings"], sort_keys=True)) for trial in record["trials"]}
    data = write_demo_target(default_cache_dir() / "demo" / "digits")
    started = time.monotonic()
    for method, settings in trials():
        if (method, json.dumps(settings, sort_keys=True)) in done:
            continue
        if time.monotonic() - started > 60 * arguments.minutes:
            print("Time is up; repeat the command to go on.")
            return
        own = {"label_weight": 0.1, "overrides": {}, "student_weights": student_weights(), "split_seed": 1, **settings}
        config = build_config({**SETTINGS, **own})
        with tempfile.TemporaryDirectory() as folder:
            results = compare(data, Path(folder) / "run", config=config, methods=[method], seeds=SEEDS)
        summary = results["summary"][method]
        trial = {"method": method, "settings": settings, "mean": summary["mean"], "sd": summary["sd"]}
        record["trials"].append(trial)
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"{method:10s} {settings} {100 * trial['mean']:.1f} +- {100 * trial['sd']:.1f}", flush=True)


if __name__ == "__main__":
    main()
