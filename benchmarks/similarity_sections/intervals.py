"""Do 95 % intervals cover the true value, and do halves of the scoring set say what the whole says?

The true value of a metric is its mean over many fresh scoring sets of the same size. An interval comes from one scoring
set, as a user gets it from `rank_sources`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

from potstill.similarity import SIMILARITIES, rank_sources
from potstill.similarity._resampling import draw_halves
from potstill.similarity._scoring import Column
from similarity_sections.problems import Network, labels_of, source_outputs

CHEAP = ("parc", "knn", "cka", "leep", "nce", "hscore", "logme")
SOURCE_CLASSES = 20
FRESH_SETS = 1000
PERMUTATIONS = 19  # the fewest that can show a p-value of 0.05
GOAL_COVERAGE = (0.90, 0.98)
GOAL_SHIFT = 0.01  # of the mean over halves from the value of the whole, on noise
SETS_FOR_SHIFT = 20


@dataclass(frozen=True)
class Setting:
    """A target and how much a source knows of it; without signal, labels have nothing to do with the images."""

    images: int
    classes: int
    signal: float
    dimensions: int = 128


SETTINGS = {
    "500 images, noise": Setting(500, 10, 0.0),
    "500 images, signal": Setting(500, 10, 3.0),
    "60 images, noise": Setting(60, 10, 0.0),
    "60 images, signal": Setting(60, 10, 3.0),
}


def measure_intervals(metrics: Sequence[str], simulations: int, workers: int) -> dict[str, Any]:
    """The section `intervals` of the record, of these metrics: metric -> setting -> coverage and what it rests on."""
    found: dict[str, Any] = {}
    # New processes, not copies of this one: threads of the linear algebra do not survive a copy.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_use_one_thread) as pool:
        for metric in metrics:
            found[metric] = {}
            for name, setting in SETTINGS.items():
                found[metric][name] = one = _in_setting(pool, metric, setting, simulations)
                print(f"{metric:8s} {name}: covered {one['covered']}, goal reached {one['reached']}", flush=True)
    return found


def _in_setting(pool: ProcessPoolExecutor, metric: str, setting: Setting, simulations: int) -> dict[str, Any]:
    fresh = list(pool.map(partial(_value, metric, setting), range(10**6, 10**6 + FRESH_SETS), chunksize=50))
    seen = list(pool.map(partial(_interval, metric, setting), range(simulations), chunksize=5))
    shifts = list(pool.map(partial(_shift_of_halves, metric, setting), range(SETS_FOR_SHIFT)))
    truth = float(np.mean([*fresh, *(one["score"] for one in seen)]))
    known = [one["ci95"] for one in seen if one["ci95"] is not None]
    covered = float(np.mean([low <= truth <= high for low, high in known])) if known else None
    chances = [one["p_value"] for one in seen if one["p_value"] is not None]
    return {
        **asdict(setting),
        "true_value": truth,
        "fresh_sets": FRESH_SETS + simulations,
        "simulations": simulations,
        "with_interval": len(known),
        "covered": covered,
        "covered_standard_error": None if covered is None else float(np.sqrt(covered * (1 - covered) / len(known))),
        "standard_deviation": float(np.std(fresh, ddof=1)),
        "mean_half_width": float(np.mean([(high - low) / 2 for low, high in known])) if known else None,
        "share_of_p_up_to_0.05": float(np.mean([chance <= 0.05 for chance in chances])) if chances else None,
        "mean_shift_of_halves": float(np.mean(shifts)),
        "reached": _reached(metric, setting, covered, float(np.mean(shifts))),
    }


def _reached(metric: str, setting: Setting, covered: float | None, shift: float) -> bool:
    lowest, highest = GOAL_COVERAGE
    small = metric not in ("parc", "knn") or setting.signal > 0 or setting.images < 500 or abs(shift) < GOAL_SHIFT
    return covered is not None and lowest <= covered <= highest and small


def _scoring_set(setting: Setting, seed: int) -> tuple[Any, np.ndarray]:
    """Cached outputs of one fixed source for fresh images, and their labels."""
    labels = labels_of(setting.images, setting.classes)
    network = Network(setting.classes, setting.dimensions, signal=setting.signal, seed=0)
    features = network.features(labels, seed=seed)
    return source_outputs("source", features, SOURCE_CLASSES, seed=0), labels


def _value(metric: str, setting: Setting, seed: int) -> float:
    outputs, labels = _scoring_set(setting, seed)
    ranking = rank_sources({"source": outputs}, outputs.image_ids, labels, metric=metric, draws=0, permutations=0)
    return _score_of(ranking)


def _interval(metric: str, setting: Setting, seed: int) -> dict[str, Any]:
    """As many draws as users get. p-values are of interest on noise alone, where few of them may be small."""
    outputs, labels = _scoring_set(setting, seed)
    permutations = 0 if setting.signal else PERMUTATIONS
    ranking = rank_sources(
        {"source": outputs}, outputs.image_ids, labels, metric=metric, permutations=permutations, seed=seed
    )
    row = ranking.sources[0]
    return {"score": _score_of(ranking), "ci95": row.scores[metric].ci95, "p_value": row.p_value}


def _shift_of_halves(metric: str, setting: Setting, seed: int) -> float:
    """Mean score of the halves of a scoring set, less the score of the whole."""
    outputs, labels = _scoring_set(setting, seed)
    rows = outputs.rows(outputs.image_ids)
    values = {"features": outputs.features[rows], "probs": outputs.logits.probs(rows), "labels": labels}
    column = Column(metric, SIMILARITIES[metric], {"source": values}, labels)
    scores = column.halved(draw_halves(labels, 100, seed=seed))["source"]
    return float(np.nanmean([scores.first, scores.second]) - column.scores["source"])


def _score_of(ranking: Any) -> float:
    row = ranking.sources[0]
    if row.score is None:
        raise ValueError(f"no score: {row.error}")
    return float(row.score)


def _use_one_thread() -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
