"""Rankings in the cache: the same rows, labels and metrics have the same ranking, so it is computed once.

`<cache_dir>/rankings/<hash>.json` holds a ranking and all that it depends on, the code of the metrics included. It says
how long each metric took when it was computed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache
from importlib.metadata import version
from inspect import isfunction
from pathlib import Path
from typing import Any

import numpy as np

import potstill.probes
import potstill.similarity
import potstill.types
from potstill.cache.records import canonical_json, read_record, write_record
from potstill.errors import CacheError, OutputError
from potstill.pipeline.preparation import Material
from potstill.similarity import BASELINES, RANKERS, SIMILARITIES, Metric, Ranker, find_metric
from potstill.types import MetricScore, RankedSource, Ranking, SourceOutputs, Target

log = logging.getLogger(__name__)

FOLDER = "rankings"
OUR_METRICS = "potstill.similarity"
REGISTERED = {*SIMILARITIES, *RANKERS, *BASELINES}


def ranking_question(
    material: Material, target: Target, ids: Sequence[str], metrics: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, Any] | None:
    """All that a ranking depends on; None where that cannot be said, as for a metric of the user's own.

    Args:
        material: the sources and their rows.
        target: the labels.
        ids: the scoring images.
        metrics: names, the one that sorts first.
        settings: plain data; what else the ranking is asked for with.
    """
    found = dict(find_metric(name) for name in metrics)
    if not all(name in REGISTERED and _is_ours(each) for name, each in found.items()):
        return None
    if any("random_features" in each.needs for each in found.values()):
        return None  # they come from no cached rows
    labeled = [[target.digests[one], int(label)] for one, label in zip(ids, target.labels_of(ids), strict=True)]
    return {
        "sources": {name: _about_source(material, name, ids) for name in material.zoo.sources},
        "labeled_images": hashlib.sha256(canonical_json(labeled).encode()).hexdigest(),
        "metrics": list(metrics),
        "settings": dict(settings),
        "code": _code_version(),
    }


def kept_ranking(cache_dir: Path, question: Mapping[str, Any], compute: Callable[[], Ranking]) -> Ranking:
    """The ranking that answers the question: from the cache, or else computed and kept there."""
    file = cache_dir / FOLDER / f"{hashlib.sha256(canonical_json(question).encode()).hexdigest()[:32]}.json"
    try:
        if file.is_file():
            record = read_record(file)
            if record["question"] == question:
                return _ranking_of(json.loads(record["ranking"]))
    except CacheError as error:
        log.warning("%s It is computed again.", error)
    ranking = compute()
    try:
        # As text, for records are sorted, and the metric that sorts comes first.
        write_record(file, {"question": question, "ranking": json.dumps(asdict(ranking))})
    except OutputError:
        log.debug("The cache cannot be written, so the ranking is not kept.")
    return ranking


def _is_ours(metric: Metric | Ranker) -> bool:
    return isfunction(metric.function) and metric.function.__module__.startswith(OUR_METRICS)


def _about_source(material: Material, name: str, ids: Sequence[str]) -> dict[str, Any]:
    if name not in material.outputs or name in material.errors:
        return {"error": material.errors.get(name)}
    outputs, spec = material.outputs[name], material.zoo.sources[name]
    stated = (spec.accuracy or {}).get("value")
    return {
        "rows": _rows_sha256(outputs, ids),
        "params": outputs.cost.params,
        "depth": outputs.cost.depth,
        "accuracy": None if stated is None else float(stated),
    }


def _rows_sha256(outputs: SourceOutputs, ids: Sequence[str]) -> str:
    """Of what the source says about the images: the key of an entry leaves out what should not matter, and may."""
    rows, digest = outputs.rows(ids), hashlib.sha256()
    kinds = {"features": outputs.features}
    if outputs.logits is not None:
        kinds |= {each.name: getattr(outputs.logits, each.name) for each in fields(outputs.logits)}
    for name, values in kinds.items():
        found = values if values is None or isinstance(values, int) else np.asarray(values[rows])
        if isinstance(found, np.ndarray):
            digest.update(f"{name} {found.dtype.str} {found.shape}".encode() + found.tobytes())
        else:
            digest.update(f"{name} {found}".encode())
    return digest.hexdigest()


@cache
def _code_version() -> dict[str, str]:
    """A hash of the code that rankings come from, and the libraries that it computes with."""
    digest = hashlib.sha256()
    for package in (potstill.similarity, potstill.probes, potstill.types):
        for file in sorted(Path(str(package.__file__)).parent.glob("*.py")):
            digest.update(file.read_bytes())
    return {"sha256": digest.hexdigest(), **{name: version(name) for name in ("numpy", "scipy", "scikit-learn")}}


def _ranking_of(plain: Mapping[str, Any]) -> Ranking:
    """What `asdict` made of a ranking."""
    rows = tuple(_row_of(row) for row in plain["sources"])
    return Ranking(**{**plain, "sources": rows, "tied_with_first": tuple(plain["tied_with_first"])})


def _row_of(plain: Mapping[str, Any]) -> RankedSource:
    scores = {
        name: MetricScore(**{**each, "ci95": None if each["ci95"] is None else tuple(each["ci95"])})
        for name, each in plain["scores"].items()
    }
    ranks = plain["rank_probabilities"]
    return RankedSource(**{**plain, "scores": scores, "rank_probabilities": None if ranks is None else tuple(ranks)})
