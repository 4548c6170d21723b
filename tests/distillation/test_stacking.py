"""The stack of sources: weights, calibration and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from potstill.distillation.stacking import MOST_JUDGED, Stack, judge_source, stack_sources, unit_directions
from potstill.errors import SimilarityError
from potstill.probes import fit_probe, probe_logits

CLASSES, LABELED, POOL = 4, 60, 300


def make_sources(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two sources that each tell two pairs of classes apart, one that knows nothing; labels of the whole pool."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, POOL)
    first = np.eye(2)[labels // 2] * 2 + rng.normal(0, 0.7, (POOL, 2))
    second = np.eye(2)[labels % 2] * 2 + rng.normal(0, 0.7, (POOL, 2))
    noise = [np.concatenate([part, rng.normal(0, 1, (POOL, 6))], axis=1) for part in (first, second)]
    return {"halves": noise[0], "parity": noise[1], "nothing": rng.normal(0, 1, (POOL, 8))}, labels


def stacked(sources: dict[str, np.ndarray], labels: np.ndarray, **options: object) -> Stack:
    return stack_sources(sources, np.arange(LABELED), labels[:LABELED], CLASSES, **options)  # type: ignore[arg-type]


def test_complementary_sources_are_joined_and_a_useless_one_hardly_counts() -> None:
    sources, labels = make_sources()
    stack = stacked(sources, labels)
    assert stack.shares["nothing"] < 0.1 < 0.2 < min(stack.shares["halves"], stack.shares["parity"])
    assert sum(stack.shares.values()) == pytest.approx(1)
    right = (stack.probs[LABELED:].argmax(axis=1) == labels[LABELED:]).mean()
    alone = [stacked({name: sources[name]}, labels) for name in ("halves", "parity")]
    assert right > 0.15 + max((each.probs[LABELED:].argmax(axis=1) == labels[LABELED:]).mean() for each in alone)
    assert stack.loss is not None
    assert all(each.loss is not None and stack.loss < each.loss for each in alone)
    assert stack.accuracy is not None
    assert abs(stack.accuracy - right) < 0.12  # held out, so it tells what is to be expected of the pool


def test_probs_are_calibrated_distributions_and_labels_are_known() -> None:
    sources, labels = make_sources()
    probs = stacked(sources, labels).probs
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probs[:LABELED], np.eye(CLASSES)[labels[:LABELED]])
    confidence, right = probs[LABELED:].max(axis=1), probs[LABELED:].argmax(axis=1) == labels[LABELED:]
    assert abs(confidence.mean() - right.mean()) < 0.1


def test_scale_shift_names_and_order_of_sources_do_not_matter() -> None:
    sources, labels = make_sources()
    known = stacked(sources, labels)
    changed = {"z": sources["nothing"], "y": 1e3 * sources["parity"] - 7, "x": sources["halves"] * 1e-3}
    again = stacked(changed, labels)
    np.testing.assert_allclose(again.probs, known.probs, atol=2e-4)
    assert again.shares == pytest.approx(
        {"z": known.shares["nothing"], **{new: known.shares[old] for new, old in (("x", "halves"), ("y", "parity"))}}
    )


def test_weights_are_squares_of_held_out_accuracy_times_probability() -> None:
    sources, labels = make_sources()
    known = labels[:LABELED]
    merits = {}
    for name, features in sources.items():
        directions = unit_directions(features)[:LABELED]
        penalty = fit_probe(directions, known, CLASSES).penalty
        left_out = []
        for row in range(LABELED):  # by hand: a probe for each image
            rest = np.arange(LABELED) != row
            probe = fit_probe(directions[rest], known[rest], CLASSES, penalty=penalty)
            left_out.append(softmax(probe_logits(probe, directions[row : row + 1])[0]))
        probs = np.array(left_out)
        right = probs.argmax(axis=1) == known
        merits[name] = right.mean() * np.exp(np.log(probs[np.arange(LABELED), known]).mean())
    squares = {name: merit**2 for name, merit in merits.items()}
    expected = {name: value / sum(squares.values()) for name, value in squares.items()}
    # Penalty and temperature are chosen anew for each image here.
    assert stacked(sources, labels).shares == pytest.approx(expected, rel=0.2)


def test_a_class_whose_labels_are_one_group_tells_nothing_of_a_source() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(CLASSES), 6)
    features = np.eye(CLASSES, dtype=np.float32)[labels] + rng.normal(0, 0.05, (24, CLASSES)).astype(np.float32)
    own = np.arange(24)
    together = np.where(labels == 3, 3 * 6, own)  # all images of class 3 are one group
    known, others = judge_source(features, labels, CLASSES, own), judge_source(features, labels, CLASSES, together)
    assert known is not None
    assert others is not None
    assert known[0] == others[0] == 1.0
    assert others[1] == pytest.approx(known[1], abs=0.1)
    assert judge_source(features, labels, CLASSES, labels) is None


def test_what_the_stack_expects_of_itself_is_true_of_the_pool() -> None:
    """Neighbours that know a label must not vouch for it: with noise alone the expectation is chance."""
    rng = np.random.default_rng(0)
    accuracies = []
    for _ in range(5):
        labels = rng.integers(0, CLASSES, POOL)
        stack = stacked({"noise": rng.normal(0, 1, (POOL, 40))}, labels)
        assert stack.accuracy is not None
        accuracies.append(stack.accuracy)
        assert stack.probs[LABELED:].max(axis=1).mean() < 0.45
    assert np.mean(accuracies) == pytest.approx(1 / CLASSES, abs=0.09)


def test_copies_of_a_group_do_not_vouch_for_each_other() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(LABELED) // 2 % CLASSES
    noise = np.repeat(rng.normal(0, 1, (LABELED // 2, 200)), 2, axis=0) + rng.normal(0, 1e-3, (LABELED, 200))
    rows = np.arange(LABELED)
    alone = stack_sources({"noise": noise}, rows, labels, CLASSES)
    grouped = stack_sources({"noise": noise}, rows, labels, CLASSES, groups=[str(row // 2) for row in rows])
    assert alone.accuracy is not None
    assert grouped.accuracy is not None
    assert alone.accuracy > 0.6
    assert grouped.accuracy < 0.45  # chance is 0.25


def test_dimensions_that_hardly_vary_are_not_blown_up() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(0, 1, (50, 5)), 3 + 1e-9 * rng.normal(0, 1, (50, 5))], axis=1)
    directions = unit_directions(features)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, rtol=1e-5)
    assert np.abs(directions[:, 5:]).max() < 1e-3


def test_with_many_labels_the_choice_looks_at_some_of_them() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(2 * MOST_JUDGED) % CLASSES
    features = np.eye(CLASSES)[labels] + rng.normal(0, 0.5, (len(labels), CLASSES))
    stack = stack_sources({"good": features}, np.arange(len(labels)), labels, CLASSES)
    assert stack.accuracy is not None
    assert stack.accuracy > 0.7
    np.testing.assert_array_equal(stack.probs, np.eye(CLASSES)[labels])


def test_with_one_label_a_class_all_sources_count_alike() -> None:
    sources, labels = make_sources()
    rows = np.array([np.flatnonzero(labels == label)[0] for label in range(CLASSES)])
    stack = stack_sources(sources, rows, labels[rows], CLASSES)
    assert (stack.loss, stack.accuracy, stack.propagation) == (None, None, 0.0)
    assert stack.shares == pytest.approx(dict.fromkeys(sources, 1 / 3))
    assert np.isfinite(stack.probs).all()


def test_without_a_source_there_is_no_stack() -> None:
    with pytest.raises(SimilarityError, match="at least one source"):
        stack_sources({}, np.arange(4), np.arange(4), 4)
