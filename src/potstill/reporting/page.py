"""The report: one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from potstill.reporting import _wording as wording
from potstill.reporting._gathering import gather_record
from potstill.reporting._plots import accuracy_plot, curves_plot
from potstill.reporting.record import write_text
from potstill.reporting.tables import best_method, method_order, reference_rows
from potstill.reporting.verdicts import comparison_verdict, ranking_verdict

_MATRIX_CLASSES = 25
_WORST_CLASSES = 12
_MISTAKES = 6
_MEANINGS = {
    "transfer": "trained on the labeled images only",
    "probe": "the student's starting features, frozen, with a linear classifier on top",
    "pseudo-label": "labeled images, and its own guesses on unlabeled ones, more and more (no sources)",
    "softmatch": "labeled images, and its own guesses on unlabeled ones, weighted by confidence (no sources)",
    "fixmatch": "labeled images, and its own confident guesses on unlabeled ones (no sources)",
    "nearest": "taught by the one most related source",
    "equal": "taught by all sources alike",
    "weighted": "taught by all sources, the related ones counting more",
    "stacked": "taught the target's classes by what all sources say together",
    "self-distilled": "taught by an earlier student that was trained on the labeled images only (no sources)",
    "start-nearest": "trained on the labeled images only, from the weights of the most related source",
    "source-finetune": "the most related source itself, trained on the labeled images; it costs what the source costs",
    "auto": "the method that Potstill chose from the training labels",
    "ceiling": "trained with all training labels, also those that the others do not see",
}


def render_report(record: Mapping[str, Any]) -> str:
    """The page of a record, as HTML text.

    `record` has the keys title, results (JSON of `compare`), ranking (JSON of `rank`), weights (source -> weight),
    weights_of (method), curves (title, steps, terms), confusion (method, seeds, classes, counts), config (text),
    environment and notes; every one but the title may be None or empty, and its part of the page is then left out.
    All text is escaped: class and file names may hold anything.
    """
    results, ranking = record.get("results"), record.get("ranking")
    methods = _method_rows(results) if results else []
    judged = [row for row in methods if row["accuracies"]]
    return _template().render(
        title=record["title"],
        comparison=comparison_verdict(results) if results else None,
        findings=[text for run in (results or {}).get("runs", []) for text in run.get("findings") or []],
        relatedness=ranking_verdict(ranking) if ranking else None,
        split_sha256=(results or {}).get("split_sha256"),
        methods=methods,
        judged=bool(judged),
        several=any(row["seeds"] > 1 for row in methods),
        baselines=[name for name in ("transfer", "fixmatch") if results and name in (results.get("summary") or {})],
        references=_reference_summary(results) if results else [],
        meanings={name: _MEANINGS[name] for name in (row["name"] for row in methods) if name in _MEANINGS},
        accuracy_plot=accuracy_plot(judged) if len(judged) > 1 else None,
        ranking=ranking,
        sources=_source_rows(ranking, record.get("weights") or {}),
        weights_of=record.get("weights_of"),
        curves_plot=curves_plot(record["curves"]) if record.get("curves") else None,
        confusion=_confusion_tables(record["confusion"]) if record.get("confusion") else None,
        config=record.get("config"),
        environment=_flat(record.get("environment") or {}),
        notes=record.get("notes") or [],
    )


def write_report(directory: Path) -> Path:
    """Write `report.html` into the root of a comparison or a run directory, from the files there; return its path.

    Whatever is missing or damaged is left out of the page and named at its end.

    Raises:
        DataError: the directory holds neither results nor a ranking.
        OutputError: the page cannot be written.
    """
    path = directory / "report.html"
    write_text(path, render_report(gather_record(directory)))
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("potstill.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        points=wording.points,
        interval=wording.interval,
        short=wording.count,
        duration=wording.duration,
        score=wording.score,
    )
    return environment.get_template("report.html.j2")


def _method_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    best = best_method(results)
    for method in method_order(results):
        runs = wording.finished_runs(results, method)
        summary = (results.get("summary") or {}).get(method) or {}
        figures = ("accuracy", "macro_f1", "balanced_accuracy", "ece", "nll")
        costs = ("images_seen", "images_trained", "labels_used", "train_seconds")
        means = {name: wording.average([run.get(name) for run in runs]) for name in figures + costs}
        student = runs[0].get("student") or {}
        rows.append(
            means
            | {
                "name": method,
                "is_best": method == best,
                "seeds": len(runs),
                "accuracies": [run["accuracy"] for run in runs if run.get("accuracy") is not None],
                "mean": summary.get("mean", means["accuracy"]),
                "sd": summary.get("sd"),
                "ci95": summary.get("ci95"),
                "delta_vs": summary.get("delta_vs") or {},
                "student": student.get("name"),
                "params": student.get("params"),
                "macs": student.get("macs"),
            }
        )
    return rows


def _reference_summary(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = ("accuracy", "params", "macs", "seconds")
    return [
        {"name": label, **{name: wording.average([row.get(name) for row in rows]) for name in names}}
        for label, rows in reference_rows(results).items()
    ]


def _source_rows(ranking: Mapping[str, Any] | None, weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """Ranked sources with their weight, and bar lengths in 0..1; weights alone when there is no ranking."""
    names = {"score", "ci95", "rank_probability", "params", "license", "error", "seconds", "extract_seconds"}
    listed: list[Mapping[str, Any]] = ranking["sources"] if ranking else [{"name": name} for name in weights]
    scores = [row["score"] for row in listed if row.get("score") is not None]
    # Scores of some metrics are negative: the bars then start at the lowest one.
    low = min([0.0, *scores])
    span = (max(scores, default=0.0) - low) or 1.0
    largest = max(weights.values(), default=0.0) or 1.0
    rows = []
    for row in listed:
        value, weight = row.get("score"), weights.get(row["name"])
        rows.append(
            {name: row.get(name) for name in names}
            | {
                "name": row["name"],
                "weight": weight,
                "score_bar": 0.0 if value is None else (value - low) / span,
                "weight_bar": (weight or 0.0) / largest,
            }
        )
    return rows


def _confusion_tables(confusion: Mapping[str, Any]) -> dict[str, Any]:
    """Shares of each class's images, the most frequent mistakes, and the classes that are found least."""
    classes, counts = confusion["classes"], confusion["counts"]
    rows = []
    for index, (name, row) in enumerate(zip(classes, counts, strict=True)):
        images = sum(row)
        shares = [value / images if images else 0.0 for value in row]
        recall = shares[index] if images else None
        rows.append({"name": name, "images": images, "counts": row, "shares": shares, "recall": recall})
    mistakes = [
        {"truth": row["name"], "taken_for": classes[column], "count": value, "images": row["images"]}
        for index, row in enumerate(rows)
        for column, value in enumerate(row["counts"])
        if column != index and value
    ]
    mistakes.sort(key=lambda mistake: -mistake["count"])
    found_least = sorted((row for row in rows if row["recall"] is not None), key=lambda row: row["recall"])
    return {
        "method": confusion["method"],
        "seeds": confusion["seeds"],
        "classes": classes,
        "rows": rows if len(classes) <= _MATRIX_CLASSES else None,
        "found_least": found_least[:_WORST_CLASSES],
        "mistakes": mistakes[:_MISTAKES],
    }


def _flat(environment: Mapping[str, Any]) -> dict[str, str]:
    """One level of names; what is absent is left out."""
    flat: dict[str, str] = {}
    for name, value in environment.items():
        items = value.items() if isinstance(value, Mapping) else [(name, value)]
        flat.update({str(key): str(item) for key, item in items if item is not None})
    return flat
