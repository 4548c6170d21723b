"""Chunks of squares: what is cut differently looks the same."""

import numpy as np
import pytest
import torch

from potstill.data import rendering
from potstill.data.augmentation import WEAK_NUMBERS, weak_views
from potstill.data.rendering import render_in_chunks

COUNT = 7


def rendered(side, size):
    generator = np.random.default_rng(side)
    squares = torch.from_numpy(generator.integers(0, 256, (COUNT, side, side, 3), dtype=np.uint8))
    numbers = generator.random((COUNT, WEAK_NUMBERS))
    return list(render_in_chunks(squares, numbers, weak_views, size=size, flip=True))


@pytest.mark.parametrize("side", [20, 40], ids=["as it is", "made smaller first"])
def test_views_do_not_depend_on_the_cut(monkeypatch, side):
    ((part, whole),) = rendered(side, 16)
    assert (part.start, whole.dtype, whole.shape) == (0, torch.uint8, (COUNT, 3, 16, 16))
    monkeypatch.setattr(rendering, "_CHUNK", 3 * side**2)
    pieces = rendered(side, 16)
    assert [len(views) for _, views in pieces] == [3, 3, 1]
    assert torch.equal(torch.cat([views for _, views in pieces]), whole)
    for part, views in pieces:
        assert torch.equal(whole[part], views)


def test_squares_larger_than_a_chunk_come_one_by_one(monkeypatch):
    monkeypatch.setattr(rendering, "_CHUNK", 1)
    assert [len(views) for _, views in rendered(20, 16)] == [1] * COUNT
