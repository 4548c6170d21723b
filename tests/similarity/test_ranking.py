import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from potstill.errors import SimilarityError, SourceError, UnknownNameError, UsageError
from potstill.similarity import SIMILARITIES, Metric, knn, leep, parc, rank_sources
from potstill.types import DenseLogits, SourceCost, SourceOutputs

CLASSES, IMAGES = 4, 60
IDS = tuple(f"train/{row:03d}.png" for row in range(IMAGES))
LABELS = np.arange(IMAGES) % CLASSES


def make_source(name, signal, *, dimensions=12, classifier=True, seed=0):
    """Outputs over twice as many images as are scored, in another order."""
    generator = np.random.default_rng(seed)
    ids = (*IDS, *(f"unlabeled/{row:03d}.png" for row in range(IMAGES)))
    labels = np.concatenate([LABELS, generator.integers(0, CLASSES, IMAGES)])
    features = signal * np.eye(CLASSES, dimensions)[labels] + generator.normal(size=(len(ids), dimensions))
    logits = 0.5 * features @ generator.normal(size=(dimensions, 9))
    order = generator.permutation(len(ids))
    features, logits = features[order], logits[order]
    maximum = logits.max(axis=1)
    dense = DenseLogits(
        (logits - maximum[:, None]).astype(np.float16),
        maximum.astype(np.float32),
        np.log(np.exp(logits).sum(axis=1)).astype(np.float32),
    )
    return SourceOutputs(
        source=name,
        image_ids=tuple(ids[row] for row in order),
        features=features.astype(np.float16),
        logits=dense if classifier else None,
        label_space="source",
        classes=None,
        cost=SourceCost(0, 0.0, None),
        key=name,
    )


@pytest.fixture
def zoo():
    return {name: make_source(name, signal) for name, signal in [("noise", 0.0), ("near", 5.0), ("fair", 2.0)]}


def test_best_first_with_the_metrics_own_numbers(zoo):
    ranking = rank_sources(zoo, IDS, LABELS, also=["knn", "leep"])
    assert [row.name for row in ranking.sources] == ["near", "fair", "noise"]
    assert (ranking.metric, ranking.scoring_images) == ("parc", IMAGES)
    for row in ranking.sources:
        source = zoo[row.name]
        features = source.features[source.rows(IDS)]
        assert list(row.scores) == ["parc", "knn", "leep"]
        assert row.score == row.scores["parc"].score == parc(features, LABELS)
        assert row.scores["knn"].score == knn(features, LABELS)
        assert row.scores["leep"].score == leep(source.logits.probs(source.rows(IDS)), LABELS)
        assert row.error is None
        assert row.seconds > 0


def test_every_metric_can_rank(zoo):
    for name in SIMILARITIES:
        ranking = rank_sources(zoo, IDS, LABELS, metric=name, interval_draws=0)
        assert set(ranking.scores()) == set(zoo)
        assert ranking.sources[-1].name == "noise" or name == "nce"


def test_failed_sources_come_last(zoo):
    zoo["broken"] = make_source("broken", 9.0)
    zoo["broken"].features[:] = np.nan
    zoo["broken"].logits.shifted[:] = 0
    ranking = rank_sources(zoo, IDS, LABELS, also=["leep"], errors={"absent": "no weights file"})
    assert [row.name for row in ranking.sources] == ["near", "fair", "noise", "absent", "broken"]
    absent, broken = ranking.sources[-2:]
    assert (absent.score, absent.error, absent.scores) == (None, "no weights file", {})
    assert broken.score is None
    assert "NaN or infinity" in broken.error == broken.scores["parc"].error
    assert broken.scores["leep"].score == pytest.approx(-math.log(CLASSES))  # other metrics still count
    assert set(ranking.scores()) == {"near", "fair", "noise"}


def test_source_without_classifier_fails_only_where_probs_are_needed(zoo):
    zoo["plain"] = make_source("plain", 3.0, classifier=False)
    row = next(row for row in rank_sources(zoo, IDS, LABELS, also=["nce"]).sources if row.name == "plain")
    assert row.score is not None
    assert row.scores["nce"].score is None
    assert "needs probs, but this source has no classifier" in row.scores["nce"].error


def test_equal_scores_are_sorted_by_name(zoo):
    same = dict.fromkeys(("c", "a", "b"), zoo["near"])
    assert [row.name for row in rank_sources(same, IDS, LABELS).sources] == ["a", "b", "c"]


def test_order_of_images_and_sources_changes_nothing(zoo):
    ranking = rank_sources(zoo, IDS, LABELS)
    backwards = rank_sources(dict(reversed(zoo.items())), IDS[::-1], torch.from_numpy(LABELS[::-1].copy()))
    assert backwards.scores() == pytest.approx(ranking.scores(), abs=1e-9)
    assert list(backwards.scores()) == list(ranking.scores())


def spread(features, labels):
    """A user's metric."""
    return float(np.std(features))


def nothing(features, labels):
    return float("nan")


def test_metrics_of_users(zoo):
    by_function = rank_sources(zoo, IDS, LABELS, metric=spread)
    assert by_function.scores()["near"] == pytest.approx(np.std(zoo["near"].features[zoo["near"].rows(IDS)]))
    assert by_function.metric.endswith(":spread")
    certain = Metric(lambda probs: float(probs.max()), needs=("probs",))
    assert 0 < rank_sources(zoo, IDS, LABELS, metric=certain).sources[0].score <= 1
    named = rank_sources(zoo, IDS, LABELS, metric="potstill.similarity:knn")
    assert named.metric == "potstill.similarity:knn"
    assert named.scores() == rank_sources(zoo, IDS, LABELS, metric=knn).scores()


def test_a_metric_that_returns_nan_is_a_recorded_failure(zoo):
    ranking = rank_sources(zoo, IDS, LABELS, metric=nothing)
    assert ranking.scores() == {}
    assert "returned nan" in ranking.sources[0].error


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("prac", "Did you mean 'parc'"),
        ("no_such_module:score", "Cannot import"),
        ("math:no_such_name", "Cannot import"),
        ("math:pi", "expected a function"),
    ],
)
def test_unknown_metrics(zoo, metric, message):
    with pytest.raises(UnknownNameError, match=message):
        rank_sources(zoo, IDS, LABELS, metric=metric)
    with pytest.raises(UnknownNameError, match=message):
        rank_sources(zoo, IDS, LABELS, also=[metric])


def test_two_functions_of_one_name(zoo):
    with pytest.raises(UsageError, match="Two metrics have the name"):
        rank_sources(zoo, IDS, LABELS, metric=lambda f, y: 0.0, also=[lambda f, y: 1.0])


def test_wrong_calls_are_named(zoo):
    with pytest.raises(UsageError, match="No source to rank"):
        rank_sources({}, IDS, LABELS)
    with pytest.raises(UsageError, match="one label for each of 60"):
        rank_sources(zoo, IDS, LABELS[1:])
    with pytest.raises(UsageError, match="60 labels for 59 different images"):
        rank_sources(zoo, (*IDS[:-1], IDS[0]), LABELS)
    with pytest.raises(SourceError, match=r"'noise' lack scoring image 'train/xyz.png'"):
        rank_sources(zoo, (*IDS[:-1], "train/xyz.png"), LABELS)
    with pytest.raises(SimilarityError, match="at least 2 classes"):
        rank_sources(zoo, IDS, np.zeros(IMAGES, dtype=int))


def test_intervals_are_repeatable_and_can_be_switched_off(zoo):
    ranking = rank_sources(zoo, IDS, LABELS, also=["knn"])
    for row in ranking.sources:
        low, high = row.scores["parc"].ci95
        assert low < row.score < high
        assert row.scores["knn"].ci95 is None
    again = rank_sources(zoo, IDS, LABELS)
    assert [row.scores["parc"].ci95 for row in again.sources] == [row.scores["parc"].ci95 for row in ranking.sources]
    off = rank_sources(zoo, IDS, LABELS, interval_draws=0)
    assert all(row.scores["parc"].ci95 is None for row in off.sources)


def test_no_interval_where_nothing_can_be_left_out(zoo):
    # Two images of each class: every subsample would be the whole scoring set.
    ranking = rank_sources(zoo, IDS[: 2 * CLASSES], LABELS[: 2 * CLASSES])
    assert all(row.scores["parc"].ci95 is None for row in ranking.sources)


@pytest.mark.parametrize("name", ["parc", "knn", "cka"])
def test_width_of_intervals_is_the_spread_over_scoring_sets(name):
    # The interval of one scoring set against the true spread over many of them.
    generator = np.random.default_rng(0)
    scores, half_widths = [], []
    for _ in range(60):
        features = 1.5 * np.eye(CLASSES, 8)[LABELS] + generator.normal(size=(IMAGES, 8))
        source = SourceOutputs("s", IDS, features, None, "source", None, SourceCost(0, 0.0, None), "")
        row = rank_sources({"s": source}, IDS, LABELS, metric=name).sources[0]
        scores.append(row.score)
        half_widths.append((row.scores[name].ci95[1] - row.scores[name].ci95[0]) / 2)
    assert np.mean(half_widths) == pytest.approx(1.96 * np.std(scores), rel=0.4)


def test_importing_potstill_does_not_import_the_metrics():
    code = "import sys, potstill; sys.exit('potstill.similarity' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
