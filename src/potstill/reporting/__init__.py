"""Files of a run directory, tables for the terminal, and the one-file HTML report."""

from potstill.reporting.directories import claim_directory
from potstill.reporting.logfile import logged_to
from potstill.reporting.page import render_report, write_report
from potstill.reporting.record import (
    Predictions,
    environment_record,
    read_json,
    read_predictions,
    read_results,
    read_yaml,
    write_csv,
    write_json,
    write_lines,
    write_predictions,
    write_text,
    write_yaml,
)
from potstill.reporting.tables import comparison_table, metrics_table, ranking_table
from potstill.reporting.verdicts import comparison_verdict, ranking_verdict

__all__ = [
    "Predictions",
    "claim_directory",
    "comparison_table",
    "comparison_verdict",
    "environment_record",
    "logged_to",
    "metrics_table",
    "ranking_table",
    "ranking_verdict",
    "read_json",
    "read_predictions",
    "read_results",
    "read_yaml",
    "render_report",
    "write_csv",
    "write_json",
    "write_lines",
    "write_predictions",
    "write_report",
    "write_text",
    "write_yaml",
]
