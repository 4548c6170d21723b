"""Intervals, rank probabilities and p-values against simulation and hand-computed values."""

import numpy as np
import pytest

from potstill.similarity import SIMILARITIES, cka, knn, parc
from potstill.similarity._permutation import p_values, shuffled_labels
from potstill.similarity._resampling import (
    HalfScores,
    deviations_of,
    draw_halves,
    interval_around,
    quantile_of,
    rank_probabilities,
    size_of_halves,
    tied_with_first,
    variance_of,
)
from potstill.similarity._scoring import Column


@pytest.mark.parametrize("counts", [[4, 4], [5, 7, 1, 20], [9, 4, 4]])
def test_halves_are_disjoint_and_stratified(counts):
    index = np.repeat(np.arange(len(counts)), counts)
    for first, second in draw_halves(index, 50, seed=0):
        assert sorted([*first, *second]) == list(range(len(index)))
        for label, count in enumerate(counts):
            sizes = sorted(((index[first] == label).sum(), (index[second] == label).sum()))
            assert sizes == [count // 2, count - count // 2]


def test_many_classes_and_images_leave_two_images_of_each_in_both_halves():
    index = np.repeat(np.arange(500), 10)
    for half in draw_halves(index, 2, seed=0)[0]:
        assert np.bincount(index[half]).min() == 5


@pytest.mark.parametrize("counts", [[2, 2, 2], [3, 3, 3], [1, 1, 1, 1], [4, 2, 2, 2]])
def test_nothing_is_drawn_where_halves_say_nothing(counts):
    assert draw_halves(np.repeat(np.arange(len(counts)), counts), 50, seed=0) == []


def test_variance_of_a_mean_is_that_of_the_textbook():
    # For the mean of independent numbers both estimates must agree with variance / N.
    generator = np.random.default_rng(0)
    values = generator.normal(size=400)
    halves = draw_halves(np.zeros(400, dtype=int), 4000, seed=0)
    scores = HalfScores(*(np.array([values[half[side]].mean() for half in halves]) for side in (0, 1)))
    for pairwise in (False, True):
        variance = variance_of(scores, images=400, images_in_half=200, pairwise=pairwise)
        assert variance == pytest.approx(values.var(ddof=1) / 400, rel=0.1)


def test_variance_of_an_average_over_pairs_without_a_linear_part():
    # Mean of x_i . x_j over pairs, with mean zero, in 30 dimensions: its variance is 2 * 30 / (N (N - 1)), half of what
    # an average of images with the same spread over halves would have.
    estimates = {True: [], False: []}
    for seed in range(30):
        values = np.random.default_rng(seed).normal(size=(60, 30))

        def average(rows, values=values):
            chosen = values[rows]
            return ((chosen.sum(axis=0) ** 2).sum() - (chosen**2).sum()) / len(rows) / (len(rows) - 1)

        halves = draw_halves(np.zeros(60, dtype=int), 400, seed=seed)
        scores = HalfScores(*(np.array([average(half[side]) for half in halves]) for side in (0, 1)))
        for pairwise, found in estimates.items():
            found.append(variance_of(scores, images=60, images_in_half=30, pairwise=pairwise))
    true = 2 * 30 / (60 * 59)
    assert np.mean(estimates[True]) == pytest.approx(true, rel=0.25)
    assert np.mean(estimates[False]) == pytest.approx(2 * true, rel=0.3)


def test_undefined_draws():
    nan = np.nan
    scores = HalfScores(np.array([1.0, nan, nan, nan]), np.array([2.0, 1.0, nan, 1.0]))
    assert variance_of(scores, images=8, images_in_half=4, pairwise=True) is None


@pytest.mark.parametrize("name", ["parc", "knn", "cka"])
@pytest.mark.parametrize("signal", [0.0, 0.4])
def test_intervals_cover_what_they_promise(name, signal):
    """95 % intervals of simulated scoring sets; the true value is the mean over all of them."""
    generator = np.random.default_rng(1)
    labels = np.arange(100) % 5
    centres = generator.normal(size=(5, 64))
    metric, scores, variances, differences = SIMILARITIES[name], [], [], []
    for seed in range(120):
        features = signal * centres[labels] + generator.normal(size=(100, 64))
        column = Column(name, metric, {"s": {"features": features, "labels": labels}}, labels)
        halves = draw_halves(labels, 40, seed=seed)
        found = column.halved(halves)["s"]
        scores.append(column.scores["s"])
        variances.append(variance_of(found, images=100, images_in_half=50, pairwise=metric.pairwise))
        differences.append(np.mean([found.first, found.second]) - scores[-1])
    true, quantile = np.mean(scores), quantile_of(halves, 5)
    ends = [interval_around(s, v, quantile, metric.bounds) for s, v in zip(scores, variances, strict=True)]
    assert 0.89 <= np.mean([low <= true <= high for low, high in ends]) <= 0.99
    if signal == 0:
        assert abs(np.mean(differences)) < 0.01  # images never meet copies of themselves


@pytest.mark.parametrize("function", [parc, knn, cka])
def test_prepared_metrics_equal_the_metric_itself(function, problem):
    metric = SIMILARITIES[function.__name__]
    scorer = metric.prepare(problem.features)
    everything = np.arange(len(problem.labels))
    index = np.unique(problem.labels, return_inverse=True)[1]
    assert scorer(everything, index) == pytest.approx(function(problem.features, problem.labels), abs=2e-4)
    shuffled = np.random.default_rng(0).permutation(index)
    assert scorer(everything, shuffled) == pytest.approx(function(problem.features, shuffled), abs=2e-4)


@pytest.mark.parametrize("function", [knn, cka])
def test_prepared_metrics_are_exact_on_subsets(function, problem_of):
    problem = problem_of(3)
    rows = np.random.default_rng(0).permutation(len(problem.labels))[:31]
    labels = np.unique(problem.labels, return_inverse=True)[1][rows]
    scorer = SIMILARITIES[function.__name__].prepare(problem.features)
    assert scorer(rows, labels) == pytest.approx(function(problem.features[rows], labels), abs=1e-12)


def test_prepared_parc_is_close_on_subsets(problem_of):
    # Columns keep the scale that they have over all images.
    problem = problem_of(3)
    rows = np.random.default_rng(0).permutation(len(problem.labels))[:40]
    labels = np.unique(problem.labels, return_inverse=True)[1][rows]
    scorer = SIMILARITIES["parc"].prepare(problem.features)
    assert scorer(rows, labels) == pytest.approx(parc(problem.features[rows], labels), abs=0.03)


def test_rank_probabilities_by_hand():
    scores = {"a": 1.0, "b": 0.8, "c": 0.1}
    deviations = {"a": np.array([0.0, 0.0, 0.0, 0.0]), "b": np.array([0.3, -0.1, 0.2, 0.0]), "c": np.zeros(4)}
    chances = rank_probabilities(scores, deviations)
    # b wins once and ties once, which counts half for each.
    np.testing.assert_allclose(chances["a"], [0.625, 0.375, 0])
    np.testing.assert_allclose(chances["b"], [0.375, 0.625, 0])
    np.testing.assert_allclose(chances["c"], [0, 0, 1])
    assert rank_probabilities(scores, {"a": np.zeros(2)}) is None


def test_deviations_have_the_variance_asked_for():
    generator = np.random.default_rng(0)
    scores = HalfScores(generator.normal(size=50), generator.normal(size=50))
    deviations = deviations_of(scores, 0.25)
    assert np.mean(deviations) == pytest.approx(0)
    assert np.mean(deviations**2) == pytest.approx(0.25)
    constant = HalfScores(np.ones(5), np.ones(5))
    assert not deviations_of(constant, 0.0).any()


def test_ties_are_judged_by_paired_differences():
    # Both vary much, but together: the difference is sure.
    shared = np.random.default_rng(0).normal(size=200)
    scores = {"a": 1.0, "b": 0.9}
    assert tied_with_first(scores, {"a": shared, "b": shared}, 1.96) == ()
    assert tied_with_first(scores, {"a": shared, "b": -shared}, 1.96) == ("b",)


def test_p_values_by_hand():
    null = [{"a": 0.0, "b": 10.0}, {"a": 1.0, "b": 10.5}, {"a": 0.0, "b": 9.5}, {"a": 1.0, "b": 10.0}]
    chances = p_values({"a": 9.0, "b": 10.0}, null)
    assert chances["a"] == 1 / 5
    assert chances["b"] == 4 / 5  # in one shuffling both sources lie below their means
    assert p_values({"a": 1.0}, []) == {}
    assert p_values({"a": 1.0}, [{"a": 1.0}] * 4) == {"a": 1.0}  # labels make no difference


def test_p_values_are_uniform_on_noise():
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 4
    found = []
    for seed in range(60):
        features = {name: generator.normal(size=(40, 8)) for name in "abc"}
        values = {name: {"features": each, "labels": labels} for name, each in features.items()}
        column = Column("parc", SIMILARITIES["parc"], values, labels)
        null = column.shuffled(shuffled_labels(labels, 19, seed=seed))
        found.append(min(p_values(column.scores, null).values()))
    # The smallest of three sources: were they not compared with the largest of the null, this would be near 0.25.
    assert np.mean(found) == pytest.approx(0.5, abs=0.12)
    assert np.mean(np.array(found) <= 0.2) == pytest.approx(0.2, abs=0.15)


def test_size_of_halves_is_the_mean():
    assert size_of_halves([(np.arange(3), np.arange(4))]) == 3.5


def test_equal_labelings_have_equal_p_values():
    # Of the 20 ways to label six images three and three, two are as good as the truth: no p-value below a tenth.
    from potstill.similarity import rank_sources
    from potstill.types import SourceCost, SourceOutputs

    labels, found = np.array([0, 0, 0, 1, 1, 1]), []
    for seed in range(8):
        features = 5 * np.eye(2, 3)[labels] + np.random.default_rng(seed).normal(size=(6, 3))
        source = SourceOutputs("s", tuple("abcdef"), features, None, "source", None, SourceCost(0, 0.0, None), "")
        found.append(rank_sources({"s": source}, "abcdef", labels, metric="cka", seed=seed).sources[0].p_value)
    assert min(found) > 0.04
    assert np.mean(found) == pytest.approx(0.11, abs=0.04)
