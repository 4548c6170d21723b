"""docs/sources.md shows the committed figures, and its zoo file and commands are real."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from extraction_sections.page import tables_of
from potstill.cli import app
from potstill.sources import load_zoo
from potstill.sources.opening import KINDS, kind_of
from tables import differing_tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "extraction.json"
PAGE = ROOT / "docs" / "sources.md"


def test_the_table_is_that_of_the_results() -> None:
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    assert differing_tables(PAGE, tables_of(record)) == []


def test_the_zoo_file_of_the_page_is_read_and_shows_every_kind(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "zoo.yaml").write_text(example)
    assert {kind_of(spec.model) for spec in load_zoo(tmp_path / "zoo.yaml")} == set(KINDS)


def test_the_commands_of_the_page_exist_with_their_options() -> None:
    commands = re.findall(r"^potstill cache .*$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(commands) == 7
    group = typer.main.get_command(app).commands["cache"]  # type: ignore[attr-defined]
    for line in commands:
        _, _, name, *words = shlex.split(line, comments=True)
        context = group.commands[name].make_context(name, words, resilient_parsing=True)
        assert context.params is not None
        known = {option for each in group.commands[name].params for option in each.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize(("section", "key", "goal"), [("bytes", "bytes_a_row", 56), ("memory", "ratio", 1.1)])
def test_what_does_not_depend_on_the_machine_is_as_promised(section: str, key: str, goal: float) -> None:
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if section not in record:
        pytest.skip("benchmarks/extraction.py has not measured it yet")
    assert record[section][key] <= goal
