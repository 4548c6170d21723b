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


def similarity_page() -> str:
    return (ROOT / "docs" / "similarity.md").read_text(encoding="utf-8")


def similarity_prose() -> str:
    """The page without its line breaks."""
    return " ".join(similarity_page().split())


def test_times_and_ratios_of_the_metrics() -> None:
    speed, page = result("similarity.json")["speed"]["results"], similarity_page()
    for name, seconds in speed["every_metric"]["median_seconds"].items():
        assert re.search(rf"\| `{name}` \|.*\| {1000 * seconds:.0f} \|\n", page), name
    for name, each in speed["against_ports"].items():
        port, ours = (1000 * each["median_seconds"][who] for who in ("port", "ours"))
        assert f"| {name} | {port:.1f} ms | {ours:.1f} ms | {each['ratio']:.1f}x |" in page
        assert each["reached"]


def test_coverage_of_the_intervals() -> None:
    page = similarity_page()
    for name, each in result("similarity.json")["intervals"].items():
        cells = " | ".join(f"{100 * setting['covered']:.1f} %" for setting in each["results"].values())
        assert f"| `{name}` | {cells} |" in page


def test_scale_of_the_metrics() -> None:
    page = similarity_page()
    for name, each in result("similarity.json")["scale"].items():
        cells = " | ".join(f"{size['seconds']:.2f} s" for size in each["results"].values())
        peak = each["results"]["20000"]["peak_bytes"] / 2**30
        assert f"| `{name}` | {cells} | {peak:.2f} GiB |" in page
        assert peak < 4


def test_choice_of_the_default_metric() -> None:
    truths = ("student, demo settings", "student, calm settings", "probe")
    judged = [result("metric_choice.json")["truths"][truth]["tracks"]["strict"] for truth in truths]
    page = similarity_page()
    table = page[page.index("| metric | student, demo settings |") :].split("\n\n")[0].splitlines()[2:]
    assert len(table) > 20
    for row in table:
        name, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        metrics = [each["metrics"][name.strip("`")] for each in judged]
        assert cells[:3] == [points(each["regret"]["mean"]) for each in metrics]
        assert cells[3:] == [f"{each['tau']['mean']:.2f}" for each in metrics[:2]]
    page = similarity_prose()
    for each in judged[:2]:
        against = each["left_out"]["target"]["regret_less_parc"]
        low, high = against["ci95"]
        assert f"{100 * against['mean']:+.2f} points (95 % {100 * low:+.2f} to {100 * high:+.2f})" in page
        assert low < 0 < high  # no other metric is clearly better on targets that took no part in choosing it


def test_what_public_code_gets_wrong() -> None:
    found, page = result("similarity.json")["agreement"]["results"], similarity_prose()
    port = found["parc_port"]["37"]["port"]
    assert f"{min(port):.3f} to {max(port):.3f} where {found['parc_port']['37']['ours'][0]:.3f} is exact" in page
    assert len(set(found["parc_port"]["37"]["ours"])) == 1  # every numbering of the classes
    logme = found["logme_port"]["2048"]
    assert f"({logme['ours']:.3f} where the port says {logme['as published']:.2f})" in page
    assert f"{found['biased_cka']['port']:.3f} for pure noise" in page


def test_metrics_agree_with_their_references() -> None:
    found = result("similarity.json")["agreement"]["results"]
    assert not found["references"]["without_reference"]
    assert max(found["references"]["largest_difference"].values()) <= 1e-8
    assert max(found["invariance"]["largest_change"].values()) <= 1e-9


def test_resamples_cost_at_most_ten_tables() -> None:
    assert result("similarity.json")["speed"]["results"]["table"]["resamples_over_plain"] <= 10
