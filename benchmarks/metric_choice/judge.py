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
CONTROLS = (*BASELINES, "fewest-classes", "random", "best elsewhere", "same target, other draws")
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
    """Choices that look at no image of the cell: at random; the source from which students learn best on the other
    targets; and, as nobody can before training, the one that is best on the same target with other labels or budgets.
    """
    names = {key_of(cell): sources for cell, sources in order.items()}

    def best_among(key: Key, others: list[Key]) -> Floats:
        gains: dict[str, list[float]] = {source: [] for source in names[key]}
        for other in others:
            for source, value in zip(names[other], accuracies[other] - accuracies[other].mean(), strict=True):
                if source in gains:
                    gains[source].append(float(value))
        return np.array([np.mean(gains[source]) if gains[source] else np.nan for source in names[key]])

    found: dict[str, dict[Key, Floats]] = {name: {} for name in CONTROLS[-3:]}
    for key, values in accuracies.items():
        found["random"][key] = np.zeros(len(values))
        found["best elsewhere"][key] = best_among(key, [other for other in accuracies if other[0] != key[0]])
        same = [other for other in accuracies if other[0] == key[0] and other != key]
        found["same target, other draws"][key] = best_among(key, same)
    return found


def judge_metric(scores: Mapping[Key, Floats], accuracies: Mapping[Key, Floats]) -> dict[str, Any]:
    """Regret, tau, Pearson, share of best choices: means over seeds, then targets, for each budget and overall."""
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
        less = f"{100 * each['regret_less_parc']['mean']:+.2f} [{100 * low:.2f}, {100 * high:.2f}]"
        print(
            f"{name:26s}{figures}{100 * each['regret']['mean']:7.2f}{each['tau']['mean']:7.2f}"
            f"{each['pearson']['mean']:8.2f}  {less}"
        )
    for unit, each in outcome["left_out"].items():
        print(f"chosen without the {unit}: regret {100 * each['regret']:.2f}, {each['chosen']}")


def accuracy_table(cells: Mapping[str, Any], truth: str) -> dict[str, dict[str, dict[str, float]]]:
    """target -> source -> budget -> accuracy, means over seeds."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for cell, records in cells.items():
        target, budget, _ = key_of(cell)
        for source, record in records.items():
            found.setdefault((target, source, str(budget)), []).append(record[truth])
    table: dict[str, dict[str, dict[str, float]]] = {}
    for (target, source, budget), values in found.items():
        table.setdefault(target, {}).setdefault(source, {})[budget] = float(np.mean(values))
    return table


def truths_of(folder: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """Name of a truth -> its cells and the field of their records that holds the accuracy."""
    cells = {regime: load_cells(folder, regime) for regime in REGIMES}
    for regime, found in cells.items():
        targets = {key_of(cell)[0] for cell in found}
        complete = {t for t in targets if {key_of(cell)[1] for cell in found if key_of(cell)[0] == t} == set(BUDGETS)}
        cells[regime] = {cell: records for cell, records in found.items() if key_of(cell)[0] in complete}
    return {
        "student, demo settings": (cells["demo"], "student"),
        "student, calm settings": (cells["calm"], "student"),
        "probe": (cells["demo"], "probe"),
    }


def provenance(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Where the figures come from."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "commit": commit,
        "environment": environment_record(),
        "settings": {**SETTINGS, "imagenet_image_size": IMAGENET_SIZE, "most_images": MOST_IMAGES},
        "regimes": REGIMES,
        "budgets": BUDGETS,
        "targets": {target: {"kind": kind, "left_out_in_strict": out} for target, (kind, out) in TARGETS.items()},
        "definitions": {name: each["definition"] for name, each in stored.items()},
        "seconds_a_source": {name: float(np.median(list(each["seconds"].values()))) for name, each in stored.items()},
        "metrics_left_out": skipped_metrics(),
        "not_similarities": sorted(OTHERS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".build-data"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/metric_choice.json"))
    arguments = parser.parse_args()
    folder = arguments.data / "metric_choice"
    stored = {name: json.loads((folder / "scores" / f"{name}.json").read_text()) for name in known_metrics()}
    some = next(iter(stored.values()))["cells"]
    record: dict[str, Any] = {**provenance(stored), "truths": {}}
    for truth, (cells, field) in truths_of(folder).items():
        if not cells:
            continue
        keys = sorted(map(key_of, cells))
        record["truths"][truth] = outcome = {
            "runs": sum(map(len, cells.values())),
            "seeds": {str(b): sorted({s for _, budget, s in keys if budget == b}) for b in BUDGETS},
            "accuracies": accuracy_table(cells, field),
            "tracks": {},
        }
        for track in ("strict", "strict-mini-zoo", "all"):
            order = {cell: list(some[cell][track]) for cell in cells}
            accuracies = accuracies_of(cells, order, field)
            columns = columns_of(folder, track, order) | controls(accuracies, order)
            outcome["tracks"][track] = judge_track(columns, accuracies)
            print_track(f"{track} sources, truth: {truth}", outcome["tracks"][track])
    write_json(arguments.output, record)


if __name__ == "__main__":
    main()
