import numpy as np
import pytest
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from potstill.errors import SimilarityError
from potstill.similarity import knn


def naive_knn(features, labels, k):
    """Votes with ties of votes shared; no ties of distance occur in random features."""
    total = 0.0
    for image in range(len(labels)):
        cosines = [
            (
                -np.inf
                if other == image
                else features[image] @ row / np.linalg.norm(features[image]) / np.linalg.norm(row)
            )
            for other, row in enumerate(features)
        ]
        nearest = np.argsort(cosines)[::-1][:k]
        names, votes = np.unique(labels[nearest], return_counts=True)
        winners = names[votes == votes.max()]
        total += (labels[image] in winners) / len(winners)
    return total / len(labels)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_equals_a_loop(problem, k):
    assert knn(problem.features, problem.labels, k=k) == pytest.approx(
        naive_knn(problem.features, problem.labels, k), abs=1e-12
    )


def test_equals_scikit_learn(problem):
    classifier = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
    reference = cross_val_score(classifier, problem.features, problem.labels, cv=LeaveOneOut()).mean()
    assert knn(problem.features, problem.labels) == pytest.approx(reference, abs=1e-12)


def test_more_images_than_one_block():
    generator = np.random.default_rng(0)
    labels = np.arange(1500) % 2
    features = generator.normal(size=(1500, 4)) + labels[:, None]
    classifier = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
    reference = (
        classifier.fit(features, labels).kneighbors(features, n_neighbors=2, return_distance=False)[:, 1] % 2 == labels
    ).mean()
    assert knn(features, labels) == pytest.approx(reference)


def test_the_image_itself_is_left_out_but_not_its_copy():
    features = np.random.default_rng(0).normal(size=(30, 8))
    labels = np.arange(30) % 3
    twice = np.concatenate([features, features])
    assert knn(twice, np.concatenate([labels, labels])) == 1.0
    assert knn(twice, np.concatenate([labels, (labels + 1) % 3])) == 0.0


def test_tied_neighbours_share_the_place():
    # Four equal images: each sees three tied others. Class 0 (three images) has 2/3 of the vote, class 1 loses.
    assert knn([[1.0, 0.0]] * 4 + [[0.0, 1.0]], [0, 0, 0, 1, 2]) == pytest.approx((3 + 0 + 0) / 5)
    # Two tied neighbours of two classes share the hit.
    features = [[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]]
    # Row 0 is between rows 1 and 2 (one of its class: 1/2); rows 1 and 2 are nearest to row 0 (hit, miss).
    assert knn(features, [0, 0, 1]) == pytest.approx((0.5 + 1 + 0) / 3)


@pytest.mark.parametrize("k", [0, 5])
def test_k_out_of_range(k):
    with pytest.raises(SimilarityError, match="k must be from 1 to 4"):
        knn(np.eye(5), [0, 0, 1, 1, 1], k=k)
