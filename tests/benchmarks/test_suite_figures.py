"""Statistics over targets, and docs/results.md: its figures are those of the committed results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from potstill.evaluation import RunPredictions, summarise_runs
from potstill.pipeline.methods import parse_method
from suite.estimates import Table, TargetRuns, over_kinds, read_table
from suite.page import PAGE, compared_methods, tables_of, too_easy
from suite.run import PROTOCOL, RESULTS
from suite.tasks import TASKS
from tables import differing_tables


def made_up(name: str, rates: dict[str, float], *, seeds: int = 3, images: int = 400) -> TargetRuns:
    """Runs whose images are right at the given rates; images of a group are right together."""
    rng = np.random.default_rng(len(name))
    groups = [str(number // 4) for number in range(images)]
    correct = {}
    for method, rate in rates.items():
        for seed in range(seeds):
            correct[method, seed] = np.repeat(rng.random(images // 4) < rate, 4)
    return TargetRuns(name, correct, groups)


def test_targets_are_averaged_within_a_kind_first() -> None:
    values = {"hebrew": 10.0, "katakana": 20.0, "greek": 30.0, "mnist": 40.0}
    assert over_kinds(values) == pytest.approx((20.0 + 40.0) / 2)
    drawn = {name: np.array([value, 2 * value]) for name, value in values.items()}
    np.testing.assert_allclose(over_kinds(drawn), [30.0, 60.0])


def test_one_target_has_the_intervals_of_a_comparison_widened_for_few_seeds() -> None:
    runs = made_up("terrain", {"a": 0.6, "b": 0.5})
    ids = tuple(map(str, range(len(runs.groups))))
    reference = summarise_runs(
        [RunPredictions(method, seed, ids, correct) for (method, seed), correct in runs.correct.items()],
        groups=dict(zip(ids, runs.groups, strict=True)),
    )
    table = Table({"terrain": runs}, ("a", "b"))
    assert table.accuracy("terrain", "a") == pytest.approx(100 * reference["a"]["mean"])
    found, expected = table.difference("a", "b"), reference["a"]["delta_vs"]["b"]
    assert found == table.difference_on("terrain", "a", "b")
    assert found.mean == pytest.approx(100 * expected["mean"])
    low, high = (100 * end for end in expected["ci95"])
    assert high - low - 0.2 < found.high - found.low < np.sqrt(3 / 2) * (high - low) + 0.2


def test_the_spread_of_label_draws_is_not_underestimated() -> None:
    """With a single group only the label draws vary: their variance is that of a mean of three independent draws."""
    images = 400
    rates = (0.4, 0.5, 0.7)
    correct = {("a", seed): np.arange(images) < rate * images for seed, rate in enumerate(rates)}
    drawn = TargetRuns("terrain", correct, ["one group"] * images).resampled(("a",), (0, 1, 2))[:, 0]
    assert drawn.mean() == pytest.approx(100 * np.mean(rates), abs=0.3)
    assert drawn.std() == pytest.approx(100 * np.std(rates, ddof=1) / np.sqrt(3), rel=0.05)


def test_more_targets_make_a_narrower_interval_and_equal_methods_none() -> None:
    rates = {"a": 0.6, "b": 0.5}
    one = Table({"terrain": made_up("terrain", rates)}, ("a", "b")).difference("a", "b")
    names = ("terrain", "units", "hebrew", "mnist", "emoji")
    several = Table({name: made_up(name, rates) for name in names}, ("a", "b")).difference("a", "b")
    assert several.high - several.low < 0.7 * (one.high - one.low)
    runs = made_up("terrain", {"a": 0.6})
    twice = TargetRuns("terrain", {("a", 0): runs.correct["a", 0], ("b", 0): runs.correct["a", 0]}, runs.groups)
    same = Table({"terrain": twice}, ("a", "b")).difference("a", "b")
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)


def test_methods_are_compared_on_the_seeds_that_all_have() -> None:
    runs = made_up("terrain", {"a": 0.6, "b": 0.5})
    fewer = {key: correct for key, correct in runs.correct.items() if key != ("b", 2)}
    table = Table({"terrain": TargetRuns("terrain", fewer, runs.groups)}, ("a", "b"))
    assert table.seeds == {"terrain": [0, 1]}
    by_hand = 100 * np.mean([runs.correct["a", seed].mean() for seed in (0, 1)])
    assert table.accuracy("terrain", "a") == pytest.approx(by_hand)


PROTOCOL_TEXT = yaml.safe_load(PROTOCOL.read_text(encoding="utf-8"))


def test_the_page_holds_the_figures_of_the_results() -> None:
    assert differing_tables(PAGE, tables_of(RESULTS, PROTOCOL_TEXT)) == []


def made_up_table(rates: dict[str, dict[str, float]], seeds: int = 3) -> Table:
    targets = {name: made_up(name, own, seeds=seeds) for name, own in rates.items()}
    return Table(targets, tuple(sorted({method for own in rates.values() for method in own})))


def test_a_target_is_too_easy_where_a_method_without_sources_nears_the_ceiling() -> None:
    main = made_up_table(
        {
            "terrain": {"transfer": 0.5, "fixmatch": 0.6, "stacked": 0.7, "ceiling": 0.7},
            "units": {"transfer": 0.5, "fixmatch": 0.69, "stacked": 0.5, "ceiling": 0.7},
            "mnist": {"transfer": 0.5, "ceiling": 0.9},  # its nearest image is right on 91.9 %
            "emoji": {"transfer": 0.7},
        },
        seeds=1,
    )
    by_rate = {  # exactly at the rates, so that no luck decides
        name: TargetRuns(name, {key: np.arange(400) < 400 * rate for key, rate in own.items()}, runs.groups)
        for name, runs, own in (
            ("terrain", main.targets["terrain"], {("fixmatch", 0): 0.6, ("stacked", 0): 0.7, ("ceiling", 0): 0.7}),
            ("units", main.targets["units"], {("fixmatch", 0): 0.69, ("stacked", 0): 0.5, ("ceiling", 0): 0.7}),
            ("mnist", main.targets["mnist"], {("transfer", 0): 0.5, ("ceiling", 0): 0.9}),
            ("emoji", main.targets["emoji"], {("transfer", 0): 0.7}),
        )
    }
    exact = Table(by_rate, main.methods)
    assert too_easy(exact, exact, nearest=True) == {
        "units": "`fixmatch` is +1.0 points below the ceiling",
        "mnist": "the nearest training image is -1.9 points below the ceiling",
    }
    assert set(too_easy(exact, exact, nearest=False)) == {"units"}
    fewer_labels = Table(
        {"units": TargetRuns("units", {("fixmatch", 0): np.arange(400) < 120}, by_rate["units"].groups)}, ()
    )
    assert too_easy(fewer_labels, exact, nearest=False) == {}


def test_methods_are_compared_where_they_share_two_draws_with_all_others() -> None:
    whole = made_up_table({"terrain": dict.fromkeys(("transfer", "stacked", "fixmatch", "equal", "nearest"), 0.5)})
    correct = dict(whole.targets["terrain"].correct)
    del correct["equal", 0], correct["nearest", 1]  # each shares two draws with the first three, not with the other
    table = compared_methods(
        Table({"terrain": TargetRuns("terrain", correct, whole.targets["terrain"].groups)}, whole.methods),
        ["transfer", "equal", "stacked", "nearest", "fixmatch"],
    )
    assert table is not None
    assert table.methods == ("transfer", "equal", "stacked", "fixmatch")
    assert table.seeds == {"terrain": [1, 2]}
    assert compared_methods(Table({}, ()), ["transfer"]) is None


@pytest.mark.parametrize("name", ["main", "few", "single", "one", "ten", "second"])
def test_results_are_those_of_the_protocol(name: str) -> None:
    asked = PROTOCOL_TEXT["tables"][name]
    assert len({TASKS[target].kind for target in asked["targets"]}) >= 5
    assert sum(TASKS[target].size >= 128 for target in asked["targets"]) >= 4
    assert not set(asked["targets"]) & set(PROTOCOL_TEXT["tables"]["sweep"]["targets"])
    for method in asked["methods"]:
        parse_method(method)
    for target, runs in read_table(RESULTS / name).targets.items():
        assert target in asked["targets"]
        record = json.loads((RESULTS / name / f"{target}.json").read_text(encoding="utf-8"))
        by_path = {(run["method"], run["seed"]): run["accuracy"] for run in record["runs"]}
        assert by_path == pytest.approx({key: correct.mean() for key, correct in runs.correct.items()})
        assert all(method in asked["methods"] or "*" in asked["methods"][0] for method, _ in by_path)


def test_every_result_tells_the_machine() -> None:
    for file in sorted(Path(RESULTS).rglob("*.correct.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        assert len(record["groups"]) == record["images"]
        if "sweep" not in file.parts:
            assert set(record["machines"]) == set(record["correct"])
