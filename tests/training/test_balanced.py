"""Class-balanced draws: exact balance, and a pure function of the position."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from potstill.training.balanced import BalancedStream

LABELS = np.array([3, 3, 3, 3, 3, 0, 0, 9, 3, 0])


def stream(seed: int = 0, name: str = "labeled", labels: np.ndarray = LABELS) -> BalancedStream:
    return BalancedStream(labels, seed=seed, name=name)


def test_every_block_holds_every_class_once_and_the_order_varies() -> None:
    items, _ = stream().take(0, 60)
    blocks = LABELS[items].reshape(20, 3)
    assert (np.sort(blocks, axis=1) == [0, 3, 9]).all()
    assert len(np.unique(blocks, axis=0)) > 3


def test_within_a_class_every_pass_is_a_permutation() -> None:
    items, _ = stream().take(0, 3 * 5 * 6)
    for label in (0, 3, 9):
        drawn = items[LABELS[items] == label]
        members = np.flatnonzero(label == LABELS).tolist()
        for start in range(0, len(drawn) - len(members) + 1, len(members)):
            assert sorted(drawn[start : start + len(members)].tolist()) == members
    assert len({tuple(items[LABELS[items] == 3][start : start + 6].tolist()) for start in range(0, 30, 6)}) > 1


def test_passes_count_the_earlier_draws_of_an_image() -> None:
    seen: Counter[int] = Counter()
    items, passes = stream().take(0, 100)
    for item, number in zip(items.tolist(), passes.tolist(), strict=True):
        assert number == seen[item]
        seen[item] += 1


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_cuts_and_order_of_asking_do_not_matter(size: int) -> None:
    whole_items, whole_passes = stream().take(0, 200)
    asked = stream()
    starts = np.random.default_rng(size).permutation(np.arange(0, 200 - size))[:40]
    for start in starts.tolist():
        items, passes = asked.take(start, size)
        assert items.tolist() == whole_items[start : start + size].tolist()
        assert passes.tolist() == whole_passes[start : start + size].tolist()


def test_seeds_names_and_far_positions_differ() -> None:
    orders = [stream(*key).take(start, 30)[0].tolist() for *key, start in ((0, "a", 0), (1, "a", 0), (0, "b", 0))]
    orders.append(stream(0, "a").take(3_000_000_000, 30)[0].tolist())
    assert len({tuple(order) for order in orders}) == 4


def test_one_class_and_one_image() -> None:
    items, passes = stream(labels=np.zeros(4, dtype=np.int64)).take(0, 8)
    assert sorted(items[:4].tolist()) == sorted(items[4:].tolist()) == [0, 1, 2, 3]
    assert passes.tolist() == [0] * 4 + [1] * 4
    items, passes = stream(labels=np.array([5])).take(2, 3)
    assert (items.tolist(), passes.tolist()) == ([0, 0, 0], [2, 3, 4])
    assert stream().take(4, 0)[0].shape == (0,)


def test_no_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one label"):
        stream(labels=np.array([], dtype=np.int64))
