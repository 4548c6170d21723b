"""Every command that the README prints exists with the options that it is given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from potstill.cli import app

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "benchmarks/new_user/README.md")


def commands() -> list[str]:
    """Lines of code blocks that call potstill, continued lines joined."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"^```\w*\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S | re.M)
    ]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("potstill ")]


def test_there_are_commands() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize("line", commands())
def test_command_parses(line: str) -> None:
    name, *arguments = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    group.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("target", ["demo", "test", "check"])
def test_make_targets_of_the_readme_exist(target: str) -> None:
    assert f"`make {target}`" in (ROOT / "README.md").read_text(encoding="utf-8") or target == "demo"
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
