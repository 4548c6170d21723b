"""Pseudo-classes of sources without a classifier."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from potstill.distillation.clusters import cluster_sample, clusters_fingerprint, find_clusters
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


def test_centres_are_the_mean_directions_of_the_images_nearest_to_them() -> None:
    features = load_digits().data
    clusters = find_clusters(features, num_clusters=12)
    directions = features - features.mean(axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    nearest = (directions @ clusters.centres.T).argmax(axis=1)
    for number, centre in enumerate(clusters.centres):
        total = directions[nearest == number].sum(axis=0)
        np.testing.assert_allclose(centre, total / np.linalg.norm(total), atol=1e-6)


def test_logits_of_many_rows_in_any_order_are_scaled_cosines() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(9000, 5)).astype(np.float16)
    clusters = find_clusters(features[:300], num_clusters=6, sharpness=4.0)
    rows = rng.permutation(9000)[:8500]  # more than are judged at a time
    logits = clusters.logits(features, rows)
    directions = features[rows].astype(np.float64) - clusters.mean
    expected = 4.0 * directions @ clusters.centres.T / np.linalg.norm(directions, axis=1, keepdims=True)
    assert (logits.shifted.dtype, logits.maximum.dtype) == (np.float16, np.float32)
    np.testing.assert_allclose(logits.logits(np.arange(8500)), expected, atol=4e-3)  # of float16


def test_the_sample_of_a_pool_follows_the_images_wherever_they_stand() -> None:
    digests = [f"{number:04x}" for number in np.random.default_rng(0).permutation(50)]
    assert cluster_sample(digests).tolist() == list(range(50))
    chosen = cluster_sample(digests, most=20)
    assert chosen.tolist() == sorted(chosen)
    assert {digests[row] for row in chosen} == set(sorted(digests)[:20])
    turned = digests[::-1]
    assert {turned[row] for row in cluster_sample(turned, most=20)} == {digests[row] for row in chosen}


def test_the_fingerprint_follows_values_alone() -> None:
    features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float16)
    fingerprint = clusters_fingerprint(features)
    assert fingerprint == clusters_fingerprint(np.asfortranarray(features, dtype=np.float32))
    others = (features[::-1], features[:5], features.reshape(4, 6), np.nextafter(features, np.float16(9)))
    assert len({fingerprint, *(clusters_fingerprint(each) for each in others)}) == 5
