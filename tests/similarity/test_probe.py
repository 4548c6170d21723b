import numpy as np
import pytest

from potstill.errors import SimilarityError
from potstill.probes import PENALTIES
from potstill.similarity import probe


def naive_probe(features, labels):
    """Leave one image out and solve the normal equations of ridge regression, for every penalty.

    The scale is that of all images, as the closed form has it.
    """
    classes, index = np.unique(labels, return_inverse=True)
    one_hot = np.eye(len(classes))[index]
    scale = np.sqrt(((features - features.mean(axis=0)) ** 2).sum(axis=1).mean())
    alone = np.bincount(index)[index] == 1
    best = None
    for penalty in PENALTIES:
        held_out = np.empty_like(one_hot)
        for row in range(len(labels)):
            rest = np.arange(len(labels)) != row
            mean, shares = features[rest].mean(axis=0), one_hot[rest].mean(axis=0)
            centred = (features[rest] - mean) / scale
            normal = centred.T @ centred + penalty * np.eye(centred.shape[1])
            coefficients = np.linalg.solve(normal, centred.T @ (one_hot[rest] - shares))
            held_out[row] = shares + (features[row] - mean) / scale @ coefficients
        error = np.square((held_out - one_hot)[~alone]).sum()
        if best is None or error <= best[0]:
            best = error, held_out
    hits = (best[1].argmax(axis=1) == index) & ~alone
    return hits.mean()


def test_equals_fitting_anew_for_every_image(problem):
    assert probe(problem.features, problem.labels) == pytest.approx(naive_probe(problem.features, problem.labels))


def test_rotation_scale_and_shift_change_nothing(problem):
    expected = probe(problem.features, problem.labels)
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.normal(size=(problem.features.shape[1],) * 2))[0]
    moved = 3 * problem.features @ rotation + generator.normal(size=problem.features.shape[1])
    assert probe(moved, problem.labels) == pytest.approx(expected)


def test_by_hand():
    # Far apart on a line: every image is on its side whoever is left out.
    assert probe([[-3.0], [-2.0], [2.0], [3.0]], [0, 0, 1, 1]) == 1.0
    # An image alone in its class cannot be found.
    assert probe([[-3.0], [-2.0], [2.0], [3.0], [50.0]], [0, 0, 1, 1, 2]) <= 0.8


def test_noise_is_at_chance():
    generator = np.random.default_rng(0)
    scores = [probe(generator.normal(size=(60, 200)), np.arange(60) % 3) for _ in range(20)]
    assert np.mean(scores) < 0.4  # a probe that had seen the image would be near 1


def test_two_images_are_too_few():
    with pytest.raises(SimilarityError, match="probe: needs at least 3 labeled images, got 2"):
        probe([[0.0], [1.0]], [0, 1])
