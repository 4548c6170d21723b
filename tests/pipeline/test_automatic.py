"""What `auto` stands for: the sources where they know more than the student does, else the labels alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from potstill.config import RunConfig
from potstill.data import redraw_labels
from potstill.errors import UnknownNameError, UsageError
from potstill.pipeline import automatic
from potstill.pipeline.automatic import AutomaticChoice, choose_method
from potstill.pipeline.methods import parse_method
from potstill.pipeline.preparation import Material, gather_material, open_configured
from potstill.pipeline.source_use import require_usable_sources
from potstill.pipeline.student_runs import train_method
from potstill.types import RankedSource, Ranking, Target


@pytest.fixture
def material(digits: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> Material:
    """Sources of which one knows the classes of all images and one knows nothing; the student half knows them."""
    gathered = gather_material(open_configured(digits, config), config)
    target, rng = gathered.target, np.random.default_rng(0)
    known = {**target.labels, **target.hidden_labels}
    outputs = {}
    for name, each in gathered.outputs.items():
        telling = np.eye(len(target.classes))[[known[image_id] for image_id in each.image_ids]]
        features = {"source": 3 * telling, "headless": 0 * telling}[name] + rng.normal(0, 0.5, telling.shape)
        outputs[name] = replace(each, features=features.astype(np.float32))

    def student_features(target: Target, ids: Sequence[str], config: RunConfig) -> np.ndarray:
        telling = np.eye(len(target.classes))[[known[image_id] for image_id in ids]]
        return telling + np.random.default_rng(1).normal(0, 0.5, telling.shape)

    monkeypatch.setattr(automatic, "student_features", student_features)
    return replace(gathered, outputs=outputs)


def drawn(material: Material, per_class: int = 6) -> Target:
    return redraw_labels(material.target, 0, labels_per_class=per_class)


def ranking_of(material: Material) -> Ranking:
    return Ranking("parc", 10, tuple(RankedSource(each, 0.5, {}, 0.0) for each in material.outputs))


def chosen(name: str, material: Material, config: RunConfig, target: Target | None = None) -> AutomaticChoice:
    ranking = ranking_of(material)
    return choose_method(parse_method(name), target or drawn(material), material, ranking, config)


def test_sources_that_know_the_classes_are_stacked(material: Material, config: RunConfig) -> None:
    found = chosen("auto-only-source", material, config)
    assert found.method == "stacked-only-source", found.reason
    assert "know your classes better" in found.reason


@pytest.mark.parametrize("name", ["auto-only-headless", "auto-shuffled"])
def test_sources_that_know_nothing_are_left_alone(name: str, material: Material, config: RunConfig) -> None:
    found = chosen(name, material, config)
    assert found.method == "transfer"
    assert "no better than the student" in found.reason


def test_where_nothing_can_be_judged_the_reason_says_so(material: Material, config: RunConfig) -> None:
    assert chosen("auto", material, config, drawn(material, 1)).reason.startswith("the labels are too few")
    bare = {name: replace(outputs, features=None) for name, outputs in material.outputs.items()}
    assert chosen("auto-only-source", replace(material, outputs=bare), config).method == "weighted-only-source"
    nothing = Ranking("parc", 10, ())
    assert choose_method(parse_method("auto"), drawn(material), material, nothing, config).method == "transfer"
    whole = drawn(material)
    split = replace(whole.split, labeled=tuple(sorted(whole.split.pool)), unlabeled=())
    labels = {**whole.labels, **whole.hidden_labels}
    all_labeled = replace(whole, split=split, labels=labels, hidden_labels={})
    assert chosen("auto-only-source", material, config, all_labeled).method == "weighted-only-source"


def test_a_misspelt_source_and_unusable_settings_are_errors(material: Material, config: RunConfig) -> None:
    ranking = ranking_of(material)
    for name in ("auto-only-sorce", "auto-without-sorce"):
        with pytest.raises(UnknownNameError, match="Did you mean 'source'"):
            require_usable_sources(parse_method(name), ranking, material, config)
    cold = replace(config, temperature=0.0, standardise_logits=True)
    bare = {name: replace(outputs, features=None) for name, outputs in material.outputs.items()}
    without_features = replace(material, outputs={"source": bare["source"]})
    with pytest.raises(UsageError, match="weighted-only-source cannot use source source"):
        chosen("auto-only-source", without_features, cold)


def test_settings_of_auto_hold_for_what_it_stands_for(material: Material, config: RunConfig, tmp_path: Path) -> None:
    overrides = {"auto": {"steps": 4}, "auto-only-headless+long": {"steps": 6}, "transfer": {"steps": 5}}
    config = replace(config, overrides=overrides)
    passes = {}
    for name in ("auto", "auto-only-headless+long"):
        directory = tmp_path / name
        run = train_method(name, drawn(material), material, ranking_of(material), config, directory=directory)
        passes[name, run.record["chosen"]] = run.record["images_trained"]
    assert passes == {("auto", "stacked"): 4 * 24, ("auto-only-headless+long", "transfer"): 6 * 24}


def test_the_choice_stands_in_the_record(material: Material, config: RunConfig, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    run = train_method("auto-only-source", drawn(material), material, ranking_of(material), config, directory=directory)
    assert (run.record["method"], run.record["chosen"]) == ("auto-only-source", "stacked-only-source")
    assert run.record["weights"] == {"source": 1.0}
