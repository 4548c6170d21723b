"""A student that a comparison has trained under one name is not trained again under another."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path
from typing import Any

import pytest

from potstill.config import RunConfig, build_config
from potstill.pipeline import comparison, recipes
from potstill.pipeline.automatic import AutomaticChoice
from potstill.pipeline.comparison import compare
from potstill.pipeline.student_runs import train_recipe


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names under which students were trained; `auto` stands for `transfer`."""
    names: list[str] = []

    def noted(recipe: recipes.Recipe, *arguments: Any, **settings: Any) -> Any:
        names.append(recipe.asked.name)
        return train_recipe(recipe, *arguments, **settings)

    monkeypatch.setattr(comparison, "train_recipe", noted)
    monkeypatch.setattr(recipes, "choose_method", lambda *_: AutomaticChoice("transfer", "a coin fell so"))
    return names


def draw(config: RunConfig, **settings: Any) -> RunConfig:
    return build_config({**vars(config), "labels_per_class": 4, **settings})


@pytest.mark.parametrize("methods", [("transfer", "auto"), ("auto", "transfer")])
def test_the_student_of_another_method_is_taken_over_with_every_file(
    methods: tuple[str, str], digits: Path, config: RunConfig, tmp_path: Path, trained: list[str]
) -> None:
    found = compare(digits, tmp_path / "out", config=draw(config), methods=methods, seeds=1)
    first, second = found["runs"]
    assert trained == [methods[0]]
    assert second["same_student_as"] == first["path"] == f"{methods[0]}-seed0"
    assert (second["method"], second["path"]) == (methods[1], f"{methods[1]}-seed0")
    own = {"method", "path", "chosen", "reason", "same_student_as"}
    assert {key: first[key] for key in first if key not in own} == {
        key: second[key] for key in second if key not in own
    }
    automatic = {each["method"]: each for each in found["runs"]}
    assert (automatic["auto"]["chosen"], automatic["auto"]["reason"]) == ("transfer", "a coin fell so")
    assert "chosen" not in automatic["transfer"]
    one, other = (tmp_path / "out" / each["path"] for each in found["runs"])
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file() and path.name != "results.json")
    assert files == sorted(
        path.relative_to(other) for path in other.rglob("*") if path.is_file() and path.name != "results.json"
    )
    assert all(filecmp.cmp(one / file, other / file, shallow=False) for file in files)
    assert json.loads((other / "results.json").read_text()) == second
    assert found["summary"]["auto"]["mean"] == found["summary"]["transfer"]["mean"]


def test_other_settings_are_another_student(
    digits: Path, config: RunConfig, tmp_path: Path, trained: list[str]
) -> None:
    changed = draw(config, overrides={"auto": {"lr": 0.001}})
    found = compare(digits, tmp_path / "out", config=changed, methods=("transfer", "auto"), seeds=1)
    assert trained == ["transfer", "auto"]
    assert not any("same_student_as" in run for run in found["runs"])


def test_a_student_of_another_draw_is_not_taken(
    digits: Path, config: RunConfig, tmp_path: Path, trained: list[str]
) -> None:
    found = compare(digits, tmp_path / "out", config=draw(config), methods=("transfer", "auto"), seeds=2)
    assert trained == ["transfer", "transfer"]
    assert [run.get("same_student_as") for run in found["runs"]] == [None, "transfer-seed0", None, "transfer-seed1"]
