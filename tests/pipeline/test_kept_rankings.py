"""A ranking is computed once for the same rows, labels and metrics, and again when anything of that changes."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill.cache import repair_cache, verify_cache
from potstill.config import RunConfig, build_config
from potstill.pipeline import kept_rankings, ranking
from potstill.pipeline.preparation import Material, gather_material, open_configured
from potstill.pipeline.ranking import rank_material
from potstill.types import RankedSource, Ranking, Target


def own_metric(features: Any, labels: Any) -> float:
    return float(np.asarray(features).std() + len(labels))


@pytest.fixture
def asked(digits: Path, models: Path, tmp_path: Path) -> tuple[Material, Target, RunConfig]:
    config = build_config(
        {
            "zoo": str(models / "zoo.yaml"),
            "labels_per_class": 6,
            "offline": True,
            "cache_dir": str(tmp_path / "cache"),
            "metric": "parc,leep,knn",
        }
    )
    target = open_configured(digits, config)
    return gather_material(target, config), target, config


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The metrics of the rankings that were computed, in turn."""
    calls: list[str] = []
    rank_sources = ranking.rank_sources

    def counted(*arguments: Any, **named: Any) -> Ranking:
        calls.append(named["metric"])
        return rank_sources(*arguments, **named)

    monkeypatch.setattr(ranking, "rank_sources", counted)
    return calls


def test_the_second_ranking_is_the_first(asked: tuple[Material, Target, RunConfig], computed: list[str]) -> None:
    material, target, config = asked
    first = rank_material(material, target, config)
    assert rank_material(material, target, config) == first  # every number, to the bit
    assert computed == ["parc"]
    assert list(rank_material(material, target, config).sources[0].scores) == list(first.sources[0].scores)
    assert any(error for row in first.sources for error in [score.error for score in row.scores.values()])


def test_names_of_files_do_not_matter(asked: tuple[Material, Target, RunConfig], computed: list[str]) -> None:
    """What a ranking depends on is the content of images."""
    material, target, config = asked
    first = rank_material(material, target, config)
    ids = [*target.split.labeled]
    moved = {one: f"moved/{one}" for one in ids}

    def renamed(table: Any) -> dict[str, Any]:
        return {moved.get(one, one): value for one, value in table.items()}

    elsewhere = replace(
        target,
        files=renamed(target.files),
        digests=renamed(target.digests),
        labels=renamed(target.labels),
        split=replace(target.split, labeled=tuple(moved[one] for one in ids)),
    )
    outputs = {
        name: replace(each, image_ids=tuple(moved.get(one, one) for one in each.image_ids))
        for name, each in material.outputs.items()
    }
    assert rank_material(replace(material, outputs=outputs), elsewhere, config) == first
    assert computed == ["parc"]


def test_whatever_it_depends_on_makes_another(
    asked: tuple[Material, Target, RunConfig], computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    material, target, config = asked
    rank_material(material, target, config)
    one, other = target.split.labeled[0], target.split.labeled[-1]
    swapped = {**target.labels, one: target.labels[other], other: target.labels[one]}
    name = next(iter(material.outputs))
    features = np.array(material.outputs[name].features)
    features[material.outputs[name].rows([one])] *= 1.01
    rows = replace(material.outputs[name], features=features)
    changes = [
        lambda: rank_material(material, replace(target, labels=swapped), config),
        lambda: rank_material(replace(material, outputs={**material.outputs, name: rows}), target, config),
        lambda: rank_material(replace(material, errors={**material.errors, name: "it broke"}), target, config),
        lambda: rank_material(material, target, replace(config, metric="parc,leep")),
        lambda: rank_material(material, target, replace(config, metric="leep,parc,knn")),
        lambda: rank_material(material, target, replace(config, seed=1)),
        lambda: rank_material(material, target, replace(config, reference=name)),
        lambda: rank_material(material, target, replace(config, scoring_images=20)),
        lambda: rank_material(material, target, config, scores_only=True),
    ]
    for number, change in enumerate(changes, start=2):
        change()
        assert len(computed) == number, number
    monkeypatch.setattr(kept_rankings, "_code_version", lambda: {"sha256": "another"})
    rank_material(material, target, config)
    assert len(computed) == len(changes) + 2


def test_a_metric_of_the_user_is_never_kept(asked: tuple[Material, Target, RunConfig], computed: list[str]) -> None:
    material, target, config = asked
    for metric in ("parc,tests.pipeline.test_kept_rankings:own_metric", "parc,kite"):
        for _ in range(2):
            with pytest.MonkeyPatch.context() as patch:
                patch.syspath_prepend(str(Path(__file__).parents[2]))
                rank_material(material, target, replace(config, metric=metric))
    assert len(computed) == 4


def test_a_damaged_one_is_found_and_computed_again(
    asked: tuple[Material, Target, RunConfig], computed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    material, target, config = asked
    cache_dir = Path(config.cache_dir or "")
    first = rank_material(material, target, config)
    (file,) = (cache_dir / "rankings").iterdir()
    intact = file.read_bytes()
    for damaged in (intact[:-9], intact.replace(b"parc", b"cka ", 1)):
        file.write_bytes(damaged)
        assert [each.path for each in verify_cache(cache_dir)] == [file]
        again = rank_material(material, target, config)
        assert "is damaged" in caplog.text
        assert [row.scores for row in again.sources] == [row.scores for row in first.sources]
        assert verify_cache(cache_dir) == ()
    file.write_bytes(intact[:-9])
    assert [each.path for each in repair_cache(cache_dir)] == [file]
    assert not file.exists()
    assert len(computed) == 3


def test_every_field_comes_back() -> None:
    whole = Ranking(
        "parc",
        12,
        (
            RankedSource("a", 0.1, {}, 0.2, None, {"params": 3.0}, (0.75, 0.25), 0.01),
            RankedSource("b", None, {}, 0.0, "no file"),
        ),
        ("b",),
        100,
        99,
        {"parc": {"leep": None, "knn": 1 / 3}},
    )
    assert kept_rankings._ranking_of(asdict(whole)) == whole
