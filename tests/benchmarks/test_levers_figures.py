"""The effects of the levers in docs/training.md are those of the committed runs."""

from __future__ import annotations

import importlib
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tables import differing_tables

LEVERS = Path(__file__).resolve().parents[2] / "benchmarks" / "levers"


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, imported as if it ran in its folder."""
    monkeypatch.syspath_prepend(str(LEVERS))
    yield importlib.import_module("judge")
    for name in ("judge", "levers"):
        sys.modules.pop(name, None)


@pytest.fixture
def record(judge: ModuleType) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(judge.RESULTS.read_text(encoding="utf-8"))
    return content


def test_the_table_of_the_page_is_that_of_the_record(judge: ModuleType, record: dict[str, Any]) -> None:
    assert list(record["levers"]) == list(judge.LEVERS)
    assert differing_tables(judge.PAGE, judge.tables_of(record)) == []


def test_effects_follow_from_the_accuracy_of_each_run(record: dict[str, Any]) -> None:
    base = record["levers"]["base"]["accuracy_by_run"]
    for lever, found in record["levers"].items():
        runs = found["accuracy_by_run"]
        assert all(len(runs[name]) == len(record["seeds"]) for name in record["targets"]), lever
        differences = [statistics.fmean(runs[name]) - statistics.fmean(base[name]) for name in record["targets"]]
        assert found["effect"] == pytest.approx(statistics.fmean(differences))
        low, high = found["effect_ci95"]
        assert low <= found["effect"] <= high
        half = 2.5706 * statistics.stdev(differences) / len(differences) ** 0.5  # t of 5 degrees of freedom
        assert high - low == pytest.approx(2 * half, abs=1e-5)


def test_what_the_page_says_about_the_levers_holds(record: dict[str, Any]) -> None:
    effects = {name: (each["effect"], *each["effect_ci95"]) for name, each in record["levers"].items()}
    assert round(100 * effects["four times as long"][0], 1) == 1.4
    longer = [name for name in effects if "as long" in name]
    assert all(effects[name][1] > 0 for name in ("twice as long", "four times as long"))
    for name, (effect, low, high) in effects.items():
        if name not in longer:
            assert abs(effect) < 0.01, name
            assert low <= 0 <= high, name
