"""What was measured on development targets without students: schemes of weights, the guard of `auto`, their tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from potstill.config import build_config
from potstill.data import redraw_labels
from potstill.pipeline.preparation import gather_material, open_configured
from suite.development import TARGETS
from suite.development_tables import guard_table, stack_weights_table
from suite.estimates import TargetRuns
from suite.run import PROTOCOL
from suite.source_choice import CHANCE, METRICS, accuracies_in_halves, choice_table, cross_fitted_regrets, scores_on
from suite.stack_weights import SCHEMES, accuracies


def test_every_scheme_reads_telling_sources(digits: Path, models: Path, tmp_path: Path) -> None:
    config = build_config({"zoo": str(models / "zoo.yaml"), "cache_dir": tmp_path / "cache", "offline": True})
    gathered = gather_material(open_configured(digits, config), config)
    target = redraw_labels(gathered.target, 0, labels_per_class=4)
    known = {**target.labels, **target.hidden_labels}
    outputs = {
        name: replace(each, features=np.eye(len(target.classes))[[known[image_id] for image_id in each.image_ids]])
        for name, each in gathered.outputs.items()
    }
    found = accuracies(replace(gathered, outputs=outputs), target)
    assert found == dict.fromkeys(SCHEMES, 1.0)


def test_no_target_of_the_report_is_looked_at() -> None:
    reported = PROTOCOL.read_text(encoding="utf-8").partition("  main:")[2].partition("seeds:")[0]
    assert "targets: [" in reported
    assert not [name for name in TARGETS if name in reported]


def test_tables_hold_the_figures_of_their_files(tmp_path: Path) -> None:
    rows = [
        {"target": "units", "label_fraction": 0.2, "accuracy": {"all alike": 0.5}},
        {"target": "signs", "label_fraction": 0.2, "accuracy": {"all alike": 0.7}},
        {"target": "units", "labels_per_class": 4, "accuracy": {"all alike": 0.25}},
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"rows": rows}))
    assert stack_weights_table(file).splitlines()[-1] == "| `all alike` | 60.0 | 25.0 | 50.0 | 70.0 |"
    losses = [
        {"own": 2.0, "all": 1.0, "unrelated": 1.9, "shuffled": 4.0},
        {"own": 1.0, "all": 0.9, "unrelated": 1.1, "shuffled": 3.0},
    ]
    file.write_text(json.dumps({"rows": [{"held_out_loss": each} for each in losses]}))
    assert guard_table(file).splitlines()[2:] == [
        "| all | 2 of 2 | 0.50 | 0.70 | 0.90 |",
        "| unrelated | 1 of 2 | 0.95 | 1.02 | 1.10 |",
        "| shuffled | 0 of 2 | 2.00 | 2.50 | 3.00 |",
    ]


def test_a_choice_of_source_is_judged_by_a_draw_that_did_not_choose_the_best() -> None:
    accuracies = np.array([[[50.0, 60.0, 61.0], [0.0, 1.0, 2.0]], [[3.0, 5.0, 4.0], [52.0, 70.0, 60.0]]])
    first_alone = np.array([[9.0, 1.0, 1.0], [9.0, 1.0, 1.0]])
    # Best by the other draw and the other half: source 1 for draw 0, source 2 for draw 1.
    by_hand = [[60 - 50, 1 - 0], [4 - 3, 60 - 52]]
    np.testing.assert_allclose(cross_fitted_regrets(first_alone, accuracies), by_hand)
    shared = cross_fitted_regrets(np.zeros((2, 3)), accuracies)  # equal scores share the choice
    np.testing.assert_allclose(shared, [[60 - 57, 0], [0, 60 - 182 / 3]])
    undefined = np.array([[np.nan, -5.0, np.nan], [-7.0, np.nan, -9.0]])
    np.testing.assert_allclose(cross_fitted_regrets(undefined, accuracies), [[0, 0], [4 - 3, 60 - 52]])


def test_halves_of_the_test_part_share_no_group() -> None:
    groups = ["a", "a", "b", "c", "c", "d"]
    # Every source is right on one group alone, so it is right on images of one half alone.
    correct = {(name, 0): np.array([group == name for group in groups]) for name in "abcd"}
    found = accuracies_in_halves(TargetRuns("units", correct, groups), "abcd", [0])
    assert found.shape == (1, 2, 4)
    assert ((found[0] > 0).sum(axis=0) == 1).all()
    assert ((found[0] > 0).sum(axis=1) == 2).all()


def test_the_table_of_choices_puts_the_least_regret_first(tmp_path: Path) -> None:
    regrets = {"units": (0.5, 3.0), "terrain": (1.5, 5.0), "mnist": (0.0, 1.0)}
    rows = [{"target": name, "regret": {CHANCE: chance, "parc": parc}} for name, (parc, chance) in regrets.items()]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"rows": rows}))
    first, second = choice_table(file).splitlines()[2:]
    assert first.startswith("| parc | 0.7 | 1.5 | +2.3 (")
    assert second == f"| {CHANCE} | 3.0 | 5.0 |  |"


def test_every_metric_scores_the_sources_of_a_draw(digits: Path, models: Path, tmp_path: Path) -> None:
    config = build_config({"zoo": str(models / "zoo.yaml"), "cache_dir": tmp_path / "cache", "offline": True})
    material = gather_material(open_configured(digits, config), config)
    target = redraw_labels(material.target, 0, labels_per_class=4)
    found = scores_on(material, target, list(material.outputs))
    assert set(found) >= {*METRICS, CHANCE, "params"}
    assert np.isfinite(found["parc"]).all()
    # One source has no classes, so metrics that read classes are not defined for it.
    assert np.isnan(found["leep"]).tolist() == [name == "headless" for name in material.outputs]
