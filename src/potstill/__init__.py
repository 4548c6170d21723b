"""Potstill ranks trained models by how related they are to your images and distils them into one small classifier.

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "compare": "potstill.pipeline",
    "distill": "potstill.pipeline",
    "evaluate": "potstill.pipeline",
    "extract": "potstill.pipeline",
    "predict": "potstill.pipeline",
    "rank": "potstill.pipeline",
    "run": "potstill.pipeline",
    "build_config": "potstill.config",
    "RunConfig": "potstill.config",
    "load_zoo": "potstill.sources",
    "open_target": "potstill.data",
    "redraw_labels": "potstill.data",
    "PotstillError": "potstill.errors",
    "weigh": "potstill.weighting",
}

__all__ = [
    "PotstillError",
    "RunConfig",
    "build_config",
    "compare",
    "distill",
    "evaluate",
    "extract",
    "load_zoo",
    "open_target",
    "predict",
    "rank",
    "redraw_labels",
    "run",
    "weigh",
]

if TYPE_CHECKING:
    from potstill.config import RunConfig, build_config
    from potstill.data import open_target, redraw_labels
    from potstill.errors import PotstillError
    from potstill.pipeline import compare, distill, evaluate, extract, predict, rank, run
    from potstill.sources import load_zoo
    from potstill.weighting import weigh


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'potstill' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
