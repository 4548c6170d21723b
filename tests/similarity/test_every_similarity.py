"""One battery for all metrics: what every one of them promises."""

import inspect

import numpy as np
import pytest
import torch

import potstill.similarity
from potstill.errors import SimilarityError
from potstill.similarity import SIMILARITIES

NAMES = sorted(SIMILARITIES)
FEATURE_NAMES = [name for name in NAMES if "features" in SIMILARITIES[name].needs]
PROBS_NAMES = [name for name in NAMES if "probs" in SIMILARITIES[name].needs]


def first_argument(name, problem):
    return problem.probs if "probs" in SIMILARITIES[name].needs else problem.features


def score(name, values, labels):
    return SIMILARITIES[name].function(values, labels)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_renaming_classes_changes_nothing(name, problem):
    values = first_argument(name, problem)
    classes = np.unique(problem.labels)
    renamed = np.random.default_rng(1).permutation(classes)[np.searchsorted(classes, problem.labels)]
    assert score(name, values, renamed) == pytest.approx(score(name, values, problem.labels), abs=1e-9)


def test_order_of_images_changes_nothing(name, problem):
    values = first_argument(name, problem)
    order = np.random.default_rng(1).permutation(len(values))
    assert score(name, values[order], problem.labels[order]) == pytest.approx(
        score(name, values, problem.labels), abs=1e-9
    )


def test_order_of_duplicated_images_changes_nothing(name, problem):
    # Duplicates tie exactly on paper, but not after rounding; half of the copies have another label.
    values = first_argument(name, problem)
    labels = np.concatenate([problem.labels, np.roll(problem.labels, len(problem.labels) // 2)])
    values = np.concatenate([values, values])
    order = np.random.default_rng(2).permutation(len(values))
    assert score(name, values[order], labels[order]) == pytest.approx(score(name, values, labels), abs=1e-9)


def test_same_call_same_bits(name, problem):
    values = first_argument(name, problem)
    assert score(name, values, problem.labels) == score(name, values.copy(), problem.labels.copy())


def test_arguments_are_left_alone(name, problem_of):
    problem = problem_of(1)
    values, labels = first_argument(name, problem).copy(), problem.labels.copy()
    score(name, values, labels)
    np.testing.assert_array_equal(values, first_argument(name, problem))
    np.testing.assert_array_equal(labels, problem.labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_and_arrays_of_any_dtype(name, dtype, problem_of):
    problem = problem_of(3)
    tensor = torch.from_numpy(first_argument(name, problem)).to(dtype).requires_grad_()
    # The same rounded numbers in float64: the dtype itself must not matter.
    exact = score(name, tensor.detach().double().numpy(), problem.labels)
    result = score(name, tensor, torch.from_numpy(problem.labels))
    assert type(result) is float
    assert result == pytest.approx(exact, abs=1e-12)
    if dtype != torch.bfloat16:
        assert score(name, tensor.detach().numpy(), problem.labels.tolist()) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("name", FEATURE_NAMES)
def test_large_float16_features_do_not_overflow(name, problem_of):
    problem = problem_of(1)
    large = (problem.features / np.abs(problem.features).max() * 60_000).astype(np.float16)
    small = large.astype(np.float64) * 1e-200
    assert np.isfinite(score(name, large, problem.labels))
    assert score(name, small, problem.labels) == pytest.approx(score(name, large, problem.labels), abs=1e-9)


@pytest.mark.parametrize("name", FEATURE_NAMES)
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_a_constant_column_is_harmless(name, constant, problem_of):
    problem = problem_of(1)
    values = np.concatenate([problem.features, np.full((len(problem.features), 1), constant)], axis=1)
    result = score(name, values, problem.labels)
    assert np.isfinite(result)
    if constant == 0.0 and name not in ("parc", "hscore"):  # where a zero dimension has no meaning at all
        assert result == pytest.approx(score(name, problem.features, problem.labels), abs=1e-9)


def test_a_class_with_one_image(name, problem_of):
    problem = problem_of(3)
    labels = problem.labels.copy()
    labels[0] = 4321
    assert np.isfinite(score(name, first_argument(name, problem), labels))


def test_separation_beats_noise(name):
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 4
    for dimensions in (5, 300):
        scores = []
        for signal in (4.0, 0.0):
            centres = signal * generator.normal(size=(4, dimensions))
            features = centres[labels] + generator.normal(size=(60, dimensions))
            logits = features[:, :5]
            probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            scores.append(score(name, probs if name in PROBS_NAMES else features, labels))
        assert scores[0] > scores[1]


def test_wrong_shapes_are_named(name, problem_of):
    problem = problem_of(3)
    values = first_argument(name, problem)
    with pytest.raises(SimilarityError, match=f"^{name}: .* shape"):
        score(name, values[0], problem.labels)
    with pytest.raises(SimilarityError, match="rows"):
        score(name, values[1:], problem.labels)
    with pytest.raises(SimilarityError, match="labels must be integers of shape"):
        score(name, values, problem.labels.astype(float))
    with pytest.raises(SimilarityError, match="labels must be integers of shape"):
        score(name, values, problem.labels[:, None])
    with pytest.raises(SimilarityError, match="at least 2 classes, got 1"):
        score(name, values, np.zeros(len(values), dtype=int))
    with pytest.raises(SimilarityError, match=r"at least \d labeled images, got 1"):
        score(name, values[:1], problem.labels[:1])


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_named(name, poison, problem_of):
    problem = problem_of(3)
    values = first_argument(name, problem).copy()
    values[2, 1] = poison
    with pytest.raises(SimilarityError, match=f"^{name}: .* NaN or infinity in 1 of 60 rows, first in row 2"):
        score(name, values, problem.labels)


@pytest.mark.parametrize("name", FEATURE_NAMES)
def test_constant_features_are_named(name):
    with pytest.raises(SimilarityError, match=f"^{name}: all 6 rows of features are equal"):
        score(name, np.full((6, 3), 0.1), [0, 0, 0, 1, 1, 1])


def test_docstrings_say_what_users_need(name):
    text = inspect.getdoc(SIMILARITIES[name].function)
    for part in ("Args:", "Returns:", "higher is better", "Cost:", "Raises:", "Reference:", ">>>"):
        assert part in text


def test_every_metric_is_public(name):
    assert getattr(potstill.similarity, name) is SIMILARITIES[name].function
    assert name in potstill.similarity.__all__
