"""What a student sees of a stored view is what a source saw, at the student's size."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from potstill.data import StoredViews, ViewDataset
from potstill.data.stored_views import render_view, view_numbers
from potstill.errors import UsageError

SIZE, IMAGES = 16, 6


@pytest.fixture(name="squares")
def _squares() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 20, 20, 3), dtype=np.uint8)


@pytest.fixture(name="digests")
def _digests(squares: np.ndarray) -> list[str]:
    return [hashlib.sha256(square.tobytes()).hexdigest() for square in squares]


def dataset(squares: np.ndarray, digests: list[str], *, seed: int = 0, count: int = 3) -> ViewDataset:
    names = [str(number) for number in range(IMAGES)]
    half = (0.5, 0.5, 0.5)
    stored = StoredViews(digests, count)
    return ViewDataset(squares, names, image_size=SIZE, mean=half, std=half, seed=seed, flip=True, stored=stored)


def test_student_and_source_see_the_same_picture(squares: np.ndarray, digests: list[str]) -> None:
    rows, passes = np.array([4, 0, 4, 2]), np.array([0, 1, 5, 3])
    seen = dataset(squares, digests).views(rows, "stored", epoch=passes, draw=1)
    for position, (row, number) in enumerate(zip(rows, 1 + passes % 3, strict=True)):
        shown = render_view(
            torch.from_numpy(squares[row : row + 1]), view_numbers([digests[row]], int(number)), size=SIZE, flip=True
        )
        assert torch.equal(seen[position], shown[0].permute(2, 0, 1))


def test_views_come_again_after_as_many_passes_and_depend_on_no_seed(squares: np.ndarray, digests: list[str]) -> None:
    rows = np.arange(IMAGES)
    one = dataset(squares, digests, seed=0).views(rows, "stored", epoch=1)
    assert torch.equal(one, dataset(squares, digests, seed=9).views(rows, "stored", epoch=4, draw=7))
    assert not torch.equal(one, dataset(squares, digests).views(rows, "stored", epoch=2))


def test_without_stored_views_the_kind_is_refused(squares: np.ndarray, digests: list[str]) -> None:
    half = (0.5, 0.5, 0.5)
    plain = ViewDataset(squares, digests, image_size=SIZE, mean=half, std=half, seed=0)
    with pytest.raises(UsageError, match="Expected stored views"):
        plain.views(np.array([0]), "stored")
    with pytest.raises(UsageError, match="at least one stored view"):
        StoredViews(digests, 0)
