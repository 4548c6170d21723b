"""The stack of a label draw: fitted once, kept under what it depends on, the same for whoever asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from potstill.config import RunConfig, build_config
from potstill.data import redraw_labels
from potstill.distillation.stacking import Stack, stack_sources
from potstill.errors import OutputError
from potstill.pipeline import pool_stack
from potstill.pipeline.pool_stack import settle_stack
from potstill.pipeline.pool_views import rows_of
from potstill.pipeline.preparation import Material, cache_dir_of, gather_material, open_configured
from potstill.types import Target

NAMES = ("source", "headless")


@pytest.fixture
def config(models: Path, tmp_path: Path) -> RunConfig:
    return build_config({"zoo": str(models / "zoo.yaml"), "cache_dir": tmp_path / "cache", "offline": True})


@pytest.fixture
def material(digits: Path, config: RunConfig) -> Material:
    return gather_material(open_configured(digits, config), config)


def settled(material: Material, target: Target, config: RunConfig, *, shuffled: bool = False) -> Stack:
    pool = tuple(sorted(target.split.pool))
    return settle_stack(material, target, NAMES, pool, cache_dir_of(config), shuffled=shuffled)


def by_hand(material: Material, target: Target, order: tuple[str, ...]) -> Stack:
    pool, labeled = tuple(sorted(target.split.pool)), target.split.labeled
    features = {}
    for name in NAMES:
        outputs = material.outputs[name]
        assert outputs.features is not None
        features[name] = np.asarray(outputs.features[outputs.rows(order)])
    groups = [target.groups.get(image_id, image_id) for image_id in labeled]
    return stack_sources(
        features, rows_of(labeled, pool), target.labels_of(labeled), len(target.classes), groups=groups
    )


def test_a_kept_stack_is_the_fitted_one(material: Material, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    target = redraw_labels(material.target, 0, labels_per_class=4)
    expected = by_hand(material, target, tuple(sorted(target.split.pool)))
    first = settled(material, target, config)

    def fit_again(*arguments: object, **options: object) -> Stack:
        raise AssertionError("fitted although it is kept")

    monkeypatch.setattr(pool_stack, "stack_sources", fit_again)
    for found in (first, settled(material, target, config)):
        np.testing.assert_array_equal(found.probs, expected.probs)
        assert found.shares == pytest.approx(expected.shares)
        assert found.propagation == pytest.approx(expected.propagation)
        assert (found.loss, found.accuracy) == pytest.approx((expected.loss, expected.accuracy))
    other = redraw_labels(material.target, 1, labels_per_class=4)
    grouped = replace(target, groups=dict.fromkeys(target.split.labeled[:2], "pair"))
    for changed, shuffled in ((other, False), (target, True), (grouped, False)):
        with pytest.raises(AssertionError, match="although it is kept"):
            settled(material, changed, config, shuffled=shuffled)


def test_a_shuffled_stack_gives_every_image_the_features_of_another(material: Material, config: RunConfig) -> None:
    target = redraw_labels(material.target, 0, labels_per_class=4)
    pool = np.array(sorted(target.split.pool), dtype=object)
    expected = by_hand(material, target, tuple(np.random.default_rng(0).permutation(pool)))
    found = settled(material, target, config, shuffled=True)
    np.testing.assert_array_equal(found.probs, expected.probs)
    assert found.loss is not None
    assert found.loss > 0.9 * np.log(len(target.classes))  # what is said of other images tells nothing


def test_one_label_a_class_leaves_nothing_to_judge_by(material: Material, config: RunConfig) -> None:
    target = redraw_labels(material.target, 0, labels_per_class=1)
    for _ in range(2):  # fitted, then kept
        stack = settled(material, target, config)
        assert (stack.loss, stack.accuracy) == (None, None)
        assert stack.shares == pytest.approx(dict.fromkeys(NAMES, 0.5))


def test_where_the_cache_cannot_be_written_the_stack_serves_all_the_same(
    material: Material, config: RunConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(pool_stack, "keep_derived", refuse)
    target = redraw_labels(material.target, 0, labels_per_class=4)
    expected = by_hand(material, target, tuple(sorted(target.split.pool)))
    np.testing.assert_array_equal(settled(material, target, config).probs, expected.probs)
    assert "The stack is not kept: the disk is full" in caplog.text
