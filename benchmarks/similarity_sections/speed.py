"""How fast are the metrics beside public code, how long does a table of 28 sources take, and what do intervals cost?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from potstill.similarity import AUTO, RANKERS, SIMILARITIES, rank_sources
from similarity_ports.hscore import hscore
from similarity_ports.knn import knn
from similarity_ports.logme import logme_fixed_point, logme_icml
from similarity_ports.parc import parc
from similarity_ports.transrate import transrate
from similarity_sections.problems import labels_of, pooled_features, source_outputs
from similarity_sections.timing import interleaved

IMAGES, DIMENSIONS, CLASSES = 500, 2048, 37
SOURCES, WIDTHS = 28, (512, 768, 1280, 2048)
RESAMPLES = 200
ROUNDS_OF_WHOLE_TABLE = 3  # nothing is compared there
GOALS: dict[str, tuple[str, Callable[..., float], float]] = {
    # name -> our metric, the port, how many times faster we want to be
    "parc": ("parc", parc, 1.5),
    "logme, fixed point": ("logme", logme_fixed_point, 4.0),
    "logme, ICML": ("logme", logme_icml, 50.0),
    "hscore": ("hscore", hscore, 50.0),
    "transrate": ("transrate", transrate, 100.0),
    "knn": ("knn", knn, 2.0),
}


def measure_speed(rounds: int) -> dict[str, Any]:
    """The section `speed` of the record."""
    return {
        "images": IMAGES,
        "dimensions": DIMENSIONS,
        "classes": CLASSES,
        "against_ports": _against_ports(rounds),
        "every_metric": _every_metric(rounds),
        "table": _table(rounds),
    }


def _against_ports(rounds: int) -> dict[str, Any]:
    labels = labels_of(IMAGES, CLASSES)
    features = pooled_features(labels, DIMENSIONS)
    found: dict[str, Any] = {}
    for name, (metric, port, goal) in GOALS.items():
        if metric not in SIMILARITIES:
            found[name] = {"absent": f"there is no metric {metric}"}
            continue
        ours = SIMILARITIES[metric].function
        timed = interleaved(
            {"port": lambda port=port: port(features, labels), "ours": lambda ours=ours: ours(features, labels)}, rounds
        )
        ratio = timed["median_seconds"]["port"] / timed["median_seconds"]["ours"]
        found[name] = {**timed, "ratio": ratio, "goal": goal, "reached": ratio >= goal}
        print(f"{name:20s} {_milliseconds(timed)}  {ratio:.1f}x, goal {goal:g}x", flush=True)
    return found


def _every_metric(rounds: int) -> dict[str, Any]:
    """Each metric that needs nothing but the outputs of one source, alone."""
    labels = labels_of(IMAGES, CLASSES)
    features = pooled_features(labels, DIMENSIONS)
    outputs = source_outputs("one", features, 1000, seed=0)
    if outputs.logits is None:
        raise ValueError("the source has no classifier")
    rows = outputs.rows(outputs.image_ids)
    values = {
        "features": features,
        "probs": outputs.logits.probs(rows),
        "logits": outputs.logits.logits(rows),
        "labels": labels,
    }
    calls = {
        name: lambda metric=metric: metric.function(*(values[need] for need in metric.needs))
        for name, metric in SIMILARITIES.items()
        if set(metric.needs) <= set(values)
    }
    timed = interleaved(calls, rounds)
    print(f"every metric alone   {_milliseconds(timed)}", flush=True)
    return timed


def _table(rounds: int) -> dict[str, Any]:
    """28 sources of several widths with 1,000 source classes: the default metric, its intervals, and all metrics."""
    labels = labels_of(IMAGES, CLASSES)
    zoo = {}
    for number in range(SOURCES):
        features = pooled_features(labels, WIDTHS[number % len(WIDTHS)], signal=number / 5, seed=number)
        zoo[f"source-{number:02d}"] = source_outputs(f"source-{number:02d}", features, 1000, seed=number)
    ids = next(iter(zoo.values())).image_ids
    of_one_source = {"features", "probs", "logits", "labels"}
    names = [name for name, metric in (SIMILARITIES | RANKERS).items() if set(metric.needs) <= of_one_source]
    also = [name for name in names if name != AUTO]
    timed = interleaved(
        {
            "plain": lambda: rank_sources(zoo, ids, labels, draws=0, permutations=0),
            "200 resamples": lambda: rank_sources(zoo, ids, labels, draws=RESAMPLES // 2, permutations=0),
            "200 resamples, 99 permutations": lambda: rank_sources(zoo, ids, labels, draws=RESAMPLES // 2),
        },
        rounds,
    )
    print(f"table of {SOURCES} sources  {_milliseconds(timed)}", flush=True)
    whole = {"all metrics": lambda: rank_sources(zoo, ids, labels, also=also, draws=0, permutations=0)}
    for name in RANKERS:
        whole[f"{name} alone"] = lambda name=name: rank_sources(zoo, ids, labels, metric=name, draws=0, permutations=0)
    timed_whole = interleaved(whole, min(rounds, ROUNDS_OF_WHOLE_TABLE))
    print(f"all of it            {_milliseconds(timed_whole)}", flush=True)
    medians = timed["median_seconds"]
    return {
        "sources": SOURCES,
        "widths": WIDTHS,
        "metric": AUTO,
        **timed,
        "resamples_over_plain": medians["200 resamples"] / medians["plain"],
        "all_metrics": {"metrics": names, **timed_whole},
    }


def _milliseconds(timed: dict[str, Any]) -> str:
    return ", ".join(f"{name} {1000 * each:.1f} ms" for name, each in timed["median_seconds"].items())
