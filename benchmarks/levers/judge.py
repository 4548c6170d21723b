"""Effects of the levers: paired differences to the base, over targets and label draws.

    python benchmarks/levers/judge.py     # .build-data/levers/runs/ -> benchmarks/results/levers.json, docs/training.md

The effect of a lever is the mean over targets of the mean over draws of its accuracy less that of the base. Its 95 %
interval is Student's over targets, because what one wants to know is the next target.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from levers import BASE, LABELS_PER_CLASS, LEVERS, SEEDS, TARGETS
from potstill.reporting import environment_record

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from recording import commit_of  # noqa: E402
from tables import table, write_tables  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "levers.json"
PAGE = ROOT / "docs" / "training.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".build-data"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    records = [json.loads(path.read_text()) for path in (arguments.data / "levers" / "runs").glob("*.json")]
    found = {(each["lever"], each["target"], each["seed"]): each for each in records}
    missing = [
        (lever, name, seed)
        for lever in LEVERS
        for name in TARGETS
        for seed in SEEDS
        if (lever, name, seed) not in found
    ]
    if missing:
        raise SystemExit(f"{len(missing)} runs are missing, the first: {missing[0]}. Run runs.py until it is done.")
    result = {
        "schema": 1,
        "commit": commit_of("benchmarks/levers"),
        "environment": environment_record(),
        "base": {**BASE, "labels_per_class": LABELS_PER_CLASS},
        "targets": list(TARGETS),
        "seeds": list(SEEDS),
        "levers": {lever: {"settings": LEVERS[lever], **judge_lever(lever, found)} for lever in LEVERS},
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_tables(PAGE, tables_of(result))
    print(tables_of(result)["levers"], end="")


def tables_of(result: Mapping[str, Any]) -> dict[str, str]:
    """The table of docs/training.md: accuracy and effect of each lever in points."""
    rows = []
    for lever, row in result["levers"].items():
        effect, low, high = (100 * each for each in (row["effect"], *row["effect_ci95"]))
        told = "" if lever == "base" else f"{effect:+.1f} ({low:+.1f} to {high:+.1f})"
        rows.append([lever, f"{100 * row['accuracy']:.1f}", told])
    return {"levers": table(["setting", "accuracy", "effect (95 % interval over targets)"], rows)}


def judge_lever(lever: str, found: dict[tuple[str, str, int], dict[str, Any]]) -> dict[str, Any]:
    """Accuracy, and effect against the base with its interval, of one lever."""
    accuracy = np.array([[found[lever, name, seed]["accuracy"] for seed in SEEDS] for name in TARGETS])
    base = np.array([[found["base", name, seed]["accuracy"] for seed in SEEDS] for name in TARGETS])
    by_target = (accuracy - base).mean(axis=1)
    half = stats.t.ppf(0.975, len(by_target) - 1) * by_target.std(ddof=1) / np.sqrt(len(by_target))
    passes = np.mean([found[lever, name, seed]["images_trained"] for name in TARGETS for seed in SEEDS])
    return {
        "accuracy": float(accuracy.mean()),
        "effect": float(by_target.mean()),
        "effect_ci95": [float(by_target.mean() - half), float(by_target.mean() + half)],
        "effect_by_target": dict(zip(TARGETS, by_target.tolist(), strict=True)),
        "accuracy_by_run": {name: row.tolist() for name, row in zip(TARGETS, accuracy, strict=True)},
        "image_passes": float(passes),
    }


if __name__ == "__main__":
    main()
