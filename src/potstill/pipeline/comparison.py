"""Several methods side by side: same target, student, initial weights, label draws and budget."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from potstill.config import RunConfig
from potstill.data import redraw_labels, split_digest, write_splits
from potstill.errors import DivergedError, UsageError
from potstill.evaluation import RunPredictions, summarise_runs
from potstill.pipeline.methods import MethodChoice, parse_method
from potstill.pipeline.preparation import (
    Material,
    gather_material,
    open_configured,
    without_sources,
)
from potstill.pipeline.ranking import rank_material, ranking_record
from potstill.pipeline.recipes import same_student, settle_recipe, take_over
from potstill.pipeline.run_files import finished_on
from potstill.pipeline.settling import settle_config
from potstill.pipeline.source_use import require_usable_sources
from potstill.pipeline.student_runs import announce_students, train_recipe
from potstill.probes import fit_probe, probe_logits
from potstill.reporting import (
    claim_directory,
    environment_record,
    logged_to,
    read_json,
    read_predictions,
    write_json,
    write_report,
)
from potstill.types import Progress, Ranking, Target, no_progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelDraw:
    """One seed: which labels are visible, and the ranking that follows from them."""

    target: Target
    ranking: Ranking


def compare(
    data: Path,
    output: Path,
    *,
    config: RunConfig,
    methods: Sequence[str],
    seeds: int = 3,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train every method on every label draw and compare them by paired statistics.

    A finished (method, seed) of an earlier, interrupted call is not run again, nor is a student trained twice because
    `auto` stands for another of the methods: both rows have it, the later one with `same_student_as`.

    Args:
        data: the target.
        output: its root directory: results.json, report.html, config.yaml, splits-seed<k>.csv and one run
            directory for each method and seed.
        config: settings; what they leave open is decided here and written to config.yaml.
        methods: names of methods, or one with an ending (see `methods.MethodChoice`).
        seeds: seeds 0 .. seeds - 1.
        overwrite: start again where a comparison is.
        resume: go on where a comparison is.
        progress: told about every long task, and about the whole as "all runs".

    Returns:
        The content of results.json.
    """
    choices = [parse_method(name) for name in methods]
    if len(set(methods)) < len(methods):
        raise UsageError(f"A method is named twice: {', '.join(methods)}. Name each once.")
    claim_directory(output, overwrite=overwrite, resume=resume)
    with logged_to(output):
        return _compare(data, output, config, choices, seeds, progress)


def _compare(
    data: Path, output: Path, config: RunConfig, choices: Sequence[MethodChoice], seeds: int, progress: Progress
) -> dict[str, Any]:
    comparison = prepare_comparison(data, output, config=config, choices=choices, seeds=seeds, progress=progress)
    announce_students(len(comparison.left()), comparison.config)
    whole = WholeProgress(progress, len(choices) * seeds)
    records: list[dict[str, Any]] = []
    for draw in comparison.draws:
        for choice in choices:
            records.append(comparison.run(choice.name, draw, whole))
            if any(record["status"] == "done" for record in records):
                write_json(output / "results.json", comparison.results(records))
    if not any(record["status"] == "done" for record in records):
        raise DivergedError(f"Every run failed; the first: {records[0]['error']}")
    write_report(output)
    results: dict[str, Any] = read_json(output / "results.json")
    return results


@dataclass(frozen=True)
class Comparison:
    """A comparison whose runs are to be trained, by one process or by several that share its directory.

    Attributes:
        output: its root directory.
        config: resolved.
        choices: its methods.
        material: source outputs over the target's images.
        draws: one for each seed, in order.
    """

    output: Path
    config: RunConfig
    choices: tuple[MethodChoice, ...]
    material: Material
    draws: tuple[LabelDraw, ...]

    def left(self) -> list[tuple[str, LabelDraw]]:
        """Method and label draw of every run that is not finished."""
        return [
            (choice.name, draw)
            for draw in self.draws
            for choice in self.choices
            if not finished_on(self._directory(choice.name, draw), draw.target)
        ]

    def run(self, name: str, draw: LabelDraw, progress: WholeProgress) -> dict[str, Any]:
        """Train a student, unless its run is finished: one element of `runs` in results.json."""
        seed = draw.target.split.seed
        directory = self._directory(name, draw)
        if finished_on(directory, draw.target):
            progress.skip()
            finished: dict[str, Any] = read_json(directory / "results.json")
            return finished
        recipe = settle_recipe(name, draw.target, self.material, draw.ranking, replace(self.config, seed=seed))
        if (twin := same_student(recipe, self._finished_directories([draw]))) is not None:
            progress.skip()
            log.info("%s, seed %d is the student of %s.", name, seed, twin.name)
            return take_over(twin, directory, recipe)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            run = train_recipe(recipe, draw.target, self.material, draw.ranking, directory=directory, progress=progress)
        except DivergedError as error:
            log.warning("%s, seed %d failed: %s", name, seed, error)
            return {"method": name, "seed": seed, "status": "failed", "path": directory.name, "error": str(error)}
        finally:
            progress.finish()
        return run.record

    def results(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The content of results.json for the runs that there are."""
        target = self.material.target
        done = [record for record in records if record["status"] == "done"]
        return {
            "schema": 1,
            "target": target.name,
            "classes": list(target.classes),
            "split_sha256": split_digest(target),
            "runs": list(records),
            "references": self._references,
            "summary": summarise_runs(
                [_predictions(self.output, record) for record in done], groups=target.groups or None
            ),
        }

    def finished(self) -> list[dict[str, Any]]:
        """What `run` gave for every run that is finished."""
        return [read_json(directory / "results.json") for directory in self._finished_directories(self.draws)]

    def _finished_directories(self, draws: Sequence[LabelDraw]) -> list[Path]:
        runs = [(self._directory(choice.name, draw), draw) for draw in draws for choice in self.choices]
        return [directory for directory, draw in runs if finished_on(directory, draw.target)]

    @cached_property
    def _references(self) -> list[dict[str, Any]]:
        return [_source_probe(self.material, draw) for draw in self.draws if draw.ranking.scores()]

    def _directory(self, name: str, draw: LabelDraw) -> Path:
        return self.output / f"{name}-seed{draw.target.split.seed}"


def prepare_comparison(
    data: Path,
    output: Path,
    *,
    config: RunConfig,
    choices: Sequence[MethodChoice],
    seeds: int,
    progress: Progress = no_progress,
) -> Comparison:
    """Open the target, ask the sources, draw the labels of every seed; what is decided is written to `output`.

    Raises:
        UsageError: a method cannot use its sources as the configuration asks.
    """
    target = open_configured(data, config, progress)
    command = {"command": "compare", "methods": [choice.name for choice in choices], "seeds": seeds}
    config = settle_config(config, target, data=data, output=output, command=command)
    write_json(output / "environment.json", environment_record())
    uses_sources = any(choice.method.scheme for choice in choices)
    material = gather_material(target, config, progress) if uses_sources else without_sources(target)
    ranked = (output / "ranking.json").exists()
    draws = [_draw_labels(material, config, seed, scores_only=ranked or seed > 0) for seed in range(seeds)]
    for draw in draws:
        for choice in choices:
            require_usable_sources(choice, draw.ranking, material, config)
        write_splits(draw.target, output / f"splits-seed{draw.target.split.seed}.csv")
    if uses_sources and not ranked:
        write_json(output / "ranking.json", ranking_record(draws[0].ranking, material))
    return Comparison(output, config, tuple(choices), material, tuple(draws))


def _draw_labels(material: Material, config: RunConfig, seed: int, *, scores_only: bool) -> LabelDraw:
    target = redraw_labels(
        material.target, seed, label_fraction=config.label_fraction, labels_per_class=config.labels_per_class
    )
    # Only the first ranking is written; of the others the scores make the weights.
    return LabelDraw(target, rank_material(material, target, replace(config, seed=seed), scores_only=scores_only))


class WholeProgress:
    """Adds the progress of single runs to that of all runs; a run counts 1,000 units whatever its length."""

    unit = 1000

    def __init__(self, progress: Progress, runs: int) -> None:
        self._progress = progress
        self._total = runs * self.unit
        self._finished = 0

    def __call__(self, task: str, done: int, total: int, /) -> None:
        self._progress(task, done, total)
        if "seed" in task:
            self._progress("all runs", self._finished + self.unit * done // total, self._total)

    def skip(self) -> None:
        """A run that was finished earlier."""
        self._total -= self.unit

    def finish(self) -> None:
        """A run has ended."""
        self._finished += self.unit
        self._progress("all runs", self._finished, self._total)


def _source_probe(material: Material, draw: LabelDraw) -> dict[str, Any]:
    """Reference row: a probe on the features of the best-ranked source. It costs what the source costs to run."""
    started = time.monotonic()
    target = draw.target
    name = next((name for name in draw.ranking.scores() if material.outputs[name].features is not None), None)
    record: dict[str, Any] = {"name": "source-probe", "source": name, "seed": target.split.seed}
    if name is None:
        return {**record, "accuracy": None, "params": None, "macs": None, "seconds": 0.0}
    outputs = material.outputs[name]
    features = outputs.features
    if features is None:
        raise ValueError("a source was chosen for its features")
    labeled, test = target.split.labeled, target.split.test
    probe = fit_probe(
        np.asarray(features[outputs.rows(labeled)], dtype=np.float64), target.labels_of(labeled), len(target.classes)
    )
    logits = probe_logits(probe, np.asarray(features[outputs.rows(test)], dtype=np.float64))
    accuracy = float((logits.argmax(axis=1) == target.labels_of(test)).mean())
    seconds = round(time.monotonic() - started, 3)
    return {**record, "accuracy": accuracy, "params": outputs.cost.params, "macs": None, "seconds": seconds}


def _predictions(output: Path, record: Mapping[str, Any]) -> RunPredictions:
    predictions = read_predictions(output / record["path"] / "predictions.parquet")
    correct = predictions.probs.argmax(axis=1) == predictions.labels
    return RunPredictions(record["method"], record["seed"], predictions.image_ids, correct)
