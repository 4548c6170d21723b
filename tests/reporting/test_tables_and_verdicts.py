"""The tables fit a terminal and hold the figures; the verdicts say what the intervals say."""

import io

import pytest
from rich.console import Console

from potstill.reporting import (
    comparison_table,
    comparison_verdict,
    metrics_table,
    ranking_table,
    ranking_verdict,
    read_results,
)


def shown(table, width=80):
    console = Console(file=io.StringIO(), width=width, no_color=True)
    console.print(table)
    return console.file.getvalue()


def made_results(means, deltas=None, *, seeds=2, references=()):
    """Results with the given means; `deltas` maps (method, other) to (mean, low, high)."""
    summary = {
        name: {"mean": mean, "sd": 0.01, "ci95": [mean - 0.02, mean + 0.02], "delta_vs": {}}
        for name, mean in means.items()
    }
    for (method, other), (mean, low, high) in (deltas or {}).items():
        summary[method]["delta_vs"][other] = {"mean": mean, "ci95": [low, high]}
        summary[other]["delta_vs"][method] = {"mean": -mean, "ci95": [-high, -low]}
    runs = [
        {
            "method": name,
            "seed": seed,
            "status": "done",
            "accuracy": mean,
            "images_trained": 9000,
            "train_seconds": 75.0,
        }
        | {"student": {"name": "timm/x", "params": 2_500_000, "macs": None}}
        for name, mean in means.items()
        for seed in range(seeds)
    ]
    return {"schema": 1, "target": "t", "runs": runs, "summary": summary, "references": list(references)}


def test_ranking_table_has_every_source_and_fits(ranking):
    text = shown(ranking_table(ranking))
    assert max(map(len, text.splitlines())) <= 80
    rows = [line for line in text.splitlines() if any(row["name"] in line for row in ranking["sources"])]
    assert [line.split()[1] for line in rows[:5]] == ["plants", "insects", "imagenet", "letters", "broken"]
    assert "0.612  0.552..0.662   93 %   3.4 M  13 s  Apache-2.0" in text
    assert "broken: the weights file is missing" in text


def test_ranking_verdict_names_the_failed(ranking):
    text = ranking_verdict(ranking)
    assert text.startswith("plants is the most related source (parc 0.612), before insects (0.487).")
    assert "first in 93 % of the resamples" in text
    assert "The first place is not decided: insects cannot be told apart from it; more labels would tell." in text
    assert "clearly related" not in text
    assert text.endswith("Without a score: broken (the weights file is missing).")


def test_ranking_verdict_of_few_labels_and_of_unrelated_sources(ranking):
    for row in ranking["sources"]:
        row |= {"rank_probability": None, "p_value": 0.43}
    ranking |= {"resamples": 0, "decided": None, "tied_with_first": [], "related": False}
    text = ranking_verdict(ranking)
    assert "nothing is decidable" in text
    assert "No source is clearly related to the target" in text
    assert "against 99 shufflings of the labels the smallest p-value is 0.43" in text


def test_metrics_stand_side_by_side_with_baselines_and_agreement(ranking):
    lines = shown(metrics_table(ranking)).splitlines()
    assert max(map(len, lines)) <= 80
    cells = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert cells["source"] == ["parc", "knn", "params", "depth"]
    assert cells["insects"] == ["0.487", "0.587", "4.4", "M", "50"]
    assert cells["broken"] == ["-", "-", "-", "-"]
    assert cells["agreement"] == ["with", "parc", "+1.00", "+0.67", "-1.00", "-"]
    for row in ranking["sources"]:
        row["scores"].pop("knn", None)
    assert metrics_table(ranking) is not None  # the baselines stand beside a single metric too
    for row in ranking["sources"]:
        row.pop("baselines", None)
    assert metrics_table(ranking) is None


def test_ranking_of_nothing_but_failures(ranking):
    ranking["sources"] = ranking["sources"][-1:]
    assert ranking_verdict(ranking).startswith("No source has a score. Without a score: broken")
    assert "failed" in shown(ranking_table(ranking))


def test_comparison_table_fits_and_is_ordered(comparison):
    results = read_results(comparison)
    lines = shown(comparison_table(results)).splitlines()
    assert max(map(len, lines)) <= 80
    methods = [line.split()[0] for line in lines if line and line.split() and line.split()[0] in results["summary"]]
    assert methods == sorted(methods, key=lambda name: -results["summary"][name]["mean"])
    assert any("source-probe" in line for line in lines)


def test_comparison_table_figures():
    results = made_results({"weighted": 0.8, "transfer": 0.7}, {("weighted", "transfer"): (0.1, 0.05, 0.16)})
    lines = [line.split() for line in shown(comparison_table(results)).splitlines() if line.strip()]
    row = next(index for index, line in enumerate(lines) if line[0] == "weighted")
    assert lines[row] == ["weighted", "80.0", "1.0", "+10.0", "9000", "75", "s", "2.5", "M"]
    assert lines[row + 1] == ["78.0..82.0", "5.0..16.0"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.05, 0.16, "weighted is ahead of transfer by 10.0 points (95 % 5.0 to 16.0)."),
        (-0.01, 0.2, "weighted and transfer are tied (+10.0 points, 95 % -1.0 to +20.0)."),
        (0.0, 0.2, "weighted and transfer are tied (+10.0 points, 95 % 0.0 to +20.0)."),
    ],
)
def test_comparison_verdict_follows_the_interval(low, high, expected):
    results = made_results({"weighted": 0.8, "transfer": 0.7}, {("weighted", "transfer"): (0.1, low, high)})
    assert comparison_verdict(results) == f"weighted has the highest accuracy: 80.0 %. {expected}"


def test_a_winning_baseline_is_said_plainly():
    results = made_results({"transfer": 0.8, "weighted": 0.7}, {("transfer", "weighted"): (0.1, 0.05, 0.16)})
    assert "transfer is ahead of weighted by 10.0 points" in comparison_verdict(results)


def test_the_ceiling_never_wins():
    results = made_results({"ceiling": 0.9, "transfer": 0.7}, {("ceiling", "transfer"): (0.2, 0.1, 0.3)})
    text = comparison_verdict(results)
    assert text.startswith("transfer has the highest accuracy")
    assert "With all training labels the same student reaches 90.0 %." in text


def test_a_better_reference_and_a_lone_seed_are_said():
    reference = {"name": "source-probe", "source": "big", "seed": 0, "accuracy": 0.95, "params": 86_000_000}
    text = comparison_verdict(made_results({"weighted": 0.8}, seeds=1, references=[reference]))
    assert "A linear classifier on the source big reaches more: 95.0 %, with 86.0 M parameters." in text
    assert "one seed only" in text
    reference["accuracy"] = 0.75
    assert "big" not in comparison_verdict(made_results({"weighted": 0.8}, seeds=1, references=[reference]))


def test_failed_runs_are_named():
    results = made_results({"weighted": 0.8})
    results["runs"].append({"method": "fixmatch", "seed": 1, "status": "failed", "accuracy": None})
    assert comparison_verdict(results).endswith("Failed: fixmatch with seed 1 (no reason recorded).")
    results["runs"][-1]["error"] = "the loss is not finite"
    results["runs"] = results["runs"][-1:]
    assert comparison_verdict({**results, "summary": {}}) == (
        "No run finished. Failed: fixmatch with seed 1 (the loss is not finite)."
    )


def test_a_single_run():
    results = made_results({"transfer": 0.7}, seeds=1)
    results["summary"] = {}
    assert comparison_verdict(results) == "transfer reaches 70.0 % accuracy on the test images."
    assert "70.0" in shown(comparison_table(results))


def test_a_run_without_test_images_is_judged_by_its_folds():
    run = {"method": "weighted", "seed": 0, "status": "done", "accuracy": None}
    results = {"runs": [run], "summary": {}}
    assert comparison_verdict(results) == "weighted was trained; there were no test images to judge it by."
    run["cross_validation"] = {"images": 40, "folds": 5, "repeats": 2, "accuracy": 0.9}
    expected = "Cross-validated over 40 labeled images (5 folds, 2 times), weighted reaches 90.0 %."
    assert comparison_verdict(results) == expected
    assert "weighted" in shown(comparison_table(results))


def test_a_reference_without_a_figure_is_left_out():
    reference = {"name": "source-probe", "source": None, "seed": 0, "accuracy": None, "params": None}
    results = made_results({"weighted": 0.8}, references=[reference])
    assert "probe" not in shown(comparison_table(results)) + comparison_verdict(results)


def test_user_text_is_not_markup(ranking):
    ranking["sources"][0] |= {"name": "[red]x[/blue]", "license": "[bold]"}
    assert "[red]x[/blue]" in shown(ranking_table(ranking), width=100)
