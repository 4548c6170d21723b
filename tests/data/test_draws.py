"""Draws: exact where images are alone, whole units otherwise, and independent of the order."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.data.draws import choose_labeled, draw_part, join_units
from potstill.data.hashing import hash_ids, order_key, uniforms
from potstill.errors import UsageError


def labels_of(*sizes):
    return {f"{label}/{k}": label for label, size in enumerate(sizes) for k in range(size)}


def draw(labels, groups=(), fraction=0.3, seed=0):
    units = join_units(labels, dict(groups), {})
    return draw_part(labels, units, fraction=fraction, purpose="test", seed=seed)


def test_units_are_the_connected_parts():
    groups = {"a": "1", "b": "1", "c": "2", "e": "3"}
    digests = {"b": "x", "c": "x", "d": "y", "e": "z", "f": "z"}
    assert join_units("fedcba", groups, digests) == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "e", "f": "e"}


@pytest.mark.parametrize(("size", "expected"), [(1, 0), (2, 1), (3, 1), (5, 2), (10, 3), (100, 30)])
def test_stratified_counts_without_groups(size, expected):
    assert sum(image_id.startswith("0/") for image_id in draw(labels_of(size, 40))) == expected


def test_draws_do_not_depend_on_the_order_but_on_the_seed():
    labels = labels_of(30, 50)
    backwards = dict(reversed(labels.items()))
    assert draw(labels) == draw(backwards)
    assert draw(labels) != draw(labels, seed=1)


def test_every_image_is_drawn_about_equally_often():
    labels = labels_of(10, 10)
    drawn = Counter(image_id for seed in range(400) for image_id in draw(labels, seed=seed))
    assert sum(drawn.values()) == 400 * 6
    # Binomial(400, 0.3): mean 120, standard deviation 9.2; five of them either way.
    assert all(74 < drawn[image_id] < 166 for image_id in labels)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=4, max_size=60), st.integers(0, 5))
def test_groups_never_straddle_and_no_class_is_emptied(rows, seed):
    labels = {str(k): label for k, (label, _) in enumerate(rows)}
    groups = {str(k): str(group) for k, (_, group) in enumerate(rows)}
    test = draw(labels, groups.items(), seed=seed)
    assert {groups[i] for i in test}.isdisjoint(groups[i] for i in labels if i not in test)
    assert {labels[i] for i in labels if i not in test} == set(labels.values())
    assert len(test) < len(labels)


def test_groups_come_near_the_fraction():
    generator = np.random.default_rng(0)
    labels, groups = {}, {}
    for group in range(60):
        for k in range(int(generator.integers(1, 12))):
            labels[f"{group}-{k}"] = int(generator.integers(0, 3))
            groups[f"{group}-{k}"] = str(group)
    for seed in range(5):
        test = draw(labels, groups.items(), seed=seed)
        assert abs(len(test) / len(labels) - 0.3) < 0.03


def test_a_class_of_one_group_stays_in_training():
    labels = labels_of(10, 10)
    test = draw(labels, {image_id: "g" for image_id in labels if image_id.startswith("0/")}.items())
    assert {labels[image_id] for image_id in test} == {1}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [30, 7, 1]),
        ({"label_fraction": 0.1}, [3, 1, 1]),  # 0.1 * 30 must not become 4
        ({"label_fraction": 0.5}, [15, 4, 1]),
        ({"label_fraction": 1.0}, [30, 7, 1]),
        ({"labels_per_class": 1}, [1, 1, 1]),
        ({"labels_per_class": 10}, [10, 7, 1]),
    ],
)
def test_numbers_of_visible_labels(arguments, expected):
    labels = labels_of(30, 7, 1)
    chosen = Counter(labels[image_id] for image_id in choose_labeled(labels, seed=0, **arguments))
    assert [chosen[label] for label in range(3)] == expected


def test_fewer_labels_are_a_subset():
    labels = labels_of(30, 30)
    sets = [choose_labeled(labels, seed=3, labels_per_class=k) for k in (1, 5, 20)]
    assert sets[0] < sets[1] < sets[2]
    assert sets[0] != choose_labeled(labels, seed=4, labels_per_class=1)


def test_both_numbers_exclude_each_other():
    with pytest.raises(UsageError, match="exclude each other; give one"):
        choose_labeled({}, seed=0, label_fraction=0.5, labels_per_class=2)


def test_uniforms_are_splitmix64():
    """First outputs of the published generator for the seed 1234567: the known test vector of its reference code."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    numbers = uniforms(np.array([1234567], dtype=np.uint64), (), 5)[0]
    np.testing.assert_array_equal(numbers, [(value >> 11) * 2.0**-53 for value in expected])


def test_uniforms_are_uniform_and_streams_differ():
    keys = hash_ids([f"image{k}" for k in range(4000)])
    numbers = uniforms(keys, (0, 0, 0), 8)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert ((counts - 1600) ** 2 / 1600).sum() < 43.8  # chi-square with 19 degrees of freedom, 0.1 %
    streams = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0)]
    columns = np.stack([uniforms(keys, stream, 2) for stream in streams]).transpose(0, 2, 1).reshape(10, -1)
    correlation = np.corrcoef(columns) - np.eye(10)
    assert np.abs(correlation).max() < 0.08  # five standard deviations


def test_order_keys_tell_purpose_seed_and_image_apart():
    keys = {order_key(p, s, i) for p in ("test", "labels") for s in (0, 1, 11) for i in ("a", "1a", "b")}
    assert len(keys) == 18
