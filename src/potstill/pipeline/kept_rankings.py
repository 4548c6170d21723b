"""Rankings in the cache: the same rows, labels and metrics have the same ranking, so it is computed once.

`<cache_dir>/rankings/<hash>.json` holds a ranking and all that it depends on, the code of the metrics included. It says
how long each metric took when it was computed.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from inspect import isfunction
from pathlib import Path
from typing import Any

import potstill.probes
import potstill.similarity
from potstill.cache.records import canonical_json, read_record, write_record
from potstill.errors import CacheError, OutputError
from potstill.pipeline.preparation import Material
from potstill.similarity import find_metric
from potstill.types import MetricScore, RankedSource, Ranking, Target

log = logging.getLogger(__name__)

FOLDER = "rankings"
OUR_METRICS = "potstill.similarity"


def ranking_question(
    material: Material, target: Target, ids: Sequence[str], metrics: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, Any] | None:
    """All that a ranking depends on; None where that cannot be said, as for a metric of the user's own.

    Args:
        material: the sources and their rows, which the keys of the cache name.
        target: the labels.
        ids: the scoring images.
        metrics: names, the one that sorts first.
        settings: plain data; what else the ranking is asked for with.
    """
    found = [find_metric(name)[1] for name in metrics]
    if not all(isfunction(each.function) and each.function.__module__.startswith(OUR_METRICS) for each in found):
        return None
    if any("random_features" in each.needs for each in found):
        return None  # they come from no cached rows
    labeled = [[target.digests[one], int(label)] for one, label in zip(ids, target.labels_of(ids), strict=True)]
    return {
        "sources": {name: _about_source(material, name) for name in material.zoo.sources},
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
                return _ranking_of(record["ranking"])
    except CacheError as error:
        log.warning("%s It is computed again.", error)
    ranking = compute()
    try:
        write_record(file, {"question": question, "ranking": asdict(ranking)})
    except OutputError:
        log.debug("The cache cannot be written, so the ranking is not kept.")
    return ranking


def _about_source(material: Material, name: str) -> dict[str, Any]:
    if name not in material.outputs or name in material.errors:
        return {"error": material.errors.get(name)}
    outputs, spec = material.outputs[name], material.zoo.sources[name]
    stated = (spec.accuracy or {}).get("value")
    return {
        "rows": outputs.key,
        "params": outputs.cost.params,
        "depth": outputs.cost.depth,
        "accuracy": None if stated is None else float(stated),
    }


@cache
def _code_version() -> dict[str, str]:
    """A hash of the code that rankings come from, and the libraries that it computes with."""
    digest = hashlib.sha256()
    for package in (potstill.similarity, potstill.probes):
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
