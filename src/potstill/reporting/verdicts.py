"""What a ranking or a comparison says, in words. Both take the JSON shape, so that a report needs files alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.reporting._wording import average, count, finished_runs, interval, listing, points, score

# Compared with in words, when present. The ceiling sees labels that the others do not, so it is never the winner.
_BASELINES = ("transfer", "fixmatch")
_CEILING = "ceiling"


def ranking_verdict(ranking: Mapping[str, Any]) -> str:
    """Which source is most related to the target, how sure that is, and which sources failed.

    `ranking` is the JSON of `potstill rank`.

    >>> ranking_verdict({"metric": "parc", "scoring_images": 60, "resamples": 200, "decided": True, "sources": [
    ...     {"name": "letters", "score": 0.62, "rank_probability": 0.98, "error": None},
    ...     {"name": "birds", "score": 0.4, "rank_probability": 0.02, "error": None}]})
    'letters is the most related source (parc 0.620), before birds (0.400). It comes first in 98 % of the resamples.'
    """
    scored = [source for source in ranking["sources"] if source.get("score") is not None]
    failed = [source for source in ranking["sources"] if source.get("score") is None]
    sentences = []
    if scored:
        first = scored[0]
        before = f", before {scored[1]['name']} ({score(scored[1]['score'])})" if len(scored) > 1 else ""
        most = "the only source with a score" if len(scored) == 1 else "the most related source"
        sentences.append(f"{first['name']} is {most} ({ranking['metric']} {score(first['score'])}){before}.")
        sentences += _sentences_on_sureness(ranking, scored)
    else:
        sentences.append("No source has a score.")
    if failed:
        reasons = [f"{source['name']} ({source.get('error') or 'no reason recorded'})" for source in failed]
        sentences.append(f"Without a score: {listing(reasons)}.")
    return " ".join(sentences)


def _sentences_on_sureness(ranking: Mapping[str, Any], scored: list[Mapping[str, Any]]) -> list[str]:
    """Whether the first place is decided, and whether any source is related at all."""
    sentences = []
    first = scored[0].get("rank_probability")
    if len(scored) > 1 and first is not None:
        sentences.append(f"It comes first in {100 * first:.0f} % of the resamples.")
        tied = ranking.get("tied_with_first") or []
        if ranking.get("decided") is False:
            rivals = f": {listing(tied)} cannot be told apart from it" if tied else ""
            sentences.append(f"The first place is not decided{rivals}; more labels would tell.")
    elif len(scored) > 1 and ranking.get("resamples") == 0:
        sentences.append(
            "How sure this order is cannot be said, nothing is decidable: there are no resamples, which take a metric "
            "of images and four labels in most classes."
        )
    elif len(scored) > 1 and ranking.get("resamples"):
        sentences.append("Some score is not defined on halves of the labeled images, so nothing is said about ranks.")
    lowest = min((source["p_value"] for source in scored if source.get("p_value") is not None), default=None)
    if ranking.get("related") is False and lowest is not None:
        sentences.append(
            "No source is clearly related to the target: against "
            f"{ranking['permutations']} shufflings of the labels the smallest p-value is {lowest:.2f}."
        )
    return sentences


def comparison_verdict(results: Mapping[str, Any]) -> str:
    """Which method is best and whether it is ahead of the baselines, with 95 % intervals.

    `results` is the JSON of `potstill compare`, or of one run. Two methods are tied when the interval of their paired
    difference contains 0. `ceiling` is named apart, since it uses labels that the other methods do not have.
    """
    runs = finished_runs(results)
    failed = [run for run in results["runs"] if run not in runs]
    sentences = []
    if not runs:
        sentences.append("No run finished.")
    elif results.get("summary"):
        sentences += _sentences_on_methods(results["summary"])
    else:
        sentences += _sentences_on_run(runs[0])
    sentences += _sentences_on_references(results, runs)
    if results.get("summary") and len({run["seed"] for run in runs}) == 1:
        sentences.append("There is one seed only, so the intervals do not cover the choice of labels.")
    if failed:
        reasons = [
            f"{run['method']} with seed {run['seed']} ({run.get('error') or 'no reason recorded'})" for run in failed
        ]
        sentences.append(f"Failed: {listing(reasons)}.")
    return " ".join(sentences)


def _sentences_on_run(run: Mapping[str, Any]) -> list[str]:
    """One run without statistics; `cross_validation` stands in where there are few test images or none."""
    sentences = []
    if run.get("accuracy") is not None:
        sentences.append(f"{run['method']} reaches {points(run['accuracy'])} % accuracy on the test images.")
    folds = run.get("cross_validation")
    if folds:
        effort = f"{folds['folds']} folds, {folds['repeats']} times"
        sentences.append(
            f"Cross-validated over {folds['images']} labeled images ({effort}), {run['method']} reaches "
            f"{points(folds['accuracy'])} %."
        )
    return sentences or [f"{run['method']} was trained; there were no test images to judge it by."]


def _sentences_on_methods(summary: Mapping[str, Any]) -> list[str]:
    contenders = [method for method in _best_first(summary) if method != _CEILING]
    sentences = []
    if contenders:
        best = contenders[0]
        sentences.append(f"{best} has the highest accuracy: {points(summary[best]['mean'])} %.")
        against = [name for name in _BASELINES if name in contenders and name != best]
        # A baseline that wins is compared with the methods it beat.
        if best in _BASELINES:
            against = contenders[1:3]
        clauses = [
            _clause(best, other, summary[best]["delta_vs"][other])
            for other in against
            if other in summary[best]["delta_vs"]
        ]
        sentences += [f"{clause}." for clause in clauses]
    if _CEILING in summary:
        sentences.append(f"With all training labels the same student reaches {points(summary[_CEILING]['mean'])} %.")
    return sentences


def _clause(method: str, other: str, delta: Mapping[str, Any]) -> str:
    low, high = delta["ci95"]
    if low <= 0 <= high:
        gap = f"{points(delta['mean'], signed=True)} points, 95 % {interval(delta['ci95'], signed=True)}"
        return f"{method} and {other} are tied ({gap})"
    word = "ahead of" if low > 0 else "behind"
    ends = sorted((abs(low), abs(high)))
    return f"{method} is {word} {other} by {points(abs(delta['mean']))} points (95 % {interval(ends)})"


def _sentences_on_references(results: Mapping[str, Any], runs: list[Mapping[str, Any]]) -> list[str]:
    """Say so when a probe on a source beats every student: the user may not need a student at all."""
    rows = [row for row in results.get("references") or [] if row.get("accuracy") is not None]
    students = [run["accuracy"] for run in runs if run["method"] != _CEILING and run.get("accuracy") is not None]
    if not rows or not students:
        return []
    sources = dict.fromkeys(row["source"] for row in rows)
    means = {name: average([row["accuracy"] for row in rows if row["source"] == name]) or 0.0 for name in sources}
    source = max(means, key=lambda name: means[name])
    summary = results.get("summary")
    best = max(
        (figures["mean"] for name, figures in (summary or {}).items() if name != _CEILING), default=max(students)
    )
    if means[source] <= best:
        return []
    params = next((row.get("params") for row in rows if row["source"] == source), None)
    size = f", with {count(params)} parameters" if params else ""
    return [f"A linear classifier on the source {source} reaches more: {points(means[source])} %{size}."]


def _best_first(summary: Mapping[str, Any]) -> list[str]:
    return sorted(summary, key=lambda method: (-summary[method]["mean"], method))
