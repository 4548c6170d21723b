"""What is trained under the name of a method, and whether a comparison has trained it already."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from potstill.config import RunConfig, config_record, overridden
from potstill.pipeline.automatic import choose_method
from potstill.pipeline.methods import MethodChoice, parse_method
from potstill.pipeline.preparation import Material
from potstill.reporting import read_json, write_json
from potstill.types import Ranking, Target

RESULTS = "results.json"


@dataclass(frozen=True)
class Recipe:
    """A method as asked for, the one that it stands for, and that one's settings.

    The two differ where the method chooses; `reason` says why, and is None otherwise.
    """

    asked: MethodChoice
    choice: MethodChoice
    config: RunConfig
    reason: str | None = None

    @property
    def said(self) -> dict[str, Any]:
        """What a run's record says about the choice."""
        return {} if self.reason is None else {"chosen": self.choice.name, "reason": self.reason}


def settle_recipe(method: str, target: Target, material: Material, ranking: Ranking, config: RunConfig) -> Recipe:
    """What `method` is on this label draw, with its own settings. Raises what `choose_method` raises."""
    asked = choice = parse_method(method)
    reason = None
    if asked.method.chooses:
        automatic = choose_method(asked, target, material, ranking, config)
        choice, reason = parse_method(automatic.method), automatic.reason
    return Recipe(asked, choice, overridden(config, asked.name, asked.base, choice.name, choice.base), reason)


def same_student(recipe: Recipe, finished: Iterable[Path]) -> Path | None:
    """The directory, among those of finished runs on the same label draw, whose student the recipe would make again.

    Only a method that chooses makes the student of another one.
    """
    for directory in finished:
        record = read_json(directory / RESULTS)
        if recipe.choice.name != record.get("chosen", record["method"]):
            continue
        settings = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
        if settings == config_record(recipe.config, directory):
            return directory
    return None


def take_over(finished: Path, directory: Path, recipe: Recipe) -> dict[str, Any]:
    """Make `directory` that of the recipe's run from the finished one of the same student; the run's record."""
    if directory.exists():
        shutil.rmtree(directory)
    # A directory with results.json is complete, so that file comes last.
    shutil.copytree(finished, directory, ignore=shutil.ignore_patterns(RESULTS))
    record = {
        **{key: value for key, value in read_json(finished / RESULTS).items() if key not in ("chosen", "reason")},
        "method": recipe.asked.name,
        "path": directory.name,
        **recipe.said,
        "same_student_as": finished.name,
    }
    write_json(directory / RESULTS, record)
    return record
