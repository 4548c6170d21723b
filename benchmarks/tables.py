"""Tables of pages that are made of result files, so that nobody copies a number by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

UNMEASURED = "Not measured yet.\n"


def write_tables(page: Path, tables: Mapping[str, str]) -> None:
    """Put every table between its marks `<!-- table NAME -->` and `<!-- end -->`; the rest of the page stays."""
    text = page.read_text(encoding="utf-8")
    for name, content in tables.items():
        marks = re.compile(rf"(?<=<!-- table {name} -->\n).*?(?=<!-- end -->)", flags=re.DOTALL)
        text, count = marks.subn(content.replace("\\", r"\\"), text)
        if count != 1:
            raise SystemExit(f"{page} has {count} places for the table {name}, expected 1")
    page.write_text(text, encoding="utf-8")


def differing_tables(page: Path, tables: Mapping[str, str]) -> list[str]:
    """The names of tables that stand on the page otherwise than here, or not at all."""
    text = page.read_text(encoding="utf-8")
    return [name for name, content in tables.items() if f"<!-- table {name} -->\n{content}<!-- end -->" not in text]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown of a table.

    >>> print(table(["name", "steps"], [["a", "3"]]), end="")
    | name | steps |
    | --- | --- |
    | a | 3 |
    """
    lines = [titles, ["---"] * len(titles), *rows]
    if any(len(line) != len(titles) for line in lines):
        raise ValueError(f"a row of the table with {titles} has another number of cells")
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
