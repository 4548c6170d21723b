"""What methods take from sources: clusters that all processes share, answers softened alike, nothing noticed late."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import potstill as ps
from potstill.config import RunConfig
from potstill.distillation.clusters import cluster_sample, find_clusters
from potstill.distillation.softening import entropy_shares
from potstill.errors import CacheError, OutputError, UsageError, WeightingError
from potstill.pipeline import comparison, pool_clusters, whole_run
from potstill.pipeline.methods import parse_method
from potstill.pipeline.pool_clusters import clusters_of, settle_clusters
from potstill.pipeline.preparation import Material, cache_dir_of, gather_material, open_configured
from potstill.pipeline.source_use import require_usable_sources, source_answers, source_to_start_at, source_weights
from potstill.types import RankedSource, Ranking, SourceWeights


@pytest.fixture
def material(digits: Path, config: RunConfig) -> Material:
    return gather_material(open_configured(digits, config), config)


def pool_of(material: Material) -> tuple[str, ...]:
    return tuple(sorted(material.target.split.pool))


def kept_files(cache_dir: Path) -> list[Path]:
    return sorted(cache_dir.rglob("derived-clusters-*.safetensors"))


def test_where_no_source_is_related_all_are_trusted_alike(config: RunConfig, caplog: pytest.LogCaptureFixture) -> None:
    def ranked(metric: str) -> Ranking:
        scores = {"one": -0.1, "three": -0.2, "two": -0.3}
        return Ranking(metric, 10, tuple(RankedSource(name, score, {}, 0.0) for name, score in scores.items()))

    weights = source_weights(parse_method("weighted"), ranked("parc"), config)
    assert weights is not None
    assert weights.values == pytest.approx({"one": 1 / 3, "two": 1 / 3, "three": 1 / 3})
    assert "No source has a positive parc score" in caplog.text
    with pytest.raises(WeightingError, match="positive score"):  # in log units 0 means perfect
        source_weights(parse_method("weighted"), ranked("leep"), config)


def ranked_in_order(*names: str) -> Ranking:
    return Ranking("parc", 10, tuple(RankedSource(name, 0.5 - 0.1 * i, {}, 0.0) for i, name in enumerate(names)))


def test_what_a_method_needs_of_its_sources_is_noticed_before_training(material: Material, config: RunConfig) -> None:
    ranking = ranked_in_order("source", "headless")
    start = parse_method("start-nearest")
    require_usable_sources(start, ranking, material, config)
    weights = source_weights(start, ranking, config)
    assert weights is not None
    assert source_to_start_at(start, weights, material, config) == "headless"
    assert source_to_start_at(parse_method("source-finetune"), weights, material, config) == "source"
    with pytest.raises(UsageError, match="No source of the zoo is a timm/test_efficientnet with a weights file"):
        require_usable_sources(parse_method("start-nearest-without-headless"), ranking, material, config)
    # The stack reads features, so that logits cannot be softened concerns it not; without features it has nothing.
    cold = replace(config, temperature=0.0, standardise_logits=True)
    require_usable_sources(parse_method("stacked"), ranking, material, cold)
    bare = {name: replace(outputs, features=None) for name, outputs in material.outputs.items()}
    with pytest.raises(UsageError, match="No source has features"):
        require_usable_sources(parse_method("stacked"), ranking, replace(material, outputs=bare), config)


def test_clusters_are_found_once_for_a_pool(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, cache_dir = pool_of(material), tmp_path / "cache"
    first = clusters_of(material, "headless", pool, cache_dir)
    outputs = material.outputs["headless"]
    assert outputs.features is not None
    expected = find_clusters(outputs.features[outputs.rows(pool)])
    assert np.array_equal(first.centres, expected.centres)
    assert np.array_equal(first.mean, expected.mean)
    other = clusters_of(material, "headless", pool[5:], cache_dir)
    assert not np.array_equal(first.mean, other.mean)
    assert len(kept_files(cache_dir)) == 2
    assert {file.parent.name for file in kept_files(cache_dir)} == {outputs.key}

    monkeypatch.setattr(pool_clusters, "find_clusters", None)  # not needed any more
    assert np.array_equal(clusters_of(material, "headless", pool, cache_dir).centres, first.centres)


def test_large_pools_are_sampled(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_clusters, "cluster_sample", partial(cluster_sample, most=25))
    pool = pool_of(material)
    clusters = clusters_of(material, "headless", pool, tmp_path / "cache")
    assert len(clusters.centres) == 5
    # The same images whatever their place; only rounding knows their order.
    turned = clusters_of(material, "headless", pool[::-1], tmp_path / "cache")
    np.testing.assert_allclose(turned.mean, clusters.mean, rtol=1e-5, atol=1e-7)


def test_further_processes_read_what_process_0_has_kept(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, cache_dir = pool_of(material), tmp_path / "cache"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(CacheError, match="same cache"):
        clusters_of(material, "headless", pool, cache_dir)
    monkeypatch.setenv("RANK", "0")
    settle_clusters(material, material.outputs, pool, cache_dir)
    (file,) = kept_files(cache_dir)  # the other source has classes
    written = file.stat().st_mtime_ns
    monkeypatch.setenv("RANK", "1")
    clusters_of(material, "headless", pool, cache_dir)
    assert file.stat().st_mtime_ns == written


def test_clusters_that_cannot_be_kept_do_alone(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, cache_dir = pool_of(material), tmp_path / "cache"
    own = replace(material, outputs={"headless": replace(material.outputs["headless"], key="given")})
    given = clusters_of(own, "headless", pool, cache_dir)

    def refuse(*_: object) -> None:
        raise OutputError("full")

    monkeypatch.setattr(pool_clusters, "keep_derived", refuse)
    assert np.array_equal(clusters_of(material, "headless", pool, cache_dir).centres, given.centres)
    assert not kept_files(cache_dir)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OutputError, match="full"):
        clusters_of(material, "headless", pool, cache_dir)


def test_confidence_is_that_of_the_answers_that_are_learnt(material: Material, config: RunConfig) -> None:
    config = replace(config, standardise_logits=True, source_temperature="entropy", confidence="entropy")
    pool = pool_of(material)
    weights = SourceWeights("equal", {"source": 0.5, "headless": 0.5})
    clusters = settle_clusters(material, weights.used, pool, cache_dir_of(config))
    answers = source_answers(material, weights, pool, config, clusters=clusters)
    rows = torch.arange(len(pool))
    for targets in answers.gather(rows, torch.zeros_like(rows)):
        wanted = 1 - entropy_shares(targets)
        assert targets.confidence is not None
        assert targets.confidence.std() > 0
        torch.testing.assert_close(targets.confidence, wanted / wanted.mean(), rtol=1e-3, atol=1e-4)


@pytest.fixture
def wide_zoo(models: Path, tmp_path: Path) -> Path:
    """A zoo whose second source has so many classes that only the likeliest are kept."""
    import timm

    wide = timm.create_model("test_resnet", num_classes=2100)
    save_file(wide.state_dict(), tmp_path / "wide.safetensors")
    (tmp_path / "zoo.yaml").write_text(
        f"sources:\n  - {{name: source, model: timm/test_resnet, weights: {models / 'source.safetensors'}, "
        "num_classes: 7, image_size: 32}\n"
        "  - {name: wide, model: timm/test_resnet, weights: wide.safetensors, num_classes: 2100, image_size: 32}\n"
    )
    return tmp_path / "zoo.yaml"


@pytest.mark.parametrize("asked", [{"temperature": 3.0}, {"standardise_logits": True}])
def test_what_a_source_cannot_do_is_noticed_before_anything_is_trained(
    digits: Path, config: RunConfig, wide_zoo: Path, tmp_path: Path, asked: dict[str, float]
) -> None:
    config = replace(config, zoo=str(wide_zoo), **asked)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="equal cannot use source wide"):
        ps.compare(digits, tmp_path / "comparison", config=config, methods=["transfer", "equal"], seeds=1)
    assert not (tmp_path / "comparison" / "transfer-seed0").exists()
    config = replace(config, scheme="top-k", top_k=2)
    with pytest.raises(UsageError, match="weighted cannot use source wide"):
        ps.run(digits, tmp_path / "run", config=config, method="weighted")
    assert not (tmp_path / "run" / "folds").exists()


class Stopped(Exception):
    """The first training would begin here."""


def test_it_is_said_how_many_students_share_the_minutes_before_the_first_is_trained(
    digits: Path, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Stopped

    monkeypatch.setattr(comparison, "train_recipe", stop)
    monkeypatch.setattr(whole_run, "train_method", stop)
    with caplog.at_level(logging.INFO), pytest.raises(Stopped):
        ps.compare(
            digits,
            tmp_path / "comparison",
            config=replace(config, minutes=1.5),
            methods=["transfer", "weighted"],
            seeds=2,
        )
    assert "4 students are to be trained, within 1.5 minutes each: up to about 6 minutes in all" in caplog.messages
    with caplog.at_level(logging.INFO), pytest.raises(Stopped):
        ps.run(digits, tmp_path / "run", config=replace(config, minutes=30.0), method="weighted")
    assert "7 students are to be trained, within 30 minutes each: up to about 210 minutes in all" in caplog.messages
    with caplog.at_level(logging.INFO), pytest.raises(Stopped):
        ps.run(digits, tmp_path / "other", config=config, method="transfer", cross_validate=False)
    assert "1 student is to be trained" in caplog.messages
