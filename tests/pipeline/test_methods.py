"""What a step of each method takes, and the methods' names."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from potstill.config import RunConfig, build_config, overridden
from potstill.errors import ConfigError, UnknownNameError, UsageError
from potstill.pipeline.methods import METHODS, parse_method
from potstill.pipeline.student_training import plan_of
from potstill.training.batches import BatchPlan


@pytest.mark.parametrize("batch_size", [24, 96, 128])
def test_a_step_costs_every_method_nearly_the_same(batch_size: int) -> None:
    config = RunConfig(batch_size=batch_size)
    plans = {name: method.rows(config) for name, method in METHODS.items() if method.rows}
    for name, plan in plans.items():
        assert batch_size - 11 < plan.cost <= batch_size, name
    assert plans["transfer"].pool_weak == 0
    assert plans["weighted"].pool_weak == pytest.approx(2 * plans["weighted"].labeled, abs=2)
    assert plans["fixmatch"].pool_strong == 7 * plans["fixmatch"].labeled


def test_it_is_said_where_several_parts_change_a_step(caplog: pytest.LogCaptureFixture) -> None:
    config = RunConfig(batch_size=96)
    with caplog.at_level(logging.INFO):
        assert plan_of(parse_method("weighted"), config, 8) == BatchPlan(labeled=32, pool_weak=64)
        assert not caplog.records
        assert plan_of(parse_method("weighted"), config, 5) == BatchPlan(labeled=30, pool_weak=60)
        assert plan_of(parse_method("fixmatch"), config, 16).labeled == 16
    fewer, more = caplog.records
    assert (fewer.levelname, more.levelname) == ("INFO", "WARNING")
    assert "16 labeled and 112 pool images instead of 9 and 63" in more.message


def test_distillation_needs_both_labels_and_sources() -> None:
    for share in (0, 1):
        with pytest.raises(ConfigError, match="label_weight"):
            build_config({"label_weight": share})


def test_minutes_limit_any_length_and_a_length_given_anew_replaces_that_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("steps: 70\nminutes: 2\n")
    assert (build_config({}, file=file).steps, build_config({}, file=file).minutes) == (70, 2)
    longer = build_config({"minutes": 3}, file=file)
    assert (longer.steps, longer.minutes) == (70, 3)
    by_passes = build_config({"epochs": 5}, file=file)
    assert (by_passes.epochs, by_passes.steps, by_passes.minutes) == (5, None, 2)
    with pytest.raises(ConfigError, match="epochs or steps"):
        build_config({"epochs": 1, "steps": 2})


def test_a_source_can_be_left_out_of_what_uses_sources() -> None:
    choice = parse_method("nearest-without-big-birds")
    assert (choice.base, choice.left_out) == ("nearest", "big-birds")
    assert parse_method("probe").left_out is None
    choice = parse_method("nearest-only-big-birds")
    assert (choice.base, choice.left_out, choice.only) == ("nearest", None, "big-birds")
    choice = parse_method("weighted-shuffled-without-birds")
    assert (choice.base, choice.shuffled, choice.left_out) == ("weighted", True, "birds")
    assert not parse_method("weighted").shuffled
    with pytest.raises(UsageError, match="fixmatch uses no sources"):
        parse_method("fixmatch-without-birds")
    with pytest.raises(UsageError, match="transfer uses no sources"):
        parse_method("transfer-shuffled")
    with pytest.raises(UsageError, match="start-nearest takes a source's weights alone"):
        parse_method("start-nearest-shuffled")
    with pytest.raises(UnknownNameError, match="Did you mean 'equal'"):
        parse_method("eqal")


def test_a_method_can_stand_in_a_comparison_several_times_under_other_settings() -> None:
    choice = parse_method("weighted-shuffled+paper")
    assert (choice.name, choice.base, choice.shuffled) == ("weighted-shuffled+paper", "weighted", True)
    overrides = {"fixmatch": {"threshold": 0.8}, "fixmatch+short": {"steps": 5}}
    config = build_config({"steps": 10, "overrides": overrides})
    found = [overridden(config, parse_method(name).name, "fixmatch") for name in ("fixmatch", "fixmatch+short")]
    assert [(own.steps, own.threshold) for own in found] == [(10, 0.8), (5, 0.95)]
    with pytest.raises(UsageError, match="names no variant"):
        parse_method("weighted+")
    with pytest.raises(UnknownNameError, match="Did you mean 'equal'"):
        parse_method("eqal+long")


def test_settings_of_one_method_replace_those_of_all() -> None:
    config = build_config({"lr": 0.1, "overrides": {"fixmatch": {"threshold": 0.8, "lr": 0.02}}})
    assert overridden(config, "fixmatch").threshold == 0.8
    assert overridden(config, "fixmatch").lr == 0.02
    assert overridden(config, "transfer") == config
    with pytest.raises(UnknownNameError, match="Did you mean 'threshold'"):
        build_config({"overrides": {"fixmatch": {"treshold": 0.8}}})
    wrong = build_config({"overrides": {"fixmatch": {"lr": -1}}})
    with pytest.raises(ConfigError, match="lr"):
        overridden(wrong, "fixmatch")


def test_a_resolved_configuration_with_a_limit_of_minutes_can_be_overridden() -> None:
    config = build_config({"minutes": 2.0, "steps": 70, "overrides": {"weighted": {"lr": 0.2}}})
    own = overridden(config, "weighted")
    assert (own.lr, own.steps, own.minutes) == (0.2, 70, 2.0)
