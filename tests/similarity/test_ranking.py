import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from potstill.errors import SimilarityError, SourceError, UnknownNameError, UsageError
from potstill.similarity import (
    BASELINES,
    RANKERS,
    SIMILARITIES,
    Given,
    Metric,
    Ranker,
    knn,
    leep,
    parc,
    rank_sources,
)
from potstill.types import DenseLogits, SourceCost, SourceOutputs, TopKLogits

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
    ranking = rank_sources(zoo, IDS, LABELS, metric="parc", also=["knn", "leep"])
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
    reference = np.random.default_rng(3).normal(size=(IMAGES, 5))
    given = Given(reference_features=reference, random_features=dict.fromkeys(zoo, np.tanh(reference)))
    for name in set(SIMILARITIES) - {"rsa", "kite"}:
        ranking = rank_sources(zoo, IDS, LABELS, metric=name, given=given, draws=0, permutations=0)
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


def test_source_of_very_many_classes_fails_only_where_all_their_probs_are_needed(zoo):
    dense = zoo["near"].logits
    column = np.zeros(len(dense.maximum), dtype=np.float32)
    top = TopKLogits(dense.shifted[:, :4], dense.shifted[:, :4], column, column[:, None], column, column, 5000)
    zoo["many"] = replace(zoo["near"], logits=top)
    row = next(row for row in rank_sources(zoo, IDS, LABELS, also=["leep"]).sources if row.name == "many")
    assert row.score is not None
    assert row.scores["leep"].score is None
    assert "so many classes that only the likeliest of an image are kept" in row.scores["leep"].error


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


def test_intervals_and_ranks_are_repeatable_and_can_be_switched_off(zoo):
    ranking = rank_sources(zoo, IDS, LABELS, metric="parc", also=["knn"])
    assert (ranking.resamples, ranking.permutations) == (200, 99)
    for row in ranking.sources:
        for score in row.scores.values():
            assert score.ci95[0] <= score.score <= score.ci95[1]
    assert rank_sources(zoo, IDS, LABELS, metric="parc", also=["knn"]) == replace(
        ranking, sources=tuple(replace(row, seconds=pytest.approx(row.seconds, abs=9)) for row in ranking.sources)
    )
    off = rank_sources(zoo, IDS, LABELS, draws=0, permutations=0)
    assert (off.resamples, off.permutations, off.decided, off.related) == (0, 0, None, None)
    for row in off.sources:
        assert all(score.ci95 is None for score in row.scores.values())
        assert (row.rank_probabilities, row.p_value) == (None, None)


def test_a_clear_winner_is_decided_and_a_twin_is_not(zoo):
    clear = rank_sources(zoo, IDS, LABELS, metric="parc")
    assert clear.decided
    assert clear.related
    assert clear.tied_with_first == ()
    assert clear.sources[0].rank_probabilities[0] >= 0.95
    assert sum(clear.sources[1].rank_probabilities) == pytest.approx(1)
    zoo["twin"] = make_source("twin", 5.0, seed=1)
    unclear = rank_sources(zoo, IDS, LABELS, metric="parc")
    assert unclear.decided is False
    assert unclear.tied_with_first == tuple({"near", "twin"} - {unclear.sources[0].name})


def test_unrelated_sources_are_called_so():
    noise = {f"noise-{seed}": make_source(f"noise-{seed}", 0.0, seed=seed) for seed in range(6)}
    assert rank_sources(noise, IDS, LABELS, metric="parc").related is False


@pytest.mark.parametrize("name", ["parc", "knn", "hscore", "leep"])
def test_a_related_source_is_found_by_every_kind_of_metric(zoo, name):
    ranking = rank_sources(zoo, IDS, LABELS, metric=name)
    chances = {row.name: row.p_value for row in ranking.sources}
    assert chances["near"] == 1 / (1 + ranking.permutations)
    assert chances["noise"] > 0.05
    assert ranking.related


def test_two_labels_a_class_decide_nothing(zoo):
    ranking = rank_sources(zoo, IDS[: 2 * CLASSES], LABELS[: 2 * CLASSES], metric="knn", also=["parc"])
    assert ranking.resamples == 0
    assert ranking.decided is None
    for row in ranking.sources:
        assert row.rank_probabilities is None
        assert all(score.ci95 is None for score in row.scores.values())
    assert ranking.permutations == 99  # whether anything is related at all can still be asked


def test_baselines_stand_beside_every_ranking(zoo):
    sizes = {"noise": 3_000, "near": 1_000, "fair": 2_000}
    zoo = {name: replace(each, cost=SourceCost(0, 0.0, sizes[name], depth=7)) for name, each in zoo.items()}
    given = Given(stated_accuracy={"near": 0.9})
    ranking = rank_sources(zoo, IDS, LABELS, metric="parc", given=given)
    assert {row.name: dict(row.baselines) for row in ranking.sources} == {
        "near": {"params": 1_000, "depth": 7, "stated-accuracy": 0.9},
        "fair": {"params": 2_000, "depth": 7},
        "noise": {"params": 3_000, "depth": 7},
    }
    assert ranking.agreement["parc"]["params"] == -1
    assert ranking.agreement["parc"]["depth"] is None  # says the same of all
    by_size = rank_sources(zoo, IDS, LABELS, metric="params")
    assert [row.name for row in by_size.sources] == ["noise", "fair", "near"]
    assert by_size.sources[0].scores["params"].ci95 is None
    stated = rank_sources(zoo, IDS, LABELS, metric="stated-accuracy", given=given)
    assert "needs stated_accuracy" in stated.sources[-1].error


def test_metrics_with_further_needs(zoo):
    reference = np.eye(CLASSES)[LABELS] + 0.1 * np.random.default_rng(3).normal(size=(IMAGES, CLASSES))
    without = rank_sources(zoo, IDS, LABELS, metric="rsa")
    assert "needs reference_features" in without.sources[0].error
    ranking = rank_sources(zoo, IDS, LABELS, metric="rsa", given=Given(reference_features=reference))
    assert [row.name for row in ranking.sources] == ["near", "fair", "noise"]
    assert ranking.sources[0].scores["rsa"].ci95 is not None


@pytest.mark.parametrize("name", sorted(RANKERS))
def test_rankers_rank_and_leave_out_who_fails(zoo, name):
    zoo["broken"] = make_source("broken", 9.0)
    zoo["broken"].features[:] = np.nan
    ranking = rank_sources(zoo, IDS, LABELS, metric=name, draws=4)
    assert ranking.related is None  # scores relative to other sources say nothing about relatedness
    assert ranking.sources[0].name == "near"
    assert "NaN" in ranking.sources[-1].error
    assert ranking.resamples == 8
    assert sum(ranking.sources[0].rank_probabilities) == pytest.approx(1)


def test_progress_reaches_its_total(zoo):
    seen = []
    rank_sources(zoo, IDS, LABELS, metric="parc", also=["knn"], progress=lambda *state: seen.append(state))
    task, done, total = seen[-1]
    assert task == "similarity"
    assert done == total == len(seen)


def test_importing_potstill_does_not_import_the_metrics():
    code = "import sys, potstill; sys.exit('potstill.similarity' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def fussy(features, labels):
    """A user's metric that wants more than 30 images."""
    if len(labels) < 40:
        raise ValueError("too few images")
    return np.array(features.std())


def broken(features, labels):
    raise RuntimeError("no such thing")


def test_what_a_users_function_raises_is_the_failure_of_a_source(zoo):
    ranking = rank_sources(zoo, IDS, LABELS, metric=fussy, also=[broken])
    for row in ranking.sources:
        assert row.score is not None
        assert row.scores[ranking.metric].ci95 is None  # not defined on halves
        assert row.rank_probabilities is None
        (failed,) = [score for name, score in row.scores.items() if name != ranking.metric]
        assert "RuntimeError: no such thing" in failed.error
    assert ranking.resamples > 0


def test_a_ranker_that_forgets_a_source_fails(zoo):
    forgetful = Ranker(lambda features, labels: {"near": 1.0})
    ranking = rank_sources(zoo, IDS, LABELS, metric=forgetful)
    assert ranking.scores() == {}
    assert "for the sources ['fair', 'near', 'noise']" in ranking.sources[0].error
    with pytest.raises(ValueError, match="one thing of each source"):
        Ranker(dict, needs=("features", "probs", "labels"))


def test_a_registered_metric_keeps_its_needs_by_whatever_name(zoo):
    by_path = rank_sources(zoo, IDS, LABELS, metric="potstill.similarity:leep")
    assert by_path.scores() == rank_sources(zoo, IDS, LABELS, metric="leep").scores()
    sizes = {name: replace(each, cost=SourceCost(0, 0.0, 9, depth=7)) for name, each in zoo.items()}
    ranking = rank_sources(sizes, IDS, LABELS, metric=BASELINES["params"], also=[BASELINES["depth"], "parc"])
    assert list(ranking.sources[0].scores) == ["params", "depth", "parc"]
    assert ranking.sources[0].scores["parc"].ci95 is not None


def test_a_perfect_accuracy_has_no_interval(zoo):
    zoo["perfect"] = make_source("perfect", 50.0)
    scores = {row.name: row.scores["knn"] for row in rank_sources(zoo, IDS, LABELS, metric="knn").sources}
    assert scores["perfect"].score == 1
    assert scores["perfect"].ci95 is None
    assert scores["fair"].ci95 is not None
