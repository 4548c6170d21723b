"""Figures in the README and beside the benchmarks are those of the committed results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def result(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8"))
    return content


def points(value: float) -> str:
    return f"{100 * value:.1f}"


def test_table_of_the_readme() -> None:
    summary = result("demo.json")["summary"]
    names = ("transfer", "probe", "fixmatch", "nearest", "equal", "weighted", "ceiling")
    row = "| " + " | ".join(points(summary[name]["mean"]) for name in names) + " |"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert row in text
    for rival in ("transfer", "fixmatch"):
        delta = summary["weighted"]["delta_vs"][rival]
        low, high = (points(end) for end in delta["ci95"])
        assert re.search(rf"by {points(delta['mean'])} \((95 % )?{low} to {high}\)", text)


def test_table_of_the_search() -> None:
    best: dict[tuple[int, str], float] = {}
    for trial in result("demo_settings.json")["trials"]:
        key = (trial["settings"]["steps"], trial["method"])
        best[key] = max(best.get(key, 0.0), trial["mean"])
    text = (ROOT / "benchmarks" / "demo_settings" / "README.md").read_text(encoding="utf-8")
    for steps in (60, 120):
        cells = " | ".join(points(best[steps, name]) for name in ("transfer", "fixmatch", "weighted"))
        assert re.search(rf"\| {steps} [^|]*\| {re.escape(cells)} \|", text)


def test_outside_references() -> None:
    accuracy = {name: points(each["mean"]) for name, each in result("demo_references.json")["accuracy"].items()}
    text = " ".join((ROOT / "benchmarks" / "demo_settings" / "README.md").read_text(encoding="utf-8").split())
    assert f"generic weights has {accuracy['transfer, generic weights']}" in text
    assert f"random weights {accuracy['transfer, random weights']}" in text
    assert f"64 pixels {accuracy['logistic regression']}" in text
    assert f"spreading {accuracy['label spreading, knn']} (nearest" in text


def test_the_demo_uses_the_best_settings_of_the_search() -> None:
    from potstill.pipeline.demonstration import SETTINGS

    for method in ("fixmatch", "weighted", "transfer"):
        trials = [
            trial
            for trial in result("demo_settings.json")["trials"]
            if trial["method"] == method and trial["settings"]["steps"] == SETTINGS["steps"]
        ]
        assert len(trials) == 9
        best = max(trials, key=lambda trial: trial["mean"])["settings"]
        used = {**SETTINGS, **SETTINGS["overrides"].get(method, {})}
        assert {key: used.get(key, 5e-4 if key == "weight_decay" else None) for key in best} == best
