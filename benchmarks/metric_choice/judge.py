"""Which metric picks the source from which the student learns best? -> benchmarks/results/metric_choice.json

    python benchmarks/metric_choice/judge.py

Reads the runs and scores in `.build-data/metric_choice/`, so run runs.py and scores.py first. No metric runs here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from judgement import Floats, bootstrap_difference, by_target, leave_one_out, mean_rank, mean_z, pearson, regret, tau
from runs import BUDGETS, REGIMES, SETTINGS
from scores import OTHERS, known_metrics, load_cells, skipped_metrics
from targets import IMAGENET_SIZE, MOST_IMAGES, TARGETS

from potstill.reporting import environment_record, write_json
from potstill.similarity import BASELINES

Key = tuple[str, int, int]  # target, budget, seed
ENSEMBLES = {
    # Written down before the first result was seen.
    "rank: parc+knn+probe": ("parc", "knn", "probe-probability"),
    "rank: parc+logme+leep": ("parc", "logme", "leep"),
    "rank: parc+cka+hscore": ("parc", "cka", "hscore"),
    "z: parc+knn+probe": ("parc", "knn", "probe-probability"),
}
CONTROLS = (*BASELINES, "fewest-classes", "random", "best elsewhere", "student of another draw")
REFERENCE = "parc"
TRUTHS = (*(f"{regime}-student" for regime in REGIMES), "probe")


def key_of(cell: str) -> Key:
    target, budget, seed = cell.rsplit("-", 2)
    return target, int(budget), int(seed)


def accuracies_of(cells: Mapping[str, Any], track: Mapping[str, list[str]], truth: str) -> dict[Key, Floats]:
    """Accuracy from each source of the track, in its order."""
    return {
        key_of(cell): np.array([records[source][truth] for source in track[cell]]) for cell, records in cells.items()
    }


def columns_of(folder: Path, track: str, order: Mapping[str, list[str]]) -> dict[str, dict[Key, Floats]]:
    """metric -> scores of every cell, NaN where not defined; ensembles of them too."""
    columns: dict[str, dict[Key, Floats]] = {}
    for name in known_metrics():
        stored = json.loads((folder / "scores" / f"{name}.json").read_text())["cells"]
        columns[name] = {
            key_of(cell): np.array([stored[cell][track][source] for source in order[cell]], dtype=np.float64)
            for cell in order
        }
    for name, parts in ENSEMBLES.items():
        combine = mean_z if name.startswith("z:") else mean_rank
        columns[name] = {key: combine([columns[part][key] for part in parts]) for key in columns[REFERENCE]}
    return columns


def controls(accuracies: Mapping[Key, Floats], order: Mapping[str, list[str]]) -> dict[str, dict[Key, Floats]]:
    """Choices that look at no image of the cell: at random; the source that is best on the other targets; and one that
    looks at what nobody has before training, the students of the other label draws of the same target and budget.
    """
    names = {key_of(cell): sources for cell, sources in order.items()}
    found: dict[str, dict[Key, Floats]] = {"random": {}, "best elsewhere": {}, "student of another draw": {}}
    for key, values in accuracies.items():
        found["random"][key] = np.zeros(len(values))
        deviations: dict[str, list[float]] = {source: [] for source in names[key]}
        for other, others in accuracies.items():
            if other[0] != key[0]:
                for source, value in zip(names[other], others - others.mean(), strict=True):
                    deviations.get(source, []).append(float(value))
        found["best elsewhere"][key] = np.array([np.mean(deviations[source] or [np.nan]) for source in names[key]])
        redrawn = [others for other, others in accuracies.items() if other[:2] == key[:2] and other[2] != key[2]]
        found["student of another draw"][key] = np.mean(redrawn, axis=0) if redrawn else np.full(len(values), np.nan)
    return found


def judge_metric(scores: Mapping[Key, Floats], accuracies: Mapping[Key, Floats]) -> dict[str, Any]:
    """Regret, tau, Pearson and the share of best choices: means over seeds, then targets, for each budget and overall."""
    outcome: dict[str, Any] = {}
    measures = {"regret": regret, "tau": tau, "pearson": pearson, "picked_best": lambda s, a: float(regret(s, a) == 0)}
    for name, measure in measures.items():
        targets = by_target({key: measure(scores[key], accuracies[key]) for key in accuracies}, BUDGETS)
        table = np.stack(list(targets.values()))
        outcome[name] = {str(budget): float(table[:, i].mean()) for i, budget in enumerate(BUDGETS)}
        outcome[name]["mean"] = float(table.mean())
        if name == "regret":
            outcome["regret_by_target"] = {target: float(values.mean()) for target, values in targets.items()}
            kinds = {TARGETS[target][0] for target in targets}
            outcome["regret_mean_over_kinds"] = float(
                np.mean([np.mean([v.mean() for t, v in targets.items() if TARGETS[t][0] == kind]) for kind in kinds])
            )
    return outcome


def judge_track(columns: Mapping[str, Mapping[Key, Floats]], accuracies: Mapping[Key, Floats]) -> dict[str, Any]:
    """All metrics on one candidate set and one truth, with the honest estimate of choosing the winner."""
    judged = {name: judge_metric(scores, accuracies) for name, scores in columns.items()}
    vectors = {name: np.array(list(each["regret_by_target"].values())) for name, each in judged.items()}
    targets = list(judged[REFERENCE]["regret_by_target"])
    for name, vector in vectors.items():
        judged[name]["regret_less_parc"] = bootstrap_difference(vector, vectors[REFERENCE])
    eligible = {name: vector for name, vector in vectors.items() if name not in CONTROLS}
    kinds = sorted({TARGETS[target][0] for target in targets})
    parts = {
        "target": [[number] for number in range(len(targets))],
        "kind": [[i for i, target in enumerate(targets) if TARGETS[target][0] == kind] for kind in kinds],
    }
    choice = {}
    for unit, held_out in parts.items():
        left_out = leave_one_out(eligible, held_out)
        values = np.asarray(left_out["regret"])
        choice[unit] = {
            "chosen": dict(zip(targets if unit == "target" else kinds, left_out["chosen"], strict=True)),
            "regret": float(values.mean()),
            "regret_less_parc": bootstrap_difference(values, vectors[REFERENCE]),
        }
    return {"metrics": dict(sorted(judged.items(), key=lambda item: item[1]["regret"]["mean"])), "left_out": choice}


def print_track(title: str, outcome: Mapping[str, Any]) -> None:
    print(
        f"\n{title}\n{'metric':26s}"
        + "".join(f"{'r@' + str(b):>7s}" for b in BUDGETS)
        + "   mean    tau  pearson  less parc"
    )
    for name, each in outcome["metrics"].items():
        figures = "".join(f"{100 * each['regret'][str(budget)]:7.1f}" for budget in BUDGETS)
        low, high = each["regret_less_parc"]["ci95"]
        print(
            f"{name:26s}{figures}{100 * each['regret']['mean']:7.2f}{each['tau']['mean']:7.2f}"
            f"{each['pearson']['mean']:8.2f}  {100 * each['regret_less_parc']['mean']:+.2f} [{100 * low:.2f}, {100 * high:.2f}]"
        )
    for unit, each in outcome["left_out"].items():
        print(f"chosen without the {unit}: regret {100 * each['regret']:.2f}, {each['chosen']}")


def spread_of(cells: Mapping[str, Any]) -> dict[str, Any]:
    """How much there is to win: accuracies by target and source, means over budgets and seeds."""
    table: dict[str, dict[str, dict[str, list[float]]]] = {}
    for cell, records in cells.items():
        for source, record in records.items():
            for truth in TRUTHS:
                table.setdefault(key_of(cell)[0], {}).setdefault(source, {}).setdefault(truth, []).append(record[truth])
    return {
        target: {source: {truth: float(np.mean(v)) for truth, v in each.items()} for source, each in sources.items()}
        for target, sources in table.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".build-data"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/metric_choice.json"))
    arguments = parser.parse_args()
    folder = arguments.data / "metric_choice"
    cells = load_cells(folder)
    # A target takes part when all its cells of some seed are there for every budget.
    whole = {(t, s) for t, _, s in map(key_of, cells) if all(f"{t}-{b}-{s}" in cells for b in BUDGETS)}
    cells = {cell: records for cell, records in cells.items() if key_of(cell)[::2] in whole}
    stored = {name: json.loads((folder / "scores" / f"{name}.json").read_text()) for name in known_metrics()}
    record: dict[str, Any] = {
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "environment": environment_record(),
        "settings": {**SETTINGS, "regimes": REGIMES, "imagenet_image_size": IMAGENET_SIZE, "most_images": MOST_IMAGES},
        "budgets": BUDGETS,
        "seeds": {target: sorted(s for t, s in whole if t == target) for target, _ in sorted(whole)},
        "targets": {target: {"kind": kind, "left_out_in_strict": out} for target, (kind, out) in TARGETS.items()},
        "runs": sum(map(len, cells.values())) * len(REGIMES),
        "definitions": {name: each["definition"] for name, each in stored.items()},
        "seconds_a_source": {name: float(np.median(list(each["seconds"].values()))) for name, each in stored.items()},
        "metrics_left_out": skipped_metrics(),
        "not_similarities": sorted(OTHERS),
        "accuracies": spread_of(cells),
        "tracks": {},
    }
    some = next(iter(stored.values()))["cells"]
    for track in ("strict", "strict-mini-zoo", "all"):
        order = {cell: list(some[cell][track]) for cell in cells}
        record["tracks"][track] = {}
        for truth in TRUTHS:
            accuracies = accuracies_of(cells, order, truth)
            columns = columns_of(folder, track, order) | controls(accuracies, order)
            record["tracks"][track][truth] = judge_track(columns, accuracies)
            print_track(f"{track} sources, truth: {truth}", record["tracks"][track][truth])
    write_json(arguments.output, record)


if __name__ == "__main__":
    main()
