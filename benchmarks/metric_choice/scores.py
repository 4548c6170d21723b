"""Score every run's scoring set by every metric but those that need a reference model.

    python benchmarks/metric_choice/scores.py [--minutes 8]

One file a metric in `.build-data/metric_choice/scores/`. It is made again when the file that defines the metric has
changed, and goes on where it stopped when there are new runs.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from targets import TARGETS

from potstill.errors import DataError, SimilarityError
from potstill.probes import out_of_fold_probs
from potstill.similarity import BASELINES, RANKERS, SIMILARITIES, Metric, Ranker

Arrays = npt.NDArray[Any]
Values = Mapping[str, Arrays]  # need -> what is known of one source
Scores = dict[str, float | None]  # source -> score; None where the metric is not defined
AVAILABLE = {"features", "probs", "logits", "labels", "random_features", "params", "depth", "stated_accuracy"}
FOLDS = 5


def probe_accuracy(features: Arrays, labels: Arrays) -> float:
    """Share of right answers of a probe on images that it was not fitted on."""
    return float((_held_out(features, labels).argmax(axis=1) == labels).mean())


def probe_probability(features: Arrays, labels: Arrays) -> float:
    """Mean probability of the right class by a probe on images that it was not fitted on; has fewer ties."""
    return float(_held_out(features, labels)[np.arange(len(labels)), labels].mean())


def _held_out(features: Arrays, labels: Arrays) -> Arrays:
    return out_of_fold_probs(np.asarray(features, dtype=np.float64), labels, int(labels.max()) + 1, folds=FOLDS)


def class_count(logits: Arrays) -> float:
    """A control: the fewer classes a source has, the better, whatever the images."""
    return -float(logits.shape[1])


# Not similarity metrics of the package; judged beside them.
OTHERS: dict[str, Metric] = {
    "probe-accuracy": Metric(probe_accuracy),
    "probe-probability": Metric(probe_probability),
    "fewest-classes": Metric(class_count, needs=("logits",)),
}


def known_metrics() -> dict[str, Metric | Ranker]:
    """All metrics whose needs the saved scoring sets meet."""
    everything: dict[str, Metric | Ranker] = {**SIMILARITIES, **RANKERS, **BASELINES, **OTHERS}
    return {name: metric for name, metric in everything.items() if AVAILABLE.issuperset(metric.needs)}


def skipped_metrics() -> dict[str, list[str]]:
    """Metrics that need more, and what."""
    everything: dict[str, Metric | Ranker] = {**SIMILARITIES, **RANKERS}
    return {
        name: sorted(set(metric.needs) - AVAILABLE)
        for name, metric in everything.items()
        if not AVAILABLE.issuperset(metric.needs)
    }


def definition_of(metric: Metric | Ranker) -> str:
    """Digest of the file that defines the metric."""
    try:
        source = Path(inspect.getfile(metric.function)).read_bytes()
    except TypeError:  # built in
        source = repr(metric.needs).encode()
    return hashlib.sha256(source).hexdigest()[:16]


def load_cells(folder: Path, regime: str) -> dict[str, dict[str, dict[str, Any]]]:
    """'target-budget-seed' -> source -> record of its run; cells that lack a run are left out."""
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted((folder / "runs" / regime).glob("*.json")):
        record = json.loads(path.read_text())
        cell = f"{record['target']}-{record['budget']}-{record['seed']}"
        untrained = folder / "untrained" / f"{path.stem}.npy"
        cells.setdefault(cell, {})[record["source"]] = {
            **record,
            "arrays": path.with_suffix(".npz"),
            "untrained": untrained,
        }
    sources = {source for cell in cells.values() for source in cell}
    return {name: cell for name, cell in cells.items() if set(cell) == sources}


def values_of(record: Mapping[str, Any]) -> dict[str, Arrays]:
    """Everything that a metric may look at, by the names of `Metric.needs`."""
    with np.load(record["arrays"]) as arrays:
        values = {name: arrays[name] for name in arrays}
    if "logits" in values:
        values["probs"] = softmax(values["logits"].astype(np.float64), axis=1)
    values["random_features"] = np.load(record["untrained"])
    known = {need: record[need] for need in ("params", "depth", "stated_accuracy")}
    return values | {need: np.asarray(value) for need, value in known.items() if value is not None}


def score_one(metric: Metric, values: Values) -> float | None:
    """The metric's value for one source, None where it is not defined."""
    if any(need not in values for need in metric.needs):
        return None
    try:
        return float(metric.function(*(values[need] for need in metric.needs)))
    except (SimilarityError, DataError):
        return None


def score_together(ranker: Ranker, values: Mapping[str, Values]) -> Scores:
    """A ranker's values; it sees exactly the sources that are given and have what it needs."""
    (need,) = (need for need in ranker.needs if need != "labels")
    having = {source: each[need] for source, each in values.items() if need in each}
    labels = next(iter(values.values()))["labels"]
    scores: Scores = dict.fromkeys(values)
    while having:
        try:
            return scores | dict(ranker.function(having, labels))
        except SimilarityError as error:
            if error.source not in having:
                break
            del having[error.source]
    return scores


def tracks_of(target: str, sources: list[str]) -> dict[str, list[str]]:
    """The candidate sets: all; those that do not know the target's classes; of these, the ones of the mini zoo."""
    strict = [source for source in sources if source not in TARGETS[target][1]]
    small = [source for source in strict if not source.startswith("imagenet-")]
    return {"strict": strict, "strict-mini-zoo": small, "all": sources}


def score_cell(metric: Metric | Ranker, target: str, values: Mapping[str, Values]) -> dict[str, Scores]:
    """Track -> source -> score."""
    tracks = tracks_of(target, list(values))
    if isinstance(metric, Ranker):
        return {
            track: score_together(metric, {name: values[name] for name in names}) for track, names in tracks.items()
        }
    scores = {source: score_one(metric, each) for source, each in values.items()}
    return {track: {name: scores[name] for name in names} for track, names in tracks.items()}


def update(path: Path, metric: Metric | Ranker, cells: Mapping[str, Any], load: Callable[[str], Any]) -> bool:
    """Bring the file of one metric up to date; whether there was anything to do."""
    stored: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if stored.get("definition") != definition_of(metric):
        stored = {"definition": definition_of(metric), "cells": {}, "seconds": {}}
    missing = [cell for cell in cells if cell not in stored["cells"]]
    for cell in missing:
        values = load(cell)
        started = time.perf_counter()
        stored["cells"][cell] = score_cell(metric, cell.rsplit("-", 2)[0], values)
        stored["seconds"][cell] = (time.perf_counter() - started) / len(values)
    path.write_text(json.dumps(stored) + "\n")
    return bool(missing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".build-data"))
    parser.add_argument("--minutes", type=float, default=8.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.data / "metric_choice"
    (folder / "scores").mkdir(exist_ok=True)
    # The regimes differ in how the student trains, not in what a metric sees.
    cells = load_cells(folder, "calm") | load_cells(folder, "demo")
    kept: dict[str, dict[str, Values]] = {}

    def load(cell: str) -> dict[str, Values]:
        if cell not in kept:
            kept[cell] = {source: values_of(record) for source, record in cells[cell].items()}
        return kept[cell]

    started = time.monotonic()
    for name, metric in known_metrics().items():
        if time.monotonic() - started > 60 * arguments.minutes:
            print("Time is up; repeat the command to go on.")
            return
        before = time.monotonic()
        if update(folder / "scores" / f"{name}.json", metric, cells, load):
            print(f"{name:20s} {time.monotonic() - before:.1f} s", flush=True)
    print(f"{len(cells)} cells scored; left out: {skipped_metrics() or 'none'}")


if __name__ == "__main__":
    main()
