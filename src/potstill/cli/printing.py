"""What commands print of their results, from the records that they wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill.cli.display import results


def stored(directory: Path, name: str) -> Any:
    """A JSON file of a run directory."""
    from potstill.reporting import read_json

    return read_json(directory / name)


def print_ranking(record: dict[str, Any]) -> None:
    """The similarity tables and what they say."""
    from potstill.reporting import metrics_table, ranking_table, ranking_verdict

    results.print(ranking_table(record))
    further = metrics_table(record)
    if further:
        results.print(further)
    results.print(ranking_verdict(record), markup=False)


def print_comparison(outcome: dict[str, Any], output: Path) -> None:
    """The table of methods, what it says and where the report is."""
    from potstill.reporting import comparison_table, comparison_verdict

    results.print(comparison_table(outcome))
    results.print(comparison_verdict(outcome), markup=False)
    results.print(f"Report: {output / 'report.html'}", soft_wrap=True)


def print_outcome(outcome: dict[str, Any], output: Path) -> None:
    """The accuracy of one student and where it is."""
    folds = outcome.get("cross_validation")
    if folds:
        results.print(
            f"Accuracy {100 * folds['accuracy']:.1f} %, cross-validated over {folds['images']} labeled images "
            f"({folds['folds']} folds, {folds['repeats']} times); the student kept is trained on all of them."
        )
    elif outcome["accuracy"] is not None:
        results.print(f"Accuracy {100 * outcome['accuracy']:.1f} % on the test part.")
    results.print(f"Student: {output / 'student'}\nReport: {output / 'report.html'}", soft_wrap=True)
