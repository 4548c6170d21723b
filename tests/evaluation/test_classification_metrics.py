"""The figures of merit against scikit-learn and against values worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
)
from sklearn.metrics import (
    confusion_matrix as sklearn_confusion_matrix,
)

from potstill.errors import DataError
from potstill.evaluation import classification_metrics, confusion_matrix, per_class_recall


def random_case(seed, images=200, classes=7, absent=()):
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(images, classes))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    allowed = [label for label in range(classes) if label not in absent]
    return probs, generator.choice(allowed, size=images)


def naive_ece(probs, labels, bins=15):
    error = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        rows = [
            row for row, values in enumerate(probs) if low < values.max() <= high or (index == 0 and values.max() == 0)
        ]
        if rows:
            accuracy = np.mean([probs[row].argmax() == labels[row] for row in rows])
            confidence = np.mean([probs[row].max() for row in rows])
            error += len(rows) / len(labels) * abs(accuracy - confidence)
    return error


@pytest.mark.parametrize("absent", [(), (0,), (2, 6)])
def test_figures_equal_scikit_learn(absent):
    probs, labels = random_case(1, absent=absent)
    predicted = probs.argmax(axis=1)
    # scikit-learn warns of predicted classes without labels, so the reference is told which classes count.
    present = np.unique(labels)
    recalls = [np.mean(predicted[labels == label] == label) for label in present]
    figures = classification_metrics(probs, labels)
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, predicted), abs=1e-12)
    reference = f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert figures["macro_f1"] == pytest.approx(reference, abs=1e-12)
    assert figures["balanced_accuracy"] == pytest.approx(np.mean(recalls), abs=1e-12)
    if not absent:
        assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted), abs=1e-12)
    assert figures["nll"] == pytest.approx(log_loss(labels, probs, labels=np.arange(7)), abs=1e-9)
    assert figures["ece"] == pytest.approx(naive_ece(probs, labels), abs=1e-12)


def test_confusion_matrix_equals_scikit_learn():
    probs, labels = random_case(2, absent=(3,))
    reference = sklearn_confusion_matrix(labels, probs.argmax(axis=1), labels=np.arange(7))
    np.testing.assert_array_equal(confusion_matrix(probs, labels), reference)


def test_per_class_recall_says_none_for_a_class_without_images():
    probs = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    assert per_class_recall(probs, np.array([0, 0, 0])) == (2 / 3, None, None)


def test_calibration_error_by_hand():
    # Confidences 0.6 (right), 0.6 (wrong) share a bin: |0.5 - 0.6|. Confidence 0.95 (right): |1 - 0.95|.
    probs = np.array([[0.6, 0.4], [0.6, 0.4], [0.05, 0.95]])
    assert classification_metrics(probs, np.array([0, 1, 1]))["ece"] == pytest.approx((2 * 0.1 + 0.05) / 3)


def test_a_confident_mistake_has_a_finite_nll():
    figures = classification_metrics(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1]))
    assert figures["nll"] == pytest.approx(23 * np.log(2))
    assert figures["accuracy"] == figures["macro_f1"] == figures["balanced_accuracy"] == 0.0


def test_figures_do_not_depend_on_image_order_or_class_names():
    probs, labels = random_case(3)
    generator = np.random.default_rng(0)
    rows, classes = generator.permutation(len(labels)), generator.permutation(7)
    figures = classification_metrics(probs, labels)
    shuffled = classification_metrics(probs[rows], labels[rows])
    renamed = classification_metrics(probs[:, classes], np.argsort(classes)[labels])
    assert shuffled == pytest.approx(figures, abs=1e-12)
    assert renamed == pytest.approx(figures, abs=1e-12)


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, dtype=int), "N > 0"),
        (np.full((2, 2), 0.5), np.array([0]), "one label for each image"),
        (np.full((2, 2), 0.5), np.array([0, 2]), r"labels in 0\.\.1"),
        (np.full((2, 2), 0.5), np.array([0, -1]), "images without a label"),
        (np.full((2, 2), 0.5), np.array([0.0, 1.0]), "integer labels"),
        (np.array([[0.5, 0.5], [2.0, 3.0]]), np.array([0, 1]), "row 1 .* softmax"),
        (np.array([[np.nan, 1.0]]), np.array([0]), "row 0"),
        (np.array([[-0.5, 1.5]]), np.array([0]), "row 0"),
    ],
)
def test_wrong_input_is_refused(probs, labels, message):
    with pytest.raises(DataError, match=message):
        classification_metrics(probs, labels)
