"""Pseudo-classes of sources without a classifier."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from potstill.distillation.clusters import find_clusters
from potstill.errors import DataError


def assigned(features: np.ndarray, **options: int) -> np.ndarray:
    logits = find_clusters(features, **options).logits(features)
    return logits.probs(np.arange(len(features))).argmax(axis=1)


def test_finds_separate_clusters() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 30)
    features = 10 * np.eye(4, 16)[truth] + rng.normal(size=(120, 16))
    assert adjusted_rand_score(truth, assigned(features, num_clusters=4)) == 1.0


def test_groups_real_digits_far_better_than_chance() -> None:
    digits = load_digits()
    assert normalized_mutual_info_score(digits.target, assigned(digits.data, num_clusters=20)) > 0.5


def test_deterministic_and_free_of_scale_shift_and_rotation() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(60, 6))
    rotation = ortho_group.rvs(6, random_state=0)
    first = assigned(features)
    assert first.tolist() == assigned(features).tolist()
    assert first.tolist() == assigned(3 * features @ rotation + 7).tolist()


def test_default_number_of_clusters_is_the_square_root() -> None:
    features = np.random.default_rng(0).normal(size=(100, 5))
    assert find_clusters(features).logits(features).num_classes == 10


def test_stored_log_sum_exp_is_that_of_the_logits() -> None:
    features = np.random.default_rng(0).normal(size=(30, 5))
    logits = find_clusters(features).logits(features)
    rows = np.arange(30)
    shifted = np.asarray(logits.shifted[rows], dtype=np.float64)
    expected = logits.maximum[rows] + np.log(np.exp(shifted).sum(axis=1))
    np.testing.assert_allclose(logits.log_sum_exp[rows], expected, atol=2e-3)


@pytest.mark.parametrize("features", [np.ones((5, 3)), np.zeros((1, 3))])
def test_equal_features_are_refused(features: np.ndarray) -> None:
    with pytest.raises(DataError, match="features that differ"):
        find_clusters(features)


def test_another_view_is_judged_by_the_clusters_of_the_pool() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(40, 6))
    clusters = find_clusters(features)
    plain = clusters.logits(features)
    # The same images in another order and number: centring must not follow the rows that are asked about.
    some = np.array([7, 3, 3, 30])
    assert np.array_equal(clusters.logits(features[some]).shifted, np.asarray(plain.shifted)[some])
