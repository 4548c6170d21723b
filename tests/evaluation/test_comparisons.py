"""The paired bootstrap against a slow loop, on simulated truth, and its invariances."""

import numpy as np
import pytest

from potstill.errors import DataError, UsageError
from potstill.evaluation import RunPredictions, is_ahead, is_tied, summarise_runs

IDS = tuple(f"{row:03d}.jpg" for row in range(60))


def simulated_runs(generator, rates, seeds, images, spread=0.0, shared=0.7):
    """Runs whose images differ in difficulty, for all methods and for each; `rates` are logit-like strengths."""
    ids = tuple(f"{row:04d}.jpg" for row in range(images))
    difficulty = generator.normal(size=images)
    runs = []
    for method, strength in rates.items():
        taste = shared * generator.normal(size=images)
        for seed in range(seeds):
            level = strength + spread * generator.normal()
            correct = difficulty + taste + level + 0.7 * generator.normal(size=images) > 0
            runs.append(RunPredictions(method, seed, ids, correct))
    return runs


def naive_summary(runs, groups, draws, seed):
    """The bootstrap as one would write it on paper; returns {method: [accuracies], (a, b): [differences]}."""
    generator = np.random.default_rng(seed)
    methods, seeds = sorted({run.method for run in runs}), sorted({run.seed for run in runs})
    correct = {(run.method, run.seed): dict(zip(run.image_ids, run.correct, strict=True)) for run in runs}
    members = {}
    for image_id in runs[0].image_ids:
        members.setdefault(groups.get(image_id, image_id), []).append(image_id)
    names = sorted(members)
    drawn = {}
    for _ in range(draws):
        picked_seeds = generator.choice(seeds, size=len(seeds))
        picked_images = [image for name in generator.choice(names, size=len(names)) for image in members[name]]
        means = {
            method: np.mean([[correct[method, s][image] for image in picked_images] for s in picked_seeds])
            for method in methods
        }
        for method in methods:
            drawn.setdefault(method, []).append(means[method])
            for other in methods:
                drawn.setdefault((method, other), []).append(means[method] - means[other])
    return drawn


@pytest.mark.parametrize("grouped", [False, True])
def test_equals_a_naive_loop(grouped):
    runs = simulated_runs(np.random.default_rng(0), {"a": 0.8, "b": 0.2}, seeds=3, images=40, spread=0.2)
    groups = {image_id: f"group {row // 4}" for row, image_id in enumerate(runs[0].image_ids)} if grouped else {}
    summary = summarise_runs(runs, groups=groups, draws=20_000)
    drawn = naive_summary(runs, groups, draws=1500, seed=1)
    # Two independent bootstraps: the ends of the intervals agree up to their Monte Carlo error.
    np.testing.assert_allclose(summary["a"]["ci95"], np.quantile(drawn["a"], [0.025, 0.975]), atol=0.02)
    np.testing.assert_allclose(
        summary["a"]["delta_vs"]["b"]["ci95"], np.quantile(drawn["a", "b"], [0.025, 0.975]), atol=0.025
    )


def test_mean_and_deviation_by_hand():
    rows = [np.arange(60) < hits for hits in (30, 36, 48)]
    runs = [RunPredictions("a", seed, IDS, row) for seed, row in enumerate(rows)]
    summary = summarise_runs(runs, draws=100)["a"]
    assert summary["mean"] == pytest.approx((0.5 + 0.6 + 0.8) / 3)
    assert summary["sd"] == pytest.approx(np.std([0.5, 0.6, 0.8], ddof=1))
    assert summary["ci95"][0] < summary["mean"] < summary["ci95"][1]
    assert summary["delta_vs"] == {}


def test_one_seed_has_no_deviation_and_the_binomial_interval():
    correct = np.arange(60) < 42
    summary = summarise_runs([RunPredictions("a", 0, IDS, correct)])["a"]
    assert summary["sd"] is None
    half = 1.96 * np.sqrt(0.7 * 0.3 / 60)
    np.testing.assert_allclose(summary["ci95"], [0.7 - half, 0.7 + half], atol=0.015)


def test_intervals_cover_the_true_difference():
    """Four seeds on one test set, difficulty shared: the interval holds the truth in about 95 % of the cases."""
    strengths = {"a": 0.9, "b": 0.6}
    many = simulated_runs(np.random.default_rng(99), strengths, seeds=40, images=20_000, spread=0.1)
    accuracy = {m: np.mean([run.correct.mean() for run in many if run.method == m]) for m in strengths}
    truth = accuracy["a"] - accuracy["b"]
    covered = []
    for trial in range(150):
        runs = simulated_runs(np.random.default_rng(trial), strengths, seeds=4, images=150, spread=0.1)
        low, high = summarise_runs(runs, draws=500, seed=trial)["a"]["delta_vs"]["b"]["ci95"]
        covered.append(low <= truth <= high)
    assert 0.9 <= np.mean(covered) <= 1.0


def test_identical_methods_are_exactly_tied():
    runs = simulated_runs(np.random.default_rng(3), {"a": 0.5}, seeds=3, images=77)
    twins = [RunPredictions("b", run.seed, run.image_ids, run.correct) for run in runs]
    delta = summarise_runs(runs + twins, draws=500)["b"]["delta_vs"]["a"]
    assert delta == {"mean": 0.0, "ci95": [0.0, 0.0]}
    assert is_tied(delta)
    assert not is_ahead(delta)


def test_order_of_runs_and_images_does_not_matter():
    runs = simulated_runs(np.random.default_rng(4), {"a": 0.5, "b": 0.1, "c": 0.9}, seeds=2, images=50)
    order = np.random.default_rng(0).permutation(50)
    shuffled = [
        RunPredictions(run.method, run.seed, tuple(run.image_ids[row] for row in order), run.correct[order])
        for run in reversed(runs)
    ]
    expected, got = summarise_runs(runs, draws=300), summarise_runs(shuffled, draws=300)
    assert got == expected
    assert list(got) == list(expected) == sorted(got, key=lambda method: -got[method]["mean"])


def test_differences_are_antisymmetric():
    runs = simulated_runs(np.random.default_rng(5), {"a": 0.5, "b": 0.1}, seeds=2, images=50)
    summary = summarise_runs(runs, draws=300)
    forth, back = summary["a"]["delta_vs"]["b"], summary["b"]["delta_vs"]["a"]
    assert back == {"mean": -forth["mean"], "ci95": [-forth["ci95"][1], -forth["ci95"][0]]}


def test_adding_a_method_changes_nothing_for_the_others():
    runs = simulated_runs(np.random.default_rng(6), {"a": 0.5, "b": 0.1, "c": 0.9}, seeds=2, images=50)
    pair = summarise_runs([run for run in runs if run.method != "c"], draws=300)
    assert summarise_runs(runs, draws=300)["a"]["delta_vs"]["b"] == pair["a"]["delta_vs"]["b"]


def test_a_method_that_misses_a_seed_is_compared_on_the_common_ones():
    runs = simulated_runs(np.random.default_rng(7), {"a": 0.9, "b": 0.1}, seeds=3, images=50)
    partial = [run for run in runs if (run.method, run.seed) != ("b", 2)]
    without = [run for run in runs if run.seed != 2]
    got, expected = summarise_runs(partial, draws=300), summarise_runs(without, draws=300)
    assert got["a"]["delta_vs"]["b"] == expected["a"]["delta_vs"]["b"]
    assert got["a"]["mean"] == summarise_runs(runs, draws=300)["a"]["mean"]


def test_methods_without_a_common_seed_have_no_difference():
    runs = simulated_runs(np.random.default_rng(8), {"a": 0.9, "b": 0.1}, seeds=2, images=20)
    apart = [run for run in runs if (run.method, run.seed) in {("a", 0), ("b", 1)}]
    assert summarise_runs(apart, draws=50)["a"]["delta_vs"] == {}


def test_large_groups_widen_the_interval():
    runs = [RunPredictions("a", 0, IDS, np.arange(60) % 20 < 10)]
    groups = {image_id: str(row // 10) for row, image_id in enumerate(IDS)}
    (low, high), (grouped_low, grouped_high) = (
        summarise_runs(runs, groups=chosen, draws=2000)["a"]["ci95"] for chosen in (None, groups)
    )
    assert grouped_high - grouped_low > 2 * (high - low)


@pytest.mark.parametrize(
    ("runs", "error", "message"),
    [
        ([], UsageError, "at least one finished run"),
        ([RunPredictions("a", 0, IDS, np.ones(60, bool))] * 2, UsageError, "given twice"),
        ([RunPredictions("a", 0, IDS, np.ones(59, bool))], DataError, "60 images and 59 answers"),
        ([RunPredictions("a", 0, ("1", "1"), np.ones(2, bool))], DataError, "an image twice"),
        (
            [RunPredictions("a", 0, IDS, np.ones(60, bool)), RunPredictions("b", 0, IDS[:-1], np.ones(59, bool))],
            DataError,
            "b with seed 0 was tested on other images than a with seed 0",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs, error, message):
    with pytest.raises(error, match=message):
        summarise_runs(runs)


def test_no_draws_are_refused():
    with pytest.raises(UsageError, match="at least one bootstrap draw"):
        summarise_runs([RunPredictions("a", 0, IDS, np.ones(60, bool))], draws=0)
