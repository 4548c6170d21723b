"""The metrics that have a name. Others are passed as a callable, a `Metric` or `module:function`."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass

from potstill.errors import SimilarityError, UnknownNameError, unknown_name
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
    "logme": Metric(logme),
    "hscore": Metric(hscore, bounds=(0.0, math.inf)),
    "leep": Metric(leep, needs=("probs", "labels"), bounds=(-math.inf, 0.0)),
    "nce": Metric(nce, needs=("probs", "labels"), bounds=(-math.inf, 0.0)),
    "transrate": Metric(transrate, bounds=(0.0, math.inf)),
    "gbc": Metric(gbc, bounds=(-math.inf, 0.0)),
    "energy": Metric(energy),
    "kite": Metric(kite, needs=("features", "labels", "random_features"), pairwise=True),
    "nleep": Metric(nleep, bounds=(-math.inf, 0.0)),
    "probe": Metric(probe, bounds=(0.0, 1.0)),
    "sfda": Metric(sfda, bounds=(0.0, 1.0)),
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
    if not isinstance(metric, str):
        return _of_object(metric)
    name = AUTO if metric == "auto" else metric
    if name in _registered():
        return name, _registered()[name]
    if ":" not in name:
        raise unknown_name("metric", name, ["auto", *_registered()])
    module_name, _, function_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UnknownNameError(f"Cannot import metric '{name}' (module:function): {error}.") from error
    return name, _of_object(found, name)[1]


def _of_object(metric: object, name: str | None = None) -> tuple[str, Metric | Ranker]:
    """A metric given as an object: one of ours keeps its needs, a foreign function takes features and labels."""
    if isinstance(metric, Metric | Ranker):
        known = next((name for name, each in _registered().items() if each == metric), None)
        return name or known or _path_of(metric.function), metric
    if not callable(metric):
        raise UnknownNameError(
            f"Metric '{name or metric}' is a {type(metric).__name__}; expected a function or a Metric."
        )
    for registered, each in _registered().items():
        if each.function is metric and each.looks_at_images:
            return registered, each
    path = name or _path_of(metric)
    return path, Metric(_Foreign(metric, path))


@dataclass(frozen=True)
class _Foreign:
    """A user's function. What it raises is the failure of one source, and not of the whole ranking."""

    function: Callable[..., float]
    name: str

    def __call__(self, *arguments: object) -> float:
        try:
            return float(self.function(*arguments))
        except SimilarityError:
            raise
        except Exception as error:
            raise SimilarityError(f"{self.name}: {type(error).__name__}: {error}") from error


def _registered() -> dict[str, Metric | Ranker]:
    return {**SIMILARITIES, **RANKERS, **BASELINES}


def _path_of(function: Callable[..., object]) -> str:
    return f"{function.__module__}:{getattr(function, '__qualname__', type(function).__qualname__)}"
