"""Every error that Potstill raises on purpose. The exit code of the command line is a property of the error.

A message says what was expected, what came and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PotstillError(Exception):
    """Base of all errors below; anything else that escapes is a bug (exit code 1)."""

    exit_code = 1


class UsageError(PotstillError):
    """The command or call cannot be carried out as written."""

    exit_code = 2


class ConfigError(UsageError):
    """One or more configuration values are wrong; the message lists all of them."""


class UnknownNameError(UsageError):
    """A name (model, metric, method, key, option) that does not exist."""


class RunExistsError(UsageError):
    """The output directory already holds a run."""


class WeightingError(UsageError):
    """A scheme cannot turn these scores into source weights."""


class DivergedError(UsageError):
    """Training produced a loss that is not finite; settings such as the learning rate must change."""


class DataError(PotstillError):
    """The target data cannot be used."""

    exit_code = 3


class SimilarityError(DataError):
    """A metric is not defined on this input; the message names the cause.

    `source` is the source that caused it, where a metric takes several.
    """

    def __init__(self, message: str, *, source: str | None = None) -> None:
        super().__init__(message)
        self.source = source


class SourceError(PotstillError):
    """A source, its weights or its outputs are missing or do not fit."""

    exit_code = 4


class CacheError(PotstillError):
    """A cache entry is damaged or does not match its manifest."""

    exit_code = 5


class CheckpointError(PotstillError):
    """A checkpoint or saved student is damaged or does not match the run."""

    exit_code = 5


class OutputError(PotstillError):
    """The output cannot be written."""

    exit_code = 6


class ParityError(PotstillError):
    """An exported student answers differently from the student."""

    exit_code = 7


class Interrupted(BaseException):
    """The user or the scheduler asked to stop; the state was saved.

    Like KeyboardInterrupt it is no Exception: no handler of errors may take it for one and go on.
    """

    exit_code = 130


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that does not exist, with the nearest known names.

    >>> print(unknown_name("metric", "prac", ["parc", "knn"]))
    Unknown metric 'prac'. Did you mean 'parc'? Known: knn, parc.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listing = ", ".join(names) if len(names) <= 40 else f"{', '.join(names[:40])}, ..."
    return UnknownNameError(f"Unknown {kind} '{name}'.{hint} Known: {listing}.")
