"""The metrics that have a name. Others are passed as a callable, a `Metric` or `module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from potstill.errors import UnknownNameError, unknown_name
from potstill.similarity._cka import cka
from potstill.similarity._hscore import hscore
from potstill.similarity._knn import knn
from potstill.similarity._leep import leep
from potstill.similarity._logme import logme
from potstill.similarity._metric import Metric
from potstill.similarity._nce import nce
from potstill.similarity._parc import parc

SIMILARITIES: dict[str, Metric] = {
    "parc": Metric(parc, needs=("features", "labels")),
    "cka": Metric(cka, needs=("features", "labels")),
    "knn": Metric(knn, needs=("features", "labels")),
    "logme": Metric(logme, needs=("features", "labels")),
    "hscore": Metric(hscore, needs=("features", "labels")),
    "leep": Metric(leep, needs=("probs", "labels")),
    "nce": Metric(nce, needs=("probs", "labels")),
}


def find_metric(metric: str | Callable[..., float] | Metric) -> tuple[str, Metric]:
    """Name and metric of a registered name, a `Metric`, a `function(features, labels)` or its `module:function`."""
    if isinstance(metric, Metric):
        return _name_of(metric.function), metric
    if callable(metric):
        return _name_of(metric), Metric(metric)
    if metric in SIMILARITIES:
        return metric, SIMILARITIES[metric]
    if ":" not in metric:
        raise unknown_name("metric", metric, SIMILARITIES)
    module_name, _, function_name = metric.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownNameError(f"Cannot import metric '{metric}' (module:function): {error}.") from error
    if isinstance(function, Metric):
        return metric, function
    if not callable(function):
        raise UnknownNameError(f"Metric '{metric}' is a {type(function).__name__}; expected a function or a Metric.")
    return metric, Metric(function)


def _name_of(function: Callable[..., float]) -> str:
    for name, metric in SIMILARITIES.items():
        if metric.function is function:
            return name
    return f"{function.__module__}:{getattr(function, '__qualname__', type(function).__qualname__)}"
