"""The tables and the plot of docs/results.md, made of what run.py wrote.

python benchmarks/suite/page.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from potstill.distillation.stacking import STACK_VERSION  # noqa: E402
from suite.build import CHECKSUMS  # noqa: E402
from suite.development_tables import check_table, guard_table, stack_weights_table, sweep_table, trials_table  # noqa: E402
from suite.estimates import Estimate, Table, read_table  # noqa: E402
from suite.run import PROTOCOL, RESULTS  # noqa: E402
from suite.source_choice import choice_table  # noqa: E402
from suite.tasks import TASKS  # noqa: E402
from tables import UNMEASURED, table, write_tables  # noqa: E402

PAGE = ROOT / "docs" / "results.md"
PLOT = ROOT / "docs" / "results.svg"
BASELINES = ("transfer", "fixmatch")
WITHOUT_SOURCES = ("transfer", "probe", "fixmatch", "softmatch", "pseudo-label")
OURS = "stacked"
CEILING_MARGIN = 3.0
"""Points: where a simple method comes so near to the ceiling, a target tells nothing of the methods."""


def tables_of(results: Path, protocol: Mapping[str, Any]) -> dict[str, str]:
    """Markdown of every table by its name; of one that was not run yet, a sentence that says so."""
    found = {
        "progress": _progress(results, protocol),
        "sweep": sweep_table(results / "sweep"),
        "trials": trials_table(results / "trials.json"),
        "source-choice": choice_table(results / "source_choice.json"),
        "stack-versions": _stack_versions(results),
        "fixmatch-check": check_table(results / "fixmatch_check.json"),
        "guard": guard_table(results / "guard.json"),
        "stack-weights": stack_weights_table(results / "stack_weights.json"),
    }
    main = read_table(results / "main")
    for name in ("main", "few", "one", "ten", "second"):
        whole = read_table(results / name)
        left_out = too_easy(whole, whole if name == "second" else main, nearest=name == "main")
        compared = compared_methods(whole, protocol["tables"][name]["methods"])
        found[f"{name}-too-easy"] = _too_easy(
            left_out, [each for each in whole.targets if _ceiling(main, each) is None]
        )
        found[f"{name}-means"] = _means(compared, left_out) if compared else UNMEASURED
        found[f"{name}-means-of-all"] = _means(compared) if compared else UNMEASURED
        found[f"{name}-targets"] = _targets(results / name, protocol["tables"][name]["methods"])
        if name == "main":
            found["gap"] = _gap(whole, left_out)
    found["cost"] = _cost(results / "main", protocol["tables"]["main"]["methods"])
    return found


def too_easy(whole: Table, ceilings: Table, *, nearest: bool) -> dict[str, str]:
    """Targets on which a method without sources comes within 3 points of the ceiling.

    Args:
        whole: the table whose methods are compared.
        ceilings: the table that has the ceilings of its student.
        nearest: whether the nearest training image counts, which knows every label of the pool.

    Returns:
        Name of the target -> what came how near.
    """
    tasks = json.loads(CHECKSUMS.read_text(encoding="utf-8"))["tasks"]
    found = {}
    for name, runs in whole.targets.items():
        ceiling = _ceiling(ceilings, name)
        if ceiling is None:
            continue
        accuracies = {
            f"`{method}`": runs.accuracy(method, seeds) for method in WITHOUT_SOURCES if (seeds := runs.seeds([method]))
        }
        if nearest:
            accuracies["the nearest training image"] = 100 * tasks[name]["nearest_neighbour"]
        best = max(accuracies, key=accuracies.__getitem__, default=None)
        if best is not None and ceiling - accuracies[best] < CEILING_MARGIN:
            found[name] = f"{best} is {ceiling - accuracies[best]:+.1f} points below the ceiling"
    return found


def _ceiling(table: Table, target: str) -> float | None:
    runs = table.targets.get(target)
    seeds = runs.seeds(["ceiling"]) if runs else []
    return runs.accuracy("ceiling", seeds) if runs and seeds else None


def _too_easy(left_out: Mapping[str, str], unknown: Sequence[str]) -> str:
    lines = [f"- {name}: {reason}" for name, reason in left_out.items()] or ["- none"]
    if unknown:
        lines.append(f"- not known yet, for want of a ceiling, and so not left out: {', '.join(unknown)}")
    return "\n".join(lines) + "\n"


def compared_methods(whole: Table, methods: Sequence[str]) -> Table | None:
    """Targets on which our method and both baselines have two label draws, and the methods that share two with them."""
    needed = (*BASELINES, OURS)
    targets = {name: runs for name, runs in whole.targets.items() if len(runs.seeds(needed)) > 1}
    if not targets:
        return None
    kept = list(needed)
    for method in methods:
        if method not in kept and all(len(runs.seeds((*kept, method))) > 1 for runs in targets.values()):
            kept.append(method)
    return Table(targets, tuple(method for method in methods if method in kept))


def _progress(results: Path, protocol: Mapping[str, Any]) -> str:
    rows = []
    for name, asked in protocol["tables"].items():
        if name == "sweep":
            continue
        done = [run for runs in read_table(results / name).targets.values() for run in runs.correct]
        methods = asked["methods"]
        planned = (
            "one for each source" if "*" in methods[0] else str(len(asked["targets"]) * len(methods) * asked["seeds"])
        )
        labels = next(iter(asked["settings"].items()))
        rows.append([name, f"{labels[0].replace('_', ' ')} {labels[1]:g}", str(len(done)), planned])
    return table(["table", "labels", "students finished", "students planned"], rows)


def _means(compared: Table, left_out: Collection[str] = ()) -> str:
    names = [name for name in compared.complete if name not in left_out]
    if not names:
        return UNMEASURED
    means = compared.means(left_out)
    kinds = sorted({TASKS[name].kind for name in names})
    rows = []
    for method in sorted(means, key=lambda name: -means[name]):
        by_kind = [
            np.mean([compared.accuracy(name, method) for name in names if TASKS[name].kind == kind]) for kind in kinds
        ]
        others = (*BASELINES, OURS)
        against = ["" if method == other else str(compared.difference(method, other, left_out)) for other in others]
        verdicts = "" if method == "transfer" else _verdicts(compared, method, names)
        rows.append([f"`{method}`", f"{means[method]:.1f}", *against, verdicts, *(f"{each:.1f}" for each in by_kind)])
    titles = ["method", "mean over kinds", *(f"minus `{other}`" for other in (*BASELINES, OURS)), "win / tie / harm"]
    seeds = sorted({len(compared.seeds[name]) for name in names})
    text = f"{len(names)} targets of {len(kinds)} kinds, label draws: {', '.join(map(str, seeds))}.\n\n"
    return text + table([*titles, *kinds], rows)


def _verdicts(compared: Table, method: str, names: Sequence[str]) -> str:
    """On how many targets it is ahead of transfer, tied with it, behind it."""
    found = [verdict(compared.difference_on(name, method, "transfer")) for name in names]
    return " / ".join(str(found.count(name)) for name in ("win", "tie", "harm"))


def verdict(difference: Estimate) -> str:
    """What an interval says.

    >>> verdict(Estimate(2.0, 0.5, 3.5)), verdict(Estimate(2.0, -0.5, 4.5)), verdict(Estimate(-2.0, -3.0, -1.0))
    ('win', 'tie', 'harm')
    """
    if difference.low > 0:
        return "win"
    return "harm" if difference.high < 0 else "tie"


def _targets(folder: Path, methods: Sequence[str]) -> str:
    whole = read_table(folder)
    if not whole.targets:
        return UNMEASURED
    rows = []
    for name, runs in whole.targets.items():
        cells = []
        for method in methods:
            seeds = runs.seeds([method])
            cells.append(
                f"{runs.accuracy(method, seeds):.1f}" + (f" ({len(seeds)})" if len(seeds) < 3 else "") if seeds else ""
            )
        rows.append([f"{name} ({runs.kind})", *cells])
    kept = [column for column in range(len(methods)) if any(row[column + 1] for row in rows)]
    titles = ["target", *(f"`{methods[column]}`" for column in kept)]
    return table(titles, [[row[0], *(row[column + 1] for column in kept)] for row in rows])


def _gap(whole: Table, left_out: Collection[str]) -> str:
    """How much of the way from transfer to the ceiling our method goes."""
    methods = ("transfer", OURS, "ceiling")
    targets = {name: runs for name, runs in whole.targets.items() if runs.seeds(methods)}
    if not set(targets) - set(left_out):
        return UNMEASURED
    compared = Table(targets, methods)

    def row(title: str, accuracies: Iterable[float], draws: str) -> list[str]:
        low, ours, high = accuracies
        share = f"{100 * (ours - low) / (high - low):.0f} %" if high > low else ""
        return [title, f"{low:.1f}", f"{ours:.1f}", f"{high:.1f}", share, draws]

    rows = [
        row(name, (compared.accuracy(name, each) for each in methods), str(len(compared.seeds[name])))
        for name in compared.complete
    ]
    rows.append(row("mean over kinds, without too easy ones", compared.means(left_out).values(), ""))
    return table(["target", *(f"`{method}`" for method in methods), "share of the gap", "label draws"], rows)


def _stack_versions(results: Path) -> str:
    """Which forms of the stack the students of the tables were taught by; 1 did not say so."""
    found: set[int] = set()
    for file in sorted(results.glob("*/*.json")):
        if not file.name.endswith(".correct.json"):
            runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
            found |= {run["stack"].get("version", 1) for run in runs if "stack" in run}
    if not found:
        return UNMEASURED
    versions = " and ".join(map(str, sorted(found)))
    return (
        f"Students above were taught by form {versions} of the stack; what is described here is form {STACK_VERSION}.\n"
    )


def _cost(folder: Path, methods: Sequence[str]) -> str:
    passes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.json")):
        if file.name.endswith(".correct.json"):
            continue
        for run in json.loads(file.read_text(encoding="utf-8"))["runs"]:
            passes.setdefault(run["method"], []).append(
                run["images_trained"] + (run["images_seen"] - run["images_trained"]) / 3
            )
    if not passes:
        return UNMEASURED
    rows = [
        [f"`{name}`", f"{min(passes[name]):,.0f} to {max(passes[name]):,.0f}"] for name in methods if name in passes
    ]
    return table(["method", "image passes of a student"], rows)


def draw(results: Path, path: Path) -> None:
    """Each target's difference to transfer, with its interval, of the methods that are compared."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "potstill"
    from matplotlib import pyplot

    compared = compared_methods(read_table(results / "main"), ("transfer", OURS, "fixmatch", "weighted"))
    if compared is None:
        return
    shown = [method for method in compared.methods if method != "transfer"]
    names = sorted(compared.complete, key=lambda name: (TASKS[name].kind, name))
    figure, axes = pyplot.subplots(figsize=(8, 0.45 * len(names) + 1.2), layout="constrained")
    for number, method in enumerate(shown):
        found = [compared.difference_on(name, method, "transfer") for name in names]
        height = np.arange(len(names)) + 0.22 * (number - (len(shown) - 1) / 2)
        means = np.array([each.mean for each in found])
        spread = np.abs(np.array([[each.mean - each.low, each.high - each.mean] for each in found]).T)
        axes.errorbar(means, height, xerr=spread, fmt="o", markersize=4, label=method)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(np.arange(len(names)), [f"{name} ({TASKS[name].kind})" for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("points of accuracy more than transfer, 20 % of the labels")
    axes.legend(loc="lower right")
    figure.savefig(path, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    pyplot.close(figure)


def main() -> None:
    protocol = yaml.safe_load(PROTOCOL.read_text(encoding="utf-8"))
    write_tables(PAGE, tables_of(RESULTS, protocol))
    draw(RESULTS, PLOT)


if __name__ == "__main__":
    main()
