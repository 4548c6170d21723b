"""Packages that only some kinds of source need."""

from __future__ import annotations

import importlib
from typing import Any

from potstill.errors import SourceError
from potstill.types import SourceSpec


def require(package: str, extra: str, spec: SourceSpec) -> Any:
    """The package, imported. Raises SourceError, with the command that installs it, if it is absent."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise SourceError(
            f"Source '{spec.name}' needs {package}, which cannot be imported ({error}). "
            f"Install it: pip install 'potstill[{extra}]'."
        ) from error
