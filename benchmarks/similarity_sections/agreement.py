"""How far are the metrics, and public code, from slow references and from what names and order must not change?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from potstill.errors import SimilarityError
from potstill.similarity import SIMILARITIES, cka, hscore, knn, logme, parc
from similarity_ports.cka import biased_cka
from similarity_ports.hscore import hscore as hscore_port
from similarity_ports.knn import knn as knn_port
from similarity_ports.logme import logme_fixed_point, logme_icml
from similarity_ports.parc import parc as parc_port
from similarity_ports.transrate import transrate as transrate_port
from similarity_sections.problems import TESTS, Floats, Ints, labels_of, load_module, naive_references, pooled_features

SEEDS = range(100, 120)  # not those that the tests use
NUMBERINGS = 4
IMAGES, DIMENSIONS = 500, 2048


def measure_agreement() -> dict[str, Any]:
    """The section `agreement` of the record."""
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "references": _references,
        "invariance": _invariance,
        "parc_port": _parc_port,
        "logme_port": _logme_port,
        "hscore_port": _hscore_port,
        "transrate_port": _transrate_port,
        "knn_port": _knn_port,
        "biased_cka": _biased_cka,
    }
    found = {}
    for name, section in sections.items():
        start = time.perf_counter()
        found[name] = section()
        print(f"{name} ({time.perf_counter() - start:.0f} seconds)", found[name], flush=True)
    return found


def _problem_maker() -> Callable[[int], Any]:
    maker: Callable[[int], Any] = load_module(TESTS / "conftest.py").make_problem
    return maker


def _score(name: str, values: Mapping[str, Any]) -> float:
    """NaN where the metric is not defined and says so."""
    try:
        return float(SIMILARITIES[name].function(*(values[need] for need in SIMILARITIES[name].needs)))
    except SimilarityError:
        return math.nan


def _difference(first: float, second: float) -> float:
    """0 where both are undefined, infinite where one is."""
    if math.isnan(first) or math.isnan(second):
        return 0.0 if math.isnan(first) and not math.isfinite(second) else math.inf
    return abs(first - second)


def _references() -> dict[str, Any]:
    """Largest |ours - slow reference| / max(1, |slow reference|) over random problems, for metrics that have one."""
    make_problem = _problem_maker()
    references = naive_references()
    largest = dict.fromkeys(references, 0.0)
    for seed in SEEDS:
        problem = make_problem(seed)
        for name, reference in references.items():
            values = {need: getattr(problem, need) for need in SIMILARITIES[name].needs}
            if name == "logme":  # its reference searches a grid for each class; a few classes do
                first = np.unique(problem.labels)[:4]
                values["labels"] = np.where(np.isin(problem.labels, first), problem.labels, 9999)
            with np.errstate(divide="ignore", invalid="ignore"):
                expected = float(reference(*values.values()))
            difference = _difference(_score(name, values), expected) / max(1.0, abs(expected))
            largest[name] = max(largest[name], difference)
    return {
        "problems": len(SEEDS),
        "largest_difference": largest,
        "without_reference": sorted(set(SIMILARITIES) - set(largest)),
    }


def _invariance() -> dict[str, Any]:
    """Largest change of any metric when classes are renamed and images reordered, also with every image there twice."""
    make_problem = _problem_maker()
    largest = dict.fromkeys(SIMILARITIES, 0.0)
    for seed in SEEDS:
        problem = make_problem(seed)
        generator = np.random.default_rng(seed)
        for name, metric in SIMILARITIES.items():
            once = {need: getattr(problem, need) for need in metric.needs}
            twice = {need: np.concatenate([each, each]) for need, each in once.items()}
            if "labels" in twice:  # half of the copies contradict each other
                twice["labels"] = np.concatenate([once["labels"], np.roll(once["labels"], len(once["labels"]) // 2)])
            for values in (once, twice):
                change = _difference(_score(name, _renamed_and_shuffled(values, generator)), _score(name, values))
                largest[name] = max(largest[name], change)
    return {"problems": 2 * len(SEEDS), "largest_change": largest}


def _renamed_and_shuffled(values: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    changed = dict(values)
    if "labels" in changed:
        classes, index = np.unique(changed["labels"], return_inverse=True)
        changed["labels"] = generator.permutation(classes)[index]
    order = generator.permutation(len(next(iter(changed.values()))))
    return {need: each[order] for need, each in changed.items()}


def _parc_port() -> dict[str, Any]:
    """Values under four numberings of the same classes; 64 classes are harmless, being a power of two."""
    found = {}
    for classes in (5, 10, 37, 64):
        labels = labels_of(IMAGES, classes)
        features = pooled_features(labels, DIMENSIONS)
        numberings = [np.random.default_rng(seed).permutation(classes)[labels] for seed in range(NUMBERINGS)]
        found[str(classes)] = {
            "port": [parc_port(features, renamed) for renamed in numberings],
            "ours": [parc(features, renamed) for renamed in numberings],
        }
    return found


def _logme_port() -> dict[str, Any]:
    """The published fixed point with and without the directions that it leaves out when images are few."""
    found = {}
    for dimensions in (100, 512, DIMENSIONS):
        labels = labels_of(IMAGES, 37)
        features = pooled_features(labels, dimensions)
        found[str(dimensions)] = {
            "as published": logme_fixed_point(features, labels),
            "with all directions": logme_fixed_point(features, labels, padded=True),
            "with all directions, until it stands still": logme_fixed_point(
                features, labels, padded=True, rounds=300, tolerance=1e-8
            ),
            "ICML": logme_icml(features, labels),
            "ours": logme(features, labels),
        }
    return found


def _hscore_port() -> dict[str, Any]:
    """Relative difference, beside the N / (N - 1) by which the two denominators differ."""
    labels, features = _small()
    ours = hscore(features, labels) * len(labels) / (len(labels) - 1)
    port = hscore_port(features, labels)
    return {"port": port, "ours, N - 1 for N": ours, "relative_difference": abs(port / ours - 1)}


def _transrate_port() -> dict[str, Any]:
    labels, features = _small()
    found = {"port": transrate_port(features, labels)}
    if "transrate" in SIMILARITIES:
        found["ours"] = _score("transrate", {"features": features, "labels": labels})
    return found


def _small() -> tuple[Ints, Floats]:
    labels = labels_of(IMAGES, 37)
    return labels, pooled_features(labels, 512)


def _knn_port() -> dict[str, Any]:
    """Noise, with a fifth of the images copied once under another label: the true accuracy is at most chance."""
    labels = labels_of(IMAGES, 10)
    features = np.random.default_rng(0).normal(size=(IMAGES, 64))
    features[-100:], labels[-100:] = features[:100], (labels[:100] + 1) % 10
    return {"port": knn_port(features, labels), "ours": knn(features, labels)}


def _biased_cka() -> dict[str, Any]:
    """Of independent Gaussian features and, in `ours`, the unbiased estimate."""
    first, second = np.random.default_rng(0).normal(size=(2, IMAGES, DIMENSIONS))
    return {"port": biased_cka(first, second), "ours": cka(first, reference_features=second)}
