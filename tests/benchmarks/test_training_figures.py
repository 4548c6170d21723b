"""Figures in docs/training.md are those of the committed results, and the promises in them are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tables import UNMEASURED, differing_tables
from training_sections.page import tables_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "training.json"
PAGE = ROOT / "docs" / "training.md"
SECTIONS = ("step", "live", "layout", "throughput", "levers_cost")

RECORD = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
pytestmark = pytest.mark.skipif(not set(SECTIONS) <= set(RECORD), reason="benchmarks/training.py has not run whole yet")


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def goals_in(found: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every comparison that has a goal, with the keys that lead to it."""
    if isinstance(found, dict):
        if "reached" in found:
            yield place, found
        for key, each in found.items():
            yield from goals_in(each, f"{place} / {key}")


def test_tables_are_those_of_the_record(record: dict[str, Any]) -> None:
    tables = tables_of(record)
    assert differing_tables(PAGE, tables) == []
    assert UNMEASURED not in tables.values()


def test_every_section_was_measured_at_least_seven_times(record: dict[str, Any]) -> None:
    for name in SECTIONS:
        parts = record[name].values() if name in ("live", "layout") else [record[name]]
        for part in parts:
            assert part["measured"]["environment"]["cpu"]
            assert not part["measured"]["commit"].endswith("+")
    for student in record["step"]["results"]["students"].values():
        assert all(len(seconds) >= 7 for seconds in student["seconds"].values())
    assert record["throughput"]["results"]["rounds"] >= 7


def test_ratios_follow_from_the_raw_seconds(record: dict[str, Any]) -> None:
    def median(values: list[float]) -> float:
        ordered = sorted(values)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    for student in record["step"]["results"]["students"].values():
        plain = median(student["seconds"]["plain"])
        for zoo, cost in student["over_plain"].items():
            assert cost["ratio"] == pytest.approx(median(student["seconds"][zoo]) / plain)
    for part in record["live"].values():
        seconds = part["results"]["step"]["seconds"]
        expected = median(seconds["live"]) / median(seconds["cached"])
        assert part["results"]["live_over_cached"]["ratio"] == pytest.approx(expected)


MISSED = {"live / resnet50": "ResNet-50 misses 100x by a little"}
"""Goals that were not reached, and the words in which the page says so."""


def test_promises_are_kept_or_the_page_says_which_are_not(record: dict[str, Any], text: str) -> None:
    goals = [goal for name in SECTIONS for goal in goals_in(record[name], name)]
    assert len(goals) >= 16
    for place, each in goals:
        if not each["reached"]:
            words = [said for start, said in MISSED.items() if place.startswith(f"{start} /")]
            assert words, place
            assert words[0] in " ".join(text.split()), place


def test_live_sources_are_larger_than_the_student(record: dict[str, Any]) -> None:
    assert all(part["results"]["macs_over_student"] >= 4 for part in record["live"].values())
