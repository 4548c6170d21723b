"""Which source should teach the student? The metrics' choices against the best one, on the students of table `single`.

    python benchmarks/suite/source_choice.py     # 10 minutes of a core, once the sources have answered

A student was distilled from each source alone. The best source is the one whose student was best on the other label
draws and on one half of the test groups; it and the choice of a metric, which sees the labels of the draw that is
judged, are compared on the other half. So the best source owes nothing to luck on what is judged. What the choice loses
against it is its regret, which may be negative. Written to benchmarks/results/suite/source_choice.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from metric_choice.judgement import bootstrap_difference, filled  # noqa: E402
from potstill.data import redraw_labels, scoring_ids  # noqa: E402
from potstill.pipeline.preparation import Material, gather_material, open_configured  # noqa: E402
from potstill.similarity import BASELINES, RANKERS, SIMILARITIES, Given, rank_sources  # noqa: E402
from potstill.types import Target  # noqa: E402
from suite.estimates import TargetRuns, read_table  # noqa: E402
from suite.run import PROTOCOL, RESULTS, jobs_of  # noqa: E402
from suite.zoo import DATA  # noqa: E402
from tables import UNMEASURED, table  # noqa: E402

Floats = npt.NDArray[np.float64]
TABLE, PREFIX = "single", "nearest-only-"
CHANCE = "any source, by chance"
# A reference model is not given, and untrained networks would have to be run.
UNASKED = {"reference_features", "random_features"}
METRICS = tuple(name for name, metric in {**SIMILARITIES, **RANKERS}.items() if not UNASKED & set(metric.needs))


def cross_fitted_regrets(scores: Floats, accuracies: Floats) -> Floats:
    """`(draws, 2)`: what the source with the highest score loses against the one that is best elsewhere.

    Args:
        scores: `(draws, S)`, NaN where the metric is not defined; equal first scores share the choice.
        accuracies: `(draws, 2, S)` of the student of each source on either half of the test groups; two draws at least.

    >>> scores = np.array([[1.0, 2.0], [3.0, 2.0]])
    >>> accuracies = np.array([[[50.0, 60.0], [51.0, 61.0]], [[70.0, 52.0], [72.0, 54.0]]])
    >>> cross_fitted_regrets(scores, accuracies).tolist()  # draw 0: source 0 is best in draw 1, the metric has source 1
    [[-10.0, -10.0], [-18.0, -18.0]]
    """
    regrets = np.zeros(accuracies.shape[:2])
    for draw, half in np.ndindex(*regrets.shape):
        best = np.delete(accuracies, draw, axis=0)[:, 1 - half].mean(axis=0).argmax()
        ranked = filled(scores[draw])
        here = accuracies[draw, half]
        regrets[draw, half] = here[best] - here[ranked == ranked.max()].mean()
    return regrets


def accuracies_in_halves(runs: TargetRuns, methods: Sequence[str], seeds: Sequence[int]) -> Floats:
    """`(seeds, 2, methods)` in points: every second test group, in an order that does not depend on their names."""
    groups, rows = np.unique(np.asarray(runs.groups), return_inverse=True)
    half_of = np.random.default_rng(0).permutation(len(groups)) % 2
    return np.array(
        [
            [
                [100 * runs.correct[method, seed][half_of[rows] == half].mean() for method in methods]
                for half in range(2)
            ]
            for seed in seeds
        ]
    )


def scores_on(material: Material, target: Target, sources: Sequence[str]) -> dict[str, Floats]:
    """Metric -> `(S,)` on the labels of one draw; beside the metrics what is known without an image, and chance."""
    ids = scoring_ids(target, seed=target.split.seed)
    specs = material.zoo.sources
    stated = {name: float(specs[name].accuracy["value"]) for name in sources if specs[name].accuracy}
    first, *others = METRICS
    ranking = rank_sources(
        {name: material.outputs[name] for name in sources},
        ids,
        target.labels_of(ids),
        metric=first,
        also=tuple(others),
        given=Given(stated_accuracy=stated),
        draws=0,
        permutations=0,
    )
    rows = {row.name: row for row in ranking.sources}
    found = {
        metric: np.array([_number(rows[name].scores[metric].score) for name in sources], dtype=np.float64)
        for metric in METRICS
    }
    for baseline in BASELINES:
        found[baseline] = np.array([rows[name].baselines.get(baseline, np.nan) for name in sources], dtype=np.float64)
    found[CHANCE] = np.zeros(len(sources))
    found["imagenet-lite0"] = np.array([float(name == "imagenet-lite0") for name in sources])
    return found


def _number(score: float | None) -> float:
    return np.nan if score is None else score


def measure(data: Path, runs: Mapping[str, TargetRuns]) -> Iterator[dict[str, Any]]:
    """A row for each target with two label draws of every source."""
    protocol = yaml.safe_load(PROTOCOL.read_text(encoding="utf-8"))
    for job in jobs_of(protocol, TABLE, data, "cpu"):
        seeds = runs[job.target].seeds(job.methods) if job.target in runs else []
        if len(seeds) < 2:
            continue
        config = job.config()
        material = gather_material(open_configured(job.manifest, config), config)
        sources = [method.removeprefix(PREFIX) for method in job.methods]
        accuracies = accuracies_in_halves(runs[job.target], job.methods, seeds)
        draws = [redraw_labels(material.target, seed, label_fraction=config.label_fraction) for seed in seeds]
        scores = [scores_on(material, draw, sources) for draw in draws]
        regrets = {
            metric: float(cross_fitted_regrets(np.array([each[metric] for each in scores]), accuracies).mean())
            for metric in scores[0]
        }
        yield {"target": job.target, "draws": len(seeds), "regret": regrets}


def choice_table(file: Path) -> str:
    """Mean regret of every metric over targets, least first, and what it is ahead of chance: targets are drawn anew."""
    if not file.exists():
        return UNMEASURED
    found = json.loads(file.read_text(encoding="utf-8"))["rows"]
    regrets = {name: {row["target"]: row["regret"][name] for row in found} for name in found[0]["regret"]}
    chance = np.array(list(regrets[CHANCE].values()))
    rows = []
    for name in sorted(regrets, key=lambda each: float(np.mean(list(regrets[each].values())))):
        values = np.array(list(regrets[name].values()))
        ahead = bootstrap_difference(chance, values)
        low, high = ahead["ci95"]
        difference = "" if name == CHANCE else f"{ahead['mean']:+.1f} ({low:+.1f} to {high:+.1f})"
        rows.append([name, f"{values.mean():.1f}", f"{values.max():.1f}", difference])
    return table(["chosen by", "mean regret", "largest of a target", "ahead of chance"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(measure(arguments.data, read_table(RESULTS / TABLE).targets))
    if not rows:
        raise SystemExit(f"No target of the table {TABLE} has two label draws of every source yet: run.py trains them.")
    file = RESULTS / "source_choice.json"
    file.write_text(json.dumps({"schema": 1, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
