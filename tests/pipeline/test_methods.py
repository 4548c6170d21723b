"""What a step of each method takes, and the methods' names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from potstill.config import RunConfig, build_config, overridden
from potstill.errors import ConfigError, UnknownNameError, UsageError
from potstill.pipeline.methods import METHODS, parse_method


@pytest.mark.parametrize("batch_size", [24, 96, 128])
def test_a_step_costs_every_method_nearly_the_same(batch_size: int) -> None:
    config = RunConfig(batch_size=batch_size)
    plans = {name: method.rows(config) for name, method in METHODS.items() if method.rows}
    for name, plan in plans.items():
        assert batch_size - 11 < plan.cost <= batch_size, name
    assert plans["transfer"].pool_weak == 0
    assert plans["weighted"].pool_weak == pytest.approx(2 * plans["weighted"].labeled, abs=2)
    assert plans["fixmatch"].pool_strong == 7 * plans["fixmatch"].labeled


def test_a_source_can_be_left_out_of_what_uses_sources() -> None:
    choice = parse_method("nearest-without-big-birds")
    assert (choice.base, choice.left_out) == ("nearest", "big-birds")
    assert parse_method("probe").left_out is None
    with pytest.raises(UsageError, match="fixmatch uses no sources"):
        parse_method("fixmatch-without-birds")
    with pytest.raises(UnknownNameError, match="Did you mean 'equal'"):
        parse_method("eqal")


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
    config = replace(build_config({"minutes": 2.0, "overrides": {"weighted": {"lr": 0.2}}}), steps=70)
    own = overridden(config, "weighted")
    assert (own.lr, own.steps, own.minutes) == (0.2, 70, 2.0)
