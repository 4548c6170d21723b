import numpy as np
import pytest
from scipy.stats import zscore

from potstill.errors import SimilarityError, UnknownNameError
from potstill.similarity import SIMILARITIES, combine_scores, ensemble, knn, parc, probe


def sources_of(problem):
    generator = np.random.default_rng(7)
    noise = generator.normal(size=(2, len(problem.labels), 9))
    return {"own": problem.features, "other": problem.reference_features, "noise": noise[0], "more": noise[1]}


def test_equals_mean_standard_scores(problem):
    features = sources_of(problem)
    table = [[metric(each, problem.labels) for each in features.values()] for metric in (parc, knn, probe)]
    expected = np.nan_to_num(zscore(table, axis=1)).mean(axis=0)
    found = ensemble(features, problem.labels, combine="z")
    assert list(found.values()) == pytest.approx(expected.tolist(), abs=1e-9)


def test_equals_mean_ranks_by_counting(problem):
    features = sources_of(problem)
    expected = np.zeros(4)
    for metric in (parc, knn, probe):
        scores = [metric(each, problem.labels) for each in features.values()]
        for number, own in enumerate(scores):
            beaten = sum(own > other + 1e-12 for other in scores)
            level = sum(abs(own - other) <= 1e-12 for other in scores) - 1
            expected[number] += (beaten + level / 2) / 3 / 3
    assert list(ensemble(features, problem.labels).values()) == pytest.approx(expected.tolist(), abs=1e-9)


def test_combination_by_hand():
    scores = {"parc": {"a": 3.0, "b": 2.0, "c": 1.0}, "knn": {"a": 0.1, "b": 0.3, "c": 0.3}}
    assert combine_scores(scores) == pytest.approx({"a": 0.5, "b": 0.625, "c": 0.375})
    assert combine_scores({"knn": {"a": 0.2, "b": 0.2}}) == {"a": 0.5, "b": 0.5}
    assert combine_scores({"knn": {"a": 0.2, "b": 0.2}}, "z") == {"a": 0.0, "b": 0.0}
    assert combine_scores({"knn": {"a": 0.2}}) == {"a": 1.0}
    assert combine_scores({"knn": {"a": 0.2}}, "z") == {"a": 0.0}


def test_every_member_is_a_metric():
    from potstill.similarity._ensemble import MEMBERS

    assert all(SIMILARITIES[name].function is function for name, function in MEMBERS.items())


def test_wrong_calls_are_named(problem_of):
    problem = problem_of(3)
    with pytest.raises(UnknownNameError, match="Did you mean 'parc'"):
        ensemble({"a": problem.features}, problem.labels, metrics=("prac",))
    with pytest.raises(SimilarityError, match="ensemble: needs at least one metric"):
        ensemble({"a": problem.features}, problem.labels, metrics=())
    with pytest.raises(SimilarityError, match="ensemble: needs at least one metric"):
        ensemble({}, problem.labels)
    with pytest.raises(SimilarityError, match="combine must be 'rank' or 'z', got 'mean'"):
        ensemble({"a": problem.features}, problem.labels, combine="mean")
    with pytest.raises(SimilarityError, match="scores of the same sources"):
        combine_scores({"parc": {"a": 1.0}, "knn": {"b": 1.0}})
    with pytest.raises(SimilarityError, match="ensemble: knn of source 'b' is nan") as caught:
        combine_scores({"knn": {"a": 1.0, "b": float("nan")}})
    assert caught.value.source == "b"
