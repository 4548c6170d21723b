import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge

from potstill.errors import DataError
from potstill.probes import PENALTIES, fit_probe, fit_temperature, held_out_logits, out_of_fold_probs, probe_logits
from potstill.types import Probe

SHAPES = [(40, 6, 3), (30, 100, 4), (25, 25, 5), (12, 3, 6)]  # images, dimensions, classes


def make_problem(shape, seed=0, signal=1.5):
    images, dimensions, classes = shape
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    features = (
        generator.normal(size=(images, dimensions)) + signal * generator.normal(size=(classes, dimensions))[labels]
    )
    return 3 * features + 10, labels, classes


def squared_length(features):
    return ((features - features.mean(axis=0)) ** 2).sum(axis=1).mean()


def ridge(features, labels, classes, penalty):
    return Ridge(alpha=penalty).fit(features, np.eye(classes)[labels])


def proportional(logits, reference):
    """The factor between two arrays; fails unless there is one."""
    factor = np.vdot(logits, reference) / np.vdot(reference, reference)
    np.testing.assert_allclose(logits, factor * reference, atol=1e-9 * np.abs(logits).max())
    return factor


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("penalty", [0.01, 0.5, 20.0])
def test_is_ridge_on_one_hot_labels_up_to_temperature(shape, penalty):
    features, labels, classes = make_problem(shape)
    probe = fit_probe(features, labels, classes, penalty=penalty)
    reference = ridge(features, labels, classes, penalty * squared_length(features))
    new = make_problem(shape, seed=1)[0]
    assert proportional(probe_logits(probe, new), reference.predict(new)) > 0
    assert probe.penalty == penalty


def refit_without(features, labels, classes, penalty, groups):
    """Held-out predictions by fitting once for every group, with the scale of all images."""
    held_out = np.zeros((len(labels), classes))
    for group in np.unique(groups):
        rest = groups != group
        fitted = ridge(features[rest], labels[rest], classes, penalty * squared_length(features))
        held_out[~rest] = fitted.predict(features[~rest])
    return held_out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("grouped", [False, True])
def test_penalty_and_temperature_come_from_exact_held_out_predictions(shape, grouped):
    features, labels, classes = make_problem(shape)
    groups = np.random.default_rng(0).integers(0, len(labels) // 2, len(labels)) if grouped else np.arange(len(labels))
    probe = fit_probe(features, labels, classes, groups=groups if grouped else None)
    judged = np.array([np.any((labels == labels[i]) & (groups != groups[i])) for i in range(len(labels))])
    errors = {
        penalty: np.square(refit_without(features, labels, classes, penalty, groups) - np.eye(classes)[labels])[judged]
        for penalty in PENALTIES
    }
    best = min(PENALTIES, key=lambda penalty: errors[penalty].sum())
    assert probe.penalty == best
    # Calibration: the temperature minimises held-out cross-entropy plus the stated prior.
    held_out = refit_without(features, labels, classes, best, groups)[judged]
    full = ridge(features, labels, classes, best * squared_length(features)).predict(features)
    temperature = 1 / proportional(probe_logits(probe, features), full)
    grid = np.exp(np.linspace(-0.05, 0.05, 21)) * temperature
    losses = [
        -log_softmax(held_out / at, axis=1)[np.arange(len(held_out)), labels[judged]].sum() + 2 * np.log(at / 0.15) ** 2
        for at in grid
    ]
    assert np.argmin(losses) == 10


def test_probabilities_are_calibrated():
    features, labels, classes = make_problem((4000, 20, 4), signal=0.5)
    probe = fit_probe(features[:200], labels[:200], classes)
    assert 0.8 < fit_temperature(probe_logits(probe, features[200:]), labels[200:]) < 1.25


@pytest.mark.parametrize(("labels_per_class", "at_least"), [(1, 0.58), (5, 0.78), (10, 0.85)])
def test_accuracy_on_digits(labels_per_class, at_least):
    # What was measured, less 3 points or more; standardising each dimension falls below all of these.
    digits = load_digits()
    accuracies = []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        train = np.concatenate(
            [generator.permutation(np.flatnonzero(digits.target == c))[:labels_per_class] for c in range(10)]
        )
        test = np.setdiff1d(np.arange(len(digits.target)), train)
        probe = fit_probe(digits.data[train], digits.target[train], 10)
        accuracies.append((probe_logits(probe, digits.data[test]).argmax(axis=1) == digits.target[test]).mean())
    assert np.mean(accuracies) > at_least


def test_scale_and_shift_of_features_do_not_matter():
    features, labels, classes = make_problem((30, 100, 4))
    logits = probe_logits(fit_probe(features, labels, classes), features)
    moved = 1e-4 * features - 7
    np.testing.assert_allclose(probe_logits(fit_probe(moved, labels, classes), moved), logits, atol=1e-6)


def test_order_of_images_does_not_matter():
    features, labels, classes = make_problem((30, 100, 4))
    order = np.random.default_rng(0).permutation(30)
    one, other = fit_probe(features, labels, classes), fit_probe(features[order], labels[order], classes)
    np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-6)


def test_absent_classes_get_a_very_low_logit():
    features, labels, _ = make_problem((30, 10, 3))
    probe = fit_probe(features, labels * 2, 7)  # 0, 2, 4 of 0..6
    logits = probe_logits(probe, features)
    assert np.isfinite(logits).all()
    probs = softmax(logits, axis=1)
    assert probs[:, [1, 3, 5, 6]].max() == 0
    np.testing.assert_allclose(probe_logits(fit_probe(features, labels, 3), features), logits[:, [0, 2, 4]], atol=1e-9)
    assert np.isfinite(logits.astype(np.float16)).all()


def test_one_image_a_class():
    features, labels, classes = make_problem((5, 50, 5))
    probs = softmax(probe_logits(fit_probe(features, labels, classes), features), axis=1)
    assert (probs.argmax(axis=1) == labels).all()
    assert 0.3 < probs.max(axis=1).min() < 0.999


def test_only_one_class_is_seen():
    probs = softmax(probe_logits(fit_probe(np.eye(4), np.full(4, 1), 3), np.eye(4)), axis=1)
    np.testing.assert_allclose(probs, np.tile([0.0, 1.0, 0.0], (4, 1)))


def test_copies_in_a_group_do_not_make_the_probe_overconfident():
    features, labels, classes = make_problem((40, 60, 4), signal=0.3)
    twice, labels_twice, groups = np.tile(features, (2, 1)), np.tile(labels, 2), np.tile(np.arange(40), 2)
    blind = fit_probe(twice, labels_twice, classes)
    aware = fit_probe(twice, labels_twice, classes, groups=groups)
    new, new_labels, _ = make_problem((400, 60, 4), seed=0, signal=0.3)
    rows = np.arange(len(new))
    losses = [-log_softmax(probe_logits(probe, new), axis=1)[rows, new_labels].mean() for probe in (blind, aware)]
    assert losses[1] < losses[0]


def test_float16_features():
    features, labels, classes = make_problem((30, 20, 3))
    half = features.astype(np.float16)
    exact = fit_probe(half.astype(np.float64), labels, classes)
    np.testing.assert_array_equal(fit_probe(half, labels, classes).coefficients, exact.coefficients)


def test_out_of_fold_equals_fitting_each_fold():
    features, labels, classes = make_problem((30, 20, 3))
    probs = out_of_fold_probs(features, labels, classes, folds=30)  # leave one out: the folds are known
    for image in range(30):
        rest = np.arange(30) != image
        probe = fit_probe(features[rest], labels[rest], classes)
        np.testing.assert_allclose(probs[image], softmax(probe_logits(probe, features[[image]]), axis=1)[0], atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_held_out_logits_equal_refitting_without_each_image(shape):
    features, labels, classes = make_problem(shape)
    probe = fit_probe(features, labels, classes)
    reference = refit_without(features, labels, classes, probe.penalty, np.arange(len(labels)))
    full = ridge(features, labels, classes, probe.penalty * squared_length(features)).predict(features)
    temperature = 1 / proportional(probe_logits(probe, features), full)
    np.testing.assert_allclose(held_out_logits(features, labels, classes), reference / temperature, atol=1e-8)


def test_held_out_logits_do_not_depend_on_order_scale_or_shift():
    features, labels, classes = make_problem((30, 100, 4))
    logits, order = held_out_logits(features, labels, classes), np.random.default_rng(0).permutation(30)
    np.testing.assert_allclose(held_out_logits(features[order], labels[order], classes), logits[order], atol=1e-10)
    np.testing.assert_allclose(held_out_logits(1e-3 * features + 10, labels, classes), logits, atol=1e-8)


def test_held_out_logits_of_an_absent_class_are_very_low():
    features, labels, _ = make_problem((30, 10, 3))
    logits = held_out_logits(features, labels * 2, 7)  # 0, 2, 4 of 0..6
    assert (logits[:, [1, 3, 5, 6]] == -1e4).all()
    np.testing.assert_allclose(logits[:, [0, 2, 4]], held_out_logits(features, labels, 3), atol=1e-9)


@pytest.mark.parametrize("unit", [1e-200, 1e-30, 1e-14])
def test_a_constant_column_does_not_drown_small_features(unit):
    features, labels, classes = make_problem((30, 10, 3))
    beside = np.concatenate([np.full((30, 1), 0.1), features * unit], axis=1)
    np.testing.assert_allclose(
        held_out_logits(beside, labels, classes), held_out_logits(features, labels, classes), atol=1e-9
    )


def test_out_of_fold_probs_do_not_leak():
    # Noise has nothing to find, yet a probe that saw the images would fit them all.
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(200, 300)), np.arange(200) % 4
    fitted = probe_logits(fit_probe(features, labels, 4, penalty=0.01), features)
    assert (fitted.argmax(axis=1) == labels).mean() > 0.95
    probs = out_of_fold_probs(features, labels, 4)
    np.testing.assert_allclose(probs.sum(axis=1), 1)
    assert (probs.argmax(axis=1) == labels).mean() < 0.35


def test_groups_stay_together():
    # Copies with random labels: only a probe that saw a copy could know the label.
    generator = np.random.default_rng(0)
    features = np.repeat(generator.normal(size=(60, 100)), 3, axis=0)
    labels, groups = np.repeat(generator.integers(0, 4, 60), 3), np.repeat(np.arange(60), 3)
    apart = out_of_fold_probs(features, labels, 4)
    together = out_of_fold_probs(features, labels, 4, groups=groups)
    assert (apart.argmax(axis=1) == labels).mean() > 0.9
    assert (together.argmax(axis=1) == labels).mean() < 0.4


def test_folds_are_stratified_and_repeatable():
    features, labels, classes = make_problem((30, 20, 3))
    one, again = (out_of_fold_probs(features, labels, classes, seed=1) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, out_of_fold_probs(features, labels, classes, seed=2))
    # Two images of a class with 2 folds: stratified folds always leave one of them to learn from.
    two_each = np.repeat(np.arange(5), 2)
    probs = out_of_fold_probs(np.random.default_rng(0).normal(size=(10, 4)), two_each, 5, folds=2)
    assert probs[np.arange(10), two_each].min() > 0


@pytest.mark.parametrize("factor", [0.25, 1.0, 6.0])
def test_temperature_is_found(factor):
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(20_000, 5))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)  # drawn from softmax(logits)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.03)


def test_temperature_stays_in_its_range():
    assert fit_temperature(np.eye(3), [0, 1, 2]) == 0.01
    assert fit_temperature(np.eye(3), [1, 2, 0]) == 100


def test_temperature_is_exact():
    # Three of four right with logits 2 and 0: softmax(2 / T) = 3/4, so T = 2 / log 3.
    assert fit_temperature([[2.0, 0.0]] * 4, [0, 0, 0, 1]) == pytest.approx(2 / np.log(3), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_probe(np.eye(3)[0], [0], 2), "Expected features of shape"),
        (lambda: fit_probe(np.eye(3), [0, 1], 2), "Expected 3 integer labels"),
        (lambda: fit_probe(np.eye(3), [0.0, 1.0, 1.0], 2), "Expected 3 integer labels"),
        (lambda: fit_probe(np.eye(3), [0, 1, 2], 2), r"labels in 0\.\.1, got 0\.\.2"),
        (lambda: fit_probe(np.eye(3), [0, -1, 1], 2), "got -1"),
        (lambda: fit_probe(np.diag([1, np.nan, 1]), [0, 1, 1], 2), "1 of 3 rows of features are not finite"),
        (lambda: fit_probe(np.full((3, 2), 0.1), [0, 1, 1], 2), "All 3 rows of features are equal"),
        (lambda: fit_probe(np.eye(3), [0, 1, 1], 2, penalty=0.0), "penalty > 0"),
        (lambda: fit_probe(np.eye(3), [0, 1, 1], 2, groups=[0, 1]), "one group for each of 3"),
        (lambda: probe_logits(Probe(np.eye(3), np.zeros(3), 1.0), np.eye(2)), "fitted on 3 dimensions, got 2"),
        (lambda: out_of_fold_probs(np.eye(3), [0, 1, 1], 2, folds=4), "folds must be from 2 to 3"),
        (lambda: out_of_fold_probs(np.eye(3), [0, 1, 1], 2, folds=1), "folds must be from 2 to 3"),
        (lambda: fit_temperature(np.eye(3), [0, 1, 5]), r"got 0\.\.5"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(DataError, match=message):
        call()
