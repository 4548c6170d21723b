"""One battery for all metrics: what every one of them promises."""

import inspect

import numpy as np
import pytest
import torch

import potstill.similarity
from potstill.errors import SimilarityError
from potstill.similarity import RANKERS, SIMILARITIES

NAMES = sorted(SIMILARITIES)
OUTPUT_NAMES = {name: [need for need in SIMILARITIES[name].needs if need != "labels"] for name in NAMES}
LABEL_NAMES = [name for name in NAMES if "labels" in SIMILARITIES[name].needs]
FEATURE_NAMES = [name for name in NAMES if "features" in SIMILARITIES[name].needs]
# Where probabilities or logits stand beside the features, their own scale matters.
SCALED_NAMES = [name for name in FEATURE_NAMES if "logits" not in SIMILARITIES[name].needs]


def values_of(name, problem):
    return {need: getattr(problem, need) for need in SIMILARITIES[name].needs}


def score(name, values):
    return SIMILARITIES[name].function(*(values[need] for need in SIMILARITIES[name].needs))


def changed(values, change):
    """The same change to everything that a model said; labels stay."""
    return {need: array if need == "labels" else change(array) for need, array in values.items()}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.mark.parametrize("name", LABEL_NAMES)
def test_renaming_classes_changes_nothing(name, problem):
    values = values_of(name, problem)
    classes = np.unique(problem.labels)
    renamed = np.random.default_rng(1).permutation(classes)[np.searchsorted(classes, problem.labels)]
    assert score(name, values | {"labels": renamed}) == pytest.approx(score(name, values), abs=1e-9)


def test_order_of_images_changes_nothing(name, problem):
    values = values_of(name, problem)
    order = np.random.default_rng(1).permutation(len(problem.labels))
    shuffled = {need: array[order] for need, array in values.items()}
    assert score(name, shuffled) == pytest.approx(score(name, values), abs=1e-9)


def test_order_of_duplicated_images_changes_nothing(name, problem):
    # Duplicates tie exactly on paper, but not after rounding; half of the copies have another label.
    values = {need: np.concatenate([array, array]) for need, array in values_of(name, problem).items()}
    if "labels" in values:
        values["labels"] = np.concatenate([problem.labels, np.roll(problem.labels, len(problem.labels) // 2)])
    order = np.random.default_rng(2).permutation(2 * len(problem.labels))
    shuffled = {need: array[order] for need, array in values.items()}
    assert score(name, shuffled) == pytest.approx(score(name, values), abs=1e-9)


def test_same_call_same_bits(name, problem):
    values = values_of(name, problem)
    assert score(name, values) == score(name, {need: array.copy() for need, array in values.items()})


def test_arguments_are_left_alone(name, problem_of):
    values = {need: array.copy() for need, array in values_of(name, problem_of(1)).items()}
    score(name, values)
    for need, array in values.items():
        np.testing.assert_array_equal(array, getattr(problem_of(1), need))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_and_arrays_of_any_dtype(name, dtype, problem_of):
    values = values_of(name, problem_of(3))
    tensors = changed(values, lambda array: torch.from_numpy(array).to(dtype).requires_grad_())
    # The same rounded numbers in float64: the dtype itself must not matter.
    exact = score(name, changed(tensors, lambda tensor: tensor.detach().double().numpy()))
    on_tensors = {need: torch.as_tensor(each) for need, each in tensors.items()}
    result = score(name, on_tensors)
    assert type(result) is float
    assert result == pytest.approx(exact, abs=1e-12)
    if dtype != torch.bfloat16:
        arrays = {need: each.tolist() if need == "labels" else each.detach().numpy() for need, each in tensors.items()}
        assert score(name, arrays) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("name", SCALED_NAMES)
def test_large_float16_features_do_not_overflow(name, problem_of):
    values = values_of(name, problem_of(1))
    large = (values["features"] / np.abs(values["features"]).max() * 60_000).astype(np.float16)
    small = large.astype(np.float64) * 1e-200
    assert np.isfinite(score(name, values | {"features": large}))
    result = score(name, values | {"features": small})
    if name == "transrate":  # its epsilon is in the unit of the features
        assert result == pytest.approx(0)
    else:
        assert result == pytest.approx(score(name, values | {"features": large}), abs=1e-9)


@pytest.mark.parametrize("name", FEATURE_NAMES)
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_a_constant_column_is_harmless(name, constant, problem_of):
    values = values_of(name, problem_of(1))
    wider = np.concatenate([values["features"], np.full((len(values["features"]), 1), constant)], axis=1)
    result = score(name, values | {"features": wider})
    assert np.isfinite(result)
    if constant == 0.0 and name not in NAMES_THAT_COUNT_DIMENSIONS:
        assert result == pytest.approx(score(name, values), abs=1e-9)


# For these a dimension that is always zero has a meaning: the row means of parc and rsa, the average variance per
# dimension that shrinkage adds.
NAMES_THAT_COUNT_DIMENSIONS = ("parc", "rsa", "hscore", "energy")


@pytest.mark.parametrize("name", LABEL_NAMES)
def test_a_class_with_one_image(name, problem_of):
    values = values_of(name, problem_of(3))
    labels = values["labels"].copy()
    labels[0] = 4321
    assert np.isfinite(score(name, values | {"labels": labels}))


@pytest.mark.parametrize("name", LABEL_NAMES)
@pytest.mark.parametrize(("classes", "dimensions"), [(2, 30), (12, 3), (1000, 30)])
def test_two_labels_a_class_is_defined_or_named(name, classes, dimensions):
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.repeat(np.arange(classes), 2))
    signal = generator.normal(size=(classes, dimensions))[labels]
    outputs = {
        "features": (signal + generator.normal(size=(2 * classes, dimensions))).astype(np.float16),
        "logits": signal[:, :3],
        "probs": torch.from_numpy(signal[:, :3]).softmax(dim=1).numpy(),
        "reference_features": generator.normal(size=(2 * classes, 8)),
        "random_features": np.tanh(signal @ generator.normal(size=(dimensions, 8))),
        "labels": labels,
    }
    try:
        result = score(name, outputs)
    except SimilarityError as error:
        result, message = None, str(error)
    assert message.startswith(f"{name}: ") if result is None else np.isfinite(result)


@pytest.mark.parametrize("name", LABEL_NAMES)
def test_separation_beats_noise(name):
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 4
    for dimensions in (5, 300):
        scores = []
        for signal in (4.0, 0.0):
            centres = signal * generator.normal(size=(4, dimensions))
            features = centres[labels] + generator.normal(size=(60, dimensions))
            logits = features[:, :5]
            outputs = {
                "features": features,
                "logits": logits,
                "probs": np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
                # A random network keeps some of whatever structure there is, classes among it.
                "random_features": np.tanh(features @ generator.normal(size=(dimensions, 20)) / dimensions**0.5),
                "reference_features": generator.normal(size=(60, 8)),
                "labels": labels,
            }
            scores.append(score(name, outputs))
        assert scores[0] > scores[1]


def test_wrong_shapes_are_named(name, problem_of):
    values = values_of(name, problem_of(3))
    first, *others = OUTPUT_NAMES[name]
    with pytest.raises(SimilarityError, match=f"^{name}: .* shape"):
        score(name, values | {first: values[first][0]})
    for need in (first, *others):
        with pytest.raises(SimilarityError, match=f"^{name}: .*rows"):
            score(name, values | {need: values[need][1:]})


@pytest.mark.parametrize("name", LABEL_NAMES)
def test_wrong_labels_are_named(name, problem_of):
    values = values_of(name, problem_of(3))
    labels = values["labels"]
    with pytest.raises(SimilarityError, match=f"^{name}: "):
        score(name, values | {"labels": labels[:, None, None]})
    with pytest.raises(SimilarityError, match=f"^{name}: "):
        score(name, values | {"labels": np.array([str(label) for label in labels])})
    with pytest.raises(SimilarityError, match=f"^{name}: .*at least 2 classes, got 1"):
        score(name, values | {"labels": np.zeros(len(labels), dtype=int)})
    with pytest.raises(SimilarityError, match=rf"^{name}: .*at least \d labeled images, got 1"):
        score(name, {need: array[:1] for need, array in values.items()})


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_named(name, poison, problem_of):
    values = values_of(name, problem_of(3))
    for need in OUTPUT_NAMES[name]:
        broken = values[need].copy()
        broken[2, 1] = poison
        with pytest.raises(SimilarityError, match=f"^{name}: .* NaN or infinity in 1 of 60 rows, first in row 2"):
            score(name, values | {need: broken})


@pytest.mark.parametrize("name", FEATURE_NAMES)
def test_constant_features_are_named(name, problem_of):
    values = {need: array[:12] for need, array in values_of(name, problem_of(3)).items()}
    with pytest.raises(SimilarityError, match=f"^{name}: all 12 rows of features are equal"):
        score(name, values | {"features": np.full((12, 3), 0.1)})


def test_docstrings_say_what_users_need(name):
    text = inspect.getdoc(SIMILARITIES[name].function)
    for part in ("Args:", "Returns:", "higher is better", "Cost:", "Raises:", "Reference:", ">>>"):
        assert part in text


def test_every_metric_is_public(name):
    assert getattr(potstill.similarity, name) is SIMILARITIES[name].function
    assert name in potstill.similarity.__all__


@pytest.fixture(params=sorted(RANKERS))
def ranker(request):
    return RANKERS[request.param].function


def zoo_of(problem):
    """Four sources: the problem's own features, the other models' and noise."""
    noise = np.random.default_rng(5).normal(size=problem.features.shape)
    return {
        "own": problem.features,
        "other": problem.reference_features,
        "mixed": problem.random_features,
        "noise": noise,
    }


def test_rankers_ignore_names_and_order(ranker, problem):
    zoo = zoo_of(problem)
    expected = ranker(zoo, problem.labels)
    assert list(expected) == list(zoo)
    assert all(type(value) is float and np.isfinite(value) for value in expected.values())
    order = np.random.default_rng(1).permutation(len(problem.labels))
    classes = np.unique(problem.labels)
    renamed = np.random.default_rng(2).permutation(classes)[np.searchsorted(classes, problem.labels)]
    backwards = {name: features[order] for name, features in reversed(zoo.items())}
    assert ranker(backwards, renamed[order]) == pytest.approx(expected, abs=1e-8)


def test_rankers_treat_equal_sources_alike(ranker, problem_of):
    problem = problem_of(3)
    scores = ranker(zoo_of(problem) | {"copy": problem.features.copy()}, problem.labels)
    assert scores["copy"] == pytest.approx(scores["own"], abs=1e-9)


def test_rankers_put_signal_before_noise(ranker, problem_of):
    problem = problem_of(3)
    strong = 4 * np.eye(7)[np.unique(problem.labels, return_inverse=True)[1]]
    noise = np.random.default_rng(0).normal(size=(2, *strong.shape))
    scores = ranker({"noise": noise[0], "signal": strong + noise[1]}, problem.labels)
    assert scores["signal"] > scores["noise"]


def test_rankers_name_the_source_that_fails(ranker, problem_of):
    problem = problem_of(3)
    broken = problem.features.copy()
    broken[4, 1] = np.nan
    with pytest.raises(SimilarityError, match=r"'broken'.*NaN or infinity"):
        ranker({"fine": problem.features, "broken": broken}, problem.labels)
