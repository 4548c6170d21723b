"""Collects what the page shows from a directory. A piece that is missing or damaged becomes a note, never an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import DataError
from potstill.evaluation.metrics import confusion_matrix
from potstill.reporting._wording import finished_runs
from potstill.reporting.record import read_json, read_predictions, read_results
from potstill.reporting.tables import best_method, method_order

_NOT_TERMS = frozenset({"step", "progress", "loss", "lr", "seconds"})


def gather_record(directory: Path) -> dict[str, Any]:
    """What `render_report` needs, from the root of a comparison or from one run directory.

    Raises:
        DataError: the directory holds neither results nor a ranking.
    """
    notes: list[str] = []
    results = _read_or_note(read_results, directory / "results.json", "the results", notes)
    folders = _run_folders(directory, results) if results else {}
    ranking = _first_json(directory, folders, "ranking.json", "the ranking", notes)
    if results is None and ranking is None:
        raise DataError(
            f"'{directory.name or directory}' holds neither results.json nor ranking.json. Expected the output of "
            "`potstill compare`, `run`, `distill` or `rank`."
        )
    weights, weights_of = _weights(directory, results, notes)
    config = directory / "config.yaml"
    record = {
        "title": (results or {}).get("target") or directory.resolve().name,
        "results": results,
        "ranking": ranking,
        "weights": weights,
        "weights_of": weights_of,
        "curves": _curves(folders, results, notes),
        "confusion": _confusion(folders, results, notes),
        "config": config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None,
        "environment": _first_json(directory, folders, "environment.json", "the versions", notes),
    }
    if record["config"] is None:
        notes.append("config.yaml is not there, so this page is without the settings.")
    return {**record, "notes": notes}


def _read_or_note(read: Any, path: Path, what: str, notes: list[str]) -> Any:
    if not path.is_file():
        notes.append(f"{path.name} is not there, so this page is without {what}.")
        return None
    try:
        return read(path)
    except DataError as error:
        notes.append(f"{what[0].upper()}{what[1:]}: {error}")
        return None


def _run_folders(directory: Path, results: Mapping[str, Any]) -> dict[tuple[str, int], Path]:
    """(method, seed) -> folder of the finished runs. A path that leads out of the directory is not followed."""
    runs = finished_runs(results)
    if len(runs) == 1 and not results.get("summary") and (directory / "predictions.parquet").exists():
        return {(runs[0]["method"], runs[0]["seed"]): directory}
    root = directory.resolve()
    folders = {}
    for run in runs:
        name = f"{run['method']}-seed{run['seed']}"
        for candidate in (run.get("path") or name, name):
            folder = (root / candidate).resolve()
            if folder.is_relative_to(root) and folder.is_dir():
                folders[run["method"], run["seed"]] = folder
                break
    return folders


def _first_json(
    directory: Path, folders: Mapping[tuple[str, int], Path], name: str, what: str, notes: list[str]
) -> dict[str, Any] | None:
    """The file of the root, or else of the first run that has it."""
    candidates = [directory, *folders.values()]
    path = next((folder / name for folder in candidates if (folder / name).is_file()), directory / name)
    content = _read_or_note(read_json, path, what, notes)
    return content if isinstance(content, dict) else None


def _weights(
    directory: Path, results: Mapping[str, Any] | None, notes: list[str]
) -> tuple[dict[str, float] | None, str | None]:
    """Source weights of `weighted`, else of the best method that has some, and the name of that method."""
    methods = method_order(results) if results else []
    for method in sorted(methods, key=lambda name: name != "weighted"):
        for run in finished_runs(results or {}, method):
            if run.get("weights"):
                return dict(run["weights"]), method
    path = directory / "weights.json"
    content = _read_or_note(read_json, path, "the source weights", notes) if path.is_file() else None
    if isinstance(content, dict):
        values = content.get("weights", content)
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        return numbers or None, None
    return None, None


def _curves(
    folders: Mapping[tuple[str, int], Path], results: Mapping[str, Any] | None, notes: list[str]
) -> list[dict[str, Any]]:
    """Loss terms of the lowest seed of every method, best method first."""
    curves = []
    for method in method_order(results) if results else []:
        seed = min((s for m, s in folders if m == method), default=None)
        path = folders[method, seed] / "metrics.jsonl" if seed is not None else None
        if path is None or not path.is_file():
            continue
        lines = _json_lines(path)
        names = dict.fromkeys(name for line in lines for name in line if name not in _NOT_TERMS)
        terms = {name: [_number(line.get(name)) for line in lines] for name in names}
        terms = {name: values for name, values in terms.items() if any(value is not None for value in values)}
        if not terms:
            terms = {"loss": [_number(line.get("loss")) for line in lines]}
        if lines and any(value is not None for values in terms.values() for value in values):
            title = f"{method}, seed {seed}"
            curves.append({"title": title, "steps": [line["step"] for line in lines], "terms": terms})
    if not curves and folders:
        notes.append("No run has a metrics.jsonl, so this page is without learning curves.")
    return curves


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; one that was cut off by an interruption is dropped."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int | float):
            lines.append(line)
    return lines


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _confusion(
    folders: Mapping[tuple[str, int], Path], results: Mapping[str, Any] | None, notes: list[str]
) -> dict[str, Any] | None:
    """Confusion counts of the best method, all its seeds together."""
    method = best_method(results) if results else None
    total, classes, seeds = None, None, 0
    for folder in (folder for (name, _), folder in folders.items() if name == method):
        predictions = _read_or_note(read_predictions, folder / "predictions.parquet", "the mistakes by class", notes)
        if predictions is None:
            continue
        known = predictions.labels >= 0
        if not known.any() or (classes is not None and predictions.classes != classes):
            continue
        try:
            counts = confusion_matrix(predictions.probs[known], predictions.labels[known])
        except DataError as error:
            notes.append(f"The mistakes by class: {error}")
            continue
        total, classes, seeds = counts if total is None else total + counts, predictions.classes, seeds + 1
    if total is None or classes is None:
        return None
    return {"method": method, "seeds": seeds, "classes": list(classes), "counts": total.tolist()}
