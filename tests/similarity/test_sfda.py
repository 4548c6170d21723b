import numpy as np
import pytest

from potstill.similarity import sfda


def naive_discriminant(features, labels, rank, shrinkage=None):
    """Published computation with D x D matrices and eigenvectors, image by image; ours in the unit of shrinkage."""
    names = np.unique(labels)
    total = np.trace(np.cov(features, rowvar=False, ddof=0))
    means = {name: features[labels == name].mean(axis=0) for name in names}
    within = sum(np.outer(row - means[name], row - means[name]) for row, name in zip(features, labels, strict=True))
    within = within / len(features)
    if shrinkage is None:
        shrinkage = np.exp(-5 * np.linalg.eigvalsh(within).max() / total)
    spherical = max(shrinkage * np.trace(within), 1e-4 * total) / rank
    inverse = np.linalg.inv((1 - shrinkage) * within + spherical * np.eye(len(within)))
    rows = []
    for row in features:
        logits = []
        for name in names:
            away = row - means[name]
            logits.append(np.log((labels == name).mean()) - away @ inverse @ away / 2)
        probs = np.exp(np.array(logits) - max(logits))
        rows.append(probs / probs.sum())
    return np.array(rows), means, shrinkage


def naive_sfda(features, labels):
    names = list(np.unique(labels))
    rank = np.linalg.matrix_rank(features - features.mean(axis=0))
    probs, means, shrinkage = naive_discriminant(features, labels, rank)
    mixed = []
    for row, label, prob in zip(features, labels, probs, strict=True):
        confidence = np.exp(prob[names.index(label)]) / np.exp(prob).sum()
        others = np.mean([means[name] for name in names if name != label], axis=0)
        mixed.append(confidence * row + (1 - confidence) * others)
    probs, _, _ = naive_discriminant(np.array(mixed), labels, rank, shrinkage)
    return np.mean([prob[names.index(label)] for label, prob in zip(labels, probs, strict=True)])


def test_equals_the_formula_image_by_image(problem):
    reference = naive_sfda(problem.features, problem.labels)
    assert sfda(problem.features, problem.labels) == pytest.approx(reference, abs=1e-8, rel=1e-8)


def test_scale_shift_and_rotation_do_not_matter(problem):
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.normal(size=(problem.features.shape[1],) * 2))[0]
    score = sfda(problem.features, problem.labels)
    assert sfda(problem.features @ rotation * 7e-3 + 2, problem.labels) == pytest.approx(score, abs=1e-9)


def test_by_hand_in_one_dimension():
    # Images at -2, -1 and 1, 2: S_W = 1/4, S_T = 5/2, and in one dimension shrinkage changes nothing.
    # log-odds of the own class: 2 |x| 1.5 / (1/4) = 12 |x|.
    features, labels = np.array([[-2.0], [-1.0], [1.0], [2.0]]), [0, 0, 1, 1]
    confidence = [1 / (1 + np.exp(-np.tanh(12 * x / 2))) for x in (1.0, 2.0)]  # softmax over (p, 1 - p)
    mixed = [c * x - (1 - c) * 1.5 for c, x in zip(confidence, (1.0, 2.0), strict=True)]
    mean, variance = np.mean(mixed), np.var(mixed)
    expected = np.mean([1 / (1 + np.exp(-2 * x * mean / variance)) for x in mixed])
    assert sfda(features, labels) == pytest.approx(expected, abs=1e-12)


def test_mixing_makes_the_task_harder():
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 4
    features = generator.normal(size=(200, 6)) + 1.5 * generator.normal(size=(4, 6))[labels]
    plain, _, _ = naive_discriminant(features, labels, 6)
    assert sfda(features, labels) < plain[np.arange(200), labels].mean()


def test_identical_images_within_classes():
    labels = np.arange(12) % 3
    assert sfda(np.eye(3)[labels], labels) == pytest.approx(1.0, abs=1e-6)
    # Classes 0 and 1 show the same image, also after mixing: each gets one half.
    assert sfda(np.eye(3)[[0, 0, 1]][labels], labels) == pytest.approx(2 / 3, abs=1e-3)
