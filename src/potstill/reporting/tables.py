"""Tables for the terminal. They take the JSON shape and fit 80 columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from potstill.reporting._wording import MISSING, average, count, duration, finished_runs, interval, points, score


def ranking_table(ranking: Mapping[str, Any]) -> Table:
    """The sources of a `rank` JSON, best first: score and interval, how often first, size, time, license.

    A source that failed comes last, and its error stands below the table. The other metrics are in `metrics_table`.
    """
    resampled = any(row.get("rank_probability") is not None for row in ranking["sources"])
    table = _empty(f"{len(ranking['sources'])} sources, scored on {ranking['scoring_images']} labeled images")
    table.add_column("", justify="right")
    table.add_column("source", overflow="fold")
    titles = (ranking["metric"], "95 %", *(("first",) if resampled else ()), "params", "time")
    for title in titles:
        table.add_column(title, justify="right")
    table.add_column("license", no_wrap=True, overflow="ellipsis", max_width=14)
    for position, row in enumerate(ranking["sources"], start=1):
        if row.get("score") is None:
            table.add_row(MISSING, Text(row["name"]), Text("failed", style="red"), *[MISSING] * len(titles))
            continue
        ends, first = row.get("ci95"), row.get("rank_probability")
        table.add_row(
            str(position),
            Text(row["name"], style="bold" if position == 1 else ""),
            score(row["score"]),
            MISSING if ends is None else f"{score(ends[0])}..{score(ends[1])}",
            *([MISSING if first is None else f"{100 * first:.0f} %"] if resampled else []),
            count(row.get("params")),
            duration(_total(row.get("seconds"), row.get("extract_seconds"))),
            Text(row.get("license") or MISSING),
        )
    failed = [row for row in ranking["sources"] if row.get("score") is None]
    if failed:
        table.caption = Text("\n".join(f"{row['name']}: {row.get('error') or 'no reason recorded'}" for row in failed))
    return table


def metrics_table(ranking: Mapping[str, Any]) -> Table | None:
    """Every metric of a `rank` JSON side by side with what is known without images; None with nothing to compare.

    The last row is the agreement of each column with the metric that ranks: Kendall's tau, 1 for the same order.
    """
    metrics = list(dict.fromkeys(name for row in ranking["sources"] for name in row.get("scores") or {}))
    baselines = list(dict.fromkeys(name for row in ranking["sources"] for name in row.get("baselines") or {}))
    baselines = [name for name in baselines if name not in metrics]
    if len(metrics) + len(baselines) < 2:
        return None
    table = _empty("Metrics side by side; scores of different metrics do not compare")
    table.add_column("source", overflow="fold")
    for name in (*metrics, *baselines):
        table.add_column(name, justify="right")
    for row in ranking["sources"]:
        scores, known = row.get("scores") or {}, row.get("baselines") or {}
        table.add_row(
            Text(row["name"]),
            *[score((scores.get(name) or {}).get("score")) for name in metrics],
            *[_known(known.get(name)) for name in baselines],
        )
    agreement = (ranking.get("agreement") or {}).get(ranking["metric"])
    if agreement:
        table.add_section()
        cells = [
            MISSING if agreement.get(name) is None else f"{agreement[name]:+.2f}" for name in (*metrics, *baselines)
        ]
        table.add_row(Text(f"agreement with {ranking['metric']}", style="italic"), *cells)
    return table


def _known(value: float | None) -> str:
    """A count, or a share: what a baseline says."""
    return MISSING if value is None else f"{value:.2f}" if 0 < value < 1 else count(int(value))


def _in_lines(method: str) -> str:
    """What a method's name says about its sources, on lines of its own."""
    return re.sub(r"-(without|only|shuffled)(-|$)", r"\n\1 ", method).rstrip()


def comparison_table(results: Mapping[str, Any], *, against: Sequence[str] = ("transfer", "fixmatch")) -> Table:
    """The methods of a `compare` JSON, best first, and below them the references.

    Accuracy and its 95 % interval, its standard deviation over seeds, the paired difference to each method of `against`
    that was run (all in points), and what the method cost: images trained, time, parameters.
    """
    summary: Mapping[str, Any] = results.get("summary") or {}
    baselines = [name for name in against if name in summary]
    seeds = {run["seed"] for run in finished_runs(results)}
    table = _empty(f"Accuracy in points over {len(seeds)} seed{'' if len(seeds) == 1 else 's'}; below: 95 % interval")
    table.add_column("method", overflow="fold", min_width=12)
    for title in ("accuracy", "sd", *[f"vs {name}" for name in baselines], "images", "time", "params"):
        table.add_column(title, justify="right", no_wrap=True)
    best = best_method(results)
    for method in method_order(results):
        runs = finished_runs(results, method)
        figures = summary.get(method) or {"mean": average([run.get("accuracy") for run in runs]), "delta_vs": {}}
        table.add_row(
            Text(_in_lines(method), style="bold" if method == best else ""),
            _with_interval(points(figures["mean"]), figures.get("ci95")),
            points(figures.get("sd")),
            *[_delta(figures["delta_vs"].get(name)) for name in baselines],
            count(average([run.get("images_trained") for run in runs])),
            duration(average([run.get("train_seconds") for run in runs])),
            count(average([(run.get("student") or {}).get("params") for run in runs])),
        )
    for label, rows in reference_rows(results).items():
        cells = [points(average([row.get("accuracy") for row in rows])), MISSING, *[MISSING] * len(baselines), MISSING]
        seconds, params = (average([row.get(name) for row in rows]) for name in ("seconds", "params"))
        table.add_row(Text(label, style="italic"), *cells, duration(seconds), count(params))
    return table


def method_order(results: Mapping[str, Any]) -> list[str]:
    """The methods with a finished run, highest mean accuracy first."""
    runs = finished_runs(results)
    methods = {
        run["method"]: average([r.get("accuracy") for r in finished_runs(results, run["method"])]) for run in runs
    }
    return sorted(methods, key=lambda method: (-(methods[method] or 0.0), method))


def best_method(results: Mapping[str, Any]) -> str | None:
    """The most accurate method. `ceiling`, which sees labels that the others do not, only when it is alone."""
    methods = method_order(results)
    return next((method for method in methods if method != "ceiling"), methods[0] if methods else None)


def reference_rows(results: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of `references` that have an accuracy by what they are called, for example 'source-probe (letters)'."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in results.get("references") or []:
        if row.get("accuracy") is None:
            continue
        rows.setdefault(f"{row['name']} ({row['source']})", []).append(row)
    return rows


def _empty(title: str) -> Table:
    return Table(
        title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )


def _delta(delta: Mapping[str, Any] | None) -> str:
    return MISSING if delta is None else _with_interval(points(delta["mean"], signed=True), delta["ci95"])


def _with_interval(value: str, ends: Sequence[float] | None) -> str:
    return value if ends is None else f"{value}\n{interval(ends).replace(' to ', '..')}"


def _total(*seconds: float | None) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if known else None


def cache_table(entries: Sequence[Mapping[str, Any]], *, now: float) -> Table:
    """The entries of a cache: source, view, rows, size, days since they were used (now: seconds since 1970)."""
    total = sum(entry["size"] for entry in entries)
    table = _empty(f"{len(entries)} entries, {total / 2**20:.1f} MiB")
    table.add_column("source", overflow="fold")
    for title in ("view", "rows", "features", "classes", "MiB", "days"):
        table.add_column(title, justify="right")
    table.add_column("")
    for entry in entries:
        table.add_row(
            Text(entry["source"]),
            str(entry["view"]),
            str(entry["rows"]),
            str(entry["feature_dim"]),
            str(entry["num_classes"]),
            f"{entry['size'] / 2**20:.1f}",
            f"{max(0.0, now - entry['used']) / 86400:.0f}",
            "stale" if entry["stale"] else "",
        )
    return table


def filled_table(record: Mapping[str, Any]) -> Table:
    """What `cache fill` did: image passes that were made, and images that still lack an answer."""
    part = f", part {record['part']}" if record["part"] else ""
    table = _empty(f"{record['images']} images{part}")
    table.add_column("source", overflow="fold")
    table.add_column("passes", justify="right")
    table.add_column("missing", justify="right")
    for row in record["sources"]:
        missing = MISSING if row["missing"] is None else str(row["missing"])
        table.add_row(Text(row["name"]), str(row["passes"]), Text("failed", style="red") if row["error"] else missing)
    return table


def forecast_table(record: Mapping[str, Any]) -> Table:
    """What `cache fill` would take: passes, time and space of every source, and all together."""
    table = _empty(
        f"{record['images']} images: about {duration(record['seconds'])} and {record['bytes'] / 2**20:.1f} MiB "
        f"(decoding {duration(record['decode_seconds'])}, beside the sources)"
    )
    table.add_column("source", overflow="fold")
    for title in ("passes", "time", "MiB"):
        table.add_column(title, justify="right")
    for row in record["sources"]:
        if row["error"]:
            table.add_row(Text(row["name"]), MISSING, Text("failed", style="red"), MISSING)
        else:
            size = f"{row['bytes'] / 2**20:.1f}"
            table.add_row(Text(row["name"]), str(row["passes"]), duration(row["seconds"]), size)
    return table


def zoos_table(record: Mapping[str, Any]) -> Table:
    """The built-in zoos and how many sources they have."""
    table = _empty("Built-in zoos (`potstill zoo list NAME` for one)")
    table.add_column("zoo")
    table.add_column("sources", justify="right")
    table.add_column("permissive licence", justify="right")
    for row in record["zoos"]:
        table.add_row(row["name"], str(row["sources"]), str(row["permissive"]))
    return table


def sources_table(record: Mapping[str, Any]) -> Table:
    """The sources of a zoo: model, licence, parameters, what they were trained on."""
    table = _empty(f"{record['zoo']}: {len(record['sources'])} sources")
    table.add_column("source", overflow="fold")
    table.add_column("model", overflow="fold")
    table.add_column("params", justify="right")
    table.add_column("license", overflow="fold")
    table.add_column("trained on", overflow="fold")
    for row in record["sources"]:
        table.add_row(
            Text(row["name"]),
            Text(row["model"]),
            count(row["params"]),
            Text(row["license"] or MISSING),
            Text(row["trained_on"] or MISSING),
        )
    return table


def checked_sources_table(record: Mapping[str, Any]) -> Table:
    """What the sources of a zoo answered with; "failed" for those that did not."""
    table = _empty(f"{record['zoo']}: {len(record['sources'])} sources")
    table.add_column("source", overflow="fold")
    table.add_column("model", overflow="fold")
    for title in ("size", "features", "classes", "params"):
        table.add_column(title, justify="right")
    for row in record["sources"]:
        sizes = [str(row[key]) if row[key] else MISSING for key in ("image_size", "feature_dim", "num_classes")]
        cells = [Text("failed", style="red"), *[MISSING] * 3] if row["error"] else [*sizes, count(row["params"])]
        table.add_row(Text(row["name"]), Text(row["model"]), *cells)
    return table
