"""The command line: parses, calls the pipeline, prints. Nothing heavy is imported before a command needs it."""

from potstill.cli.commands import app
from potstill.cli.entry import main

__all__ = ["app", "main"]
