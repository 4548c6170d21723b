"""Encoding: few bytes a row, from which probabilities come back."""

import numpy as np
import pytest
import torch

from potstill.cache.encoding import ShardDraft, decode_logits, encode_features, encode_logits, kept_classes
from potstill.errors import UsageError
from potstill.types import TAIL_TEMPERATURES, DenseLogits, TopKLogits


def decoded(logits, kept):
    arrays = encode_logits(logits, kept)
    return decode_logits(arrays, lambda name: arrays[name], logits.shape[1])


def test_dense_logits_keep_the_probabilities():
    torch.manual_seed(0)
    logits = torch.randn(6, 11) * 8 + 300
    dense = decoded(logits, None)
    rows = np.arange(6)
    for temperature in (1.0, 4.0):
        expected = torch.softmax(logits.double() / temperature, dim=1).numpy()
        np.testing.assert_allclose(dense.probs(rows, temperature), expected, atol=1e-3)
    np.testing.assert_allclose(dense.maximum[rows], logits.max(dim=1).values)
    np.testing.assert_allclose(dense.log_sum_exp[rows], torch.logsumexp(logits.double(), 1), rtol=1e-6)


def test_extreme_logits_stay_finite():
    dense = decoded(torch.tensor([[1e6, 0.0, 1e6]]), None)
    assert np.isfinite(dense.log_probs(np.array([0]))).all()
    assert dense.probs(np.array([0])).tolist() == [[0.5, 0.0, 0.5]]
    extreme = torch.zeros(2, 20)
    extreme[0, 3] = 1e6  # every other class has probability 0
    top = decoded(extreme, 10)
    for temperature in TAIL_TEMPERATURES:
        indices, probs = top.probs(np.arange(2), temperature)
        assert (indices[0, 0], probs[0, 0]) == (3, 1.0)
        np.testing.assert_allclose(probs[1], 0.05, rtol=1e-3)
    assert np.isfinite(top.deviation).all()


@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0, 8.0, 40.0])
@pytest.mark.parametrize("num_classes", [11, 2500, 70_000])
def test_kept_classes_are_the_likeliest_with_their_probabilities(num_classes, scale):
    generator = torch.Generator().manual_seed(num_classes)
    logits = torch.randn(16, num_classes, generator=generator) * scale + 50
    top = decoded(logits, 10)
    assert isinstance(top, TopKLogits)
    for temperature in TAIL_TEMPERATURES:
        expected = torch.softmax(logits.double() / temperature, dim=1)
        indices, probs = top.probs(np.arange(16), temperature)
        assert all(len(set(row)) == 10 for row in indices.tolist())
        np.testing.assert_allclose(probs, expected.gather(1, torch.from_numpy(indices)), atol=1e-3, rtol=5e-3)
        np.testing.assert_allclose(probs[:, 0], expected.max(dim=1).values, atol=1e-3, rtol=5e-3)
        assert (np.diff(probs, axis=1) <= 0).all()
        assert (probs.sum(axis=1) < 1 + 1e-6).all()
    np.testing.assert_allclose(top.maximum, logits.max(dim=1).values)
    np.testing.assert_allclose(top.mean, logits.double().mean(dim=1), rtol=1e-5)
    np.testing.assert_allclose(top.deviation, logits.double().std(dim=1, correction=0), rtol=1e-3, atol=1e-4)
    with pytest.raises(UsageError, match="temperature 1, 2, 4, not 3"):
        top.probs(np.arange(16), 3.0)


def test_a_row_is_encoded_alike_in_any_batch():
    logits = torch.randn(9, 3000)
    for kept in (None, 10):
        whole, single = encode_logits(logits, kept), encode_logits(logits[4:5], kept)
        for name, array in whole.items():
            np.testing.assert_array_equal(array[4:5], single[name])


@pytest.mark.parametrize(("num_classes", "size"), [(5, 18), (2048, 4104), (2049, 56), (65_536, 56), (65_537, 76)])
def test_bytes_of_a_row(num_classes, size):
    arrays = encode_logits(torch.randn(3, num_classes), kept_classes(num_classes))
    assert sum(array.nbytes for array in arrays.values()) == 3 * size


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1.0, np.float16), (1e6, np.float32), (1e-6, np.float32), (0, np.float16)]
)
def test_features_that_float16_cannot_hold_stay_float32(scale, dtype):
    torch.manual_seed(0)
    features = torch.randn(5, 8) * scale
    stored = encode_features(features)["features"]
    assert stored.dtype == dtype
    np.testing.assert_allclose(stored, features.numpy(), rtol=1e-3, atol=1e-3 * scale)


def test_a_draft_keeps_features_where_nothing_else_is_said():
    digests = [f"{number:064x}" for number in range(5)]
    for with_features, logits, names in (
        (True, torch.randn(5, 4), {"digests", "features", "maximum", "shifted", "log_sum_exp"}),
        (False, torch.randn(5, 4), {"digests", "maximum", "shifted", "log_sum_exp"}),
        (False, None, {"digests", "features"}),
    ):
        draft = ShardDraft(None, with_features=with_features)
        for part in (slice(0, 3), slice(3, 5)):
            draft.add(torch.randn(5, 2)[part], None if logits is None else logits[part])
        arrays = draft.arrays(digests)
        assert set(arrays) == names
        assert {len(array) for array in arrays.values()} == {5}
        if logits is not None:
            dense = decode_logits(arrays, lambda name: arrays[name], 4)  # noqa: B023
            assert isinstance(dense, DenseLogits)
            np.testing.assert_allclose(dense.probs(np.arange(5)), torch.softmax(logits, dim=1), atol=1e-3)
