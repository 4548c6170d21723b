"""The metrics that have a name. Others are passed as a callable, a `Metric` or `module:function`."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

from potstill.errors import UnknownNameError, unknown_name
from potstill.similarity._baselines import BASELINES
from potstill.similarity._cka import cka
from potstill.similarity._energy import energy
from potstill.similarity._ensemble import ensemble
from potstill.similarity._gbc import gbc
from potstill.similarity._hscore import hscore
from potstill.similarity._kite import kite
from potstill.similarity._knn import knn
from potstill.similarity._leep import leep
from potstill.similarity._logme import logme
from potstill.similarity._metric import Metric, Ranker
from potstill.similarity._nce import nce
from potstill.similarity._ncti import ncti
from potstill.similarity._nleep import nleep
from potstill.similarity._parc import parc
from potstill.similarity._prepared import prepare_cka, prepare_knn, prepare_parc
from potstill.similarity._probe import probe
from potstill.similarity._rsa import rsa
from potstill.similarity._sfda import sfda
from potstill.similarity._stack import stack
from potstill.similarity._transrate import transrate

SIMILARITIES: dict[str, Metric] = {
    "parc": Metric(parc, pairwise=True, prepare=prepare_parc, bounds=(-1.0, 1.0)),
    "rsa": Metric(rsa, needs=("features", "reference_features"), pairwise=True, bounds=(-1.0, 1.0)),
    "cka": Metric(cka, pairwise=True, prepare=prepare_cka, bounds=(-1.0, 1.0)),
    "knn": Metric(knn, prepare=prepare_knn, bounds=(0.0, 1.0)),
    "logme": Metric(logme, needs=("features", "labels")),
    "hscore": Metric(hscore, bounds=(0.0, math.inf)),
    "leep": Metric(leep, needs=("probs", "labels"), bounds=(-math.inf, 0.0)),
    "nce": Metric(nce, needs=("probs", "labels"), bounds=(-math.inf, 0.0)),
    "transrate": Metric(transrate, bounds=(0.0, math.inf)),
    "gbc": Metric(gbc, bounds=(-math.inf, 0.0)),
    "energy": Metric(energy),
    "kite": Metric(kite, needs=("features", "labels", "random_features"), pairwise=True),
    "nleep": Metric(nleep, bounds=(-math.inf, 0.0)),
    "probe": Metric(probe, bounds=(0.0, 1.0)),
    "sfda": Metric(sfda, needs=("features", "labels"), bounds=(0.0, 1.0)),
}

RANKERS: dict[str, Ranker] = {
    "ncti": Ranker(ncti, bounds=(-1.0, 2.0)),
    "ensemble": Ranker(ensemble, bounds=(0.0, 1.0)),
    "stack": Ranker(stack, bounds=(0.0, 1.0)),
}


AUTO = "parc"
"""What `auto` stands for."""
AUTO_BESIDE = ("knn", "probe", "leep")
"""Shown beside it, to see whether metrics agree."""

AnyMetric = str | Callable[..., float] | Metric | Ranker


def find_metric(metric: AnyMetric) -> tuple[str, Metric | Ranker]:
    """Name and metric of a registered name or `auto`, a `Metric` or `Ranker`, a `function(features, labels)` or its
    `module:function`.
    """
    if isinstance(metric, Metric | Ranker):
        return _name_of(metric.function), metric
    if callable(metric):
        return _name_of(metric), _registered().get(_name_of(metric), Metric(metric))
    name = AUTO if metric == "auto" else metric
    if name in _registered():
        return name, _registered()[name]
    if ":" not in name:
        raise unknown_name("metric", name, ["auto", *_registered()])
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownNameError(f"Cannot import metric '{name}' (module:function): {error}.") from error
    if isinstance(function, Metric | Ranker):
        return name, function
    if not callable(function):
        raise UnknownNameError(f"Metric '{name}' is a {type(function).__name__}; expected a function or a Metric.")
    return name, Metric(function)


def _registered() -> dict[str, Metric | Ranker]:
    return {**SIMILARITIES, **RANKERS, **BASELINES}


def _name_of(function: Callable[..., object]) -> str:
    registered: dict[str, Metric | Ranker] = {**SIMILARITIES, **RANKERS}
    for name, metric in registered.items():
        if metric.function is function:
            return name
    return f"{function.__module__}:{getattr(function, '__qualname__', type(function).__qualname__)}"
