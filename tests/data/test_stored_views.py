"""Stored views: the same crop at every size, fixed by the content of the file."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

from potstill.data import fit_square
from potstill.data.augmentation import WEAK_NUMBERS, weak_maps
from potstill.data.stored_views import VIEW_VERSION, render_view, view_numbers
from potstill.errors import UsageError

DIGESTS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(40)]


def squares(side, count=1, *, detail=None):
    """Parts of a photo; `detail` is the side beyond which they hold nothing finer."""
    picture = load_sample_image("flower.jpg")
    parts = [fit_square(picture[:, 5 * k :], detail or side) for k in range(count)]
    return torch.from_numpy(np.stack([fit_square(part, side) for part in parts]))


def test_numbers_depend_on_content_and_view_alone():
    numbers = view_numbers(DIGESTS, 3)
    assert numbers.shape == (40, WEAK_NUMBERS)
    assert ((numbers >= 0) & (numbers < 1)).all()
    np.testing.assert_array_equal(view_numbers(DIGESTS[::-1], 3)[::-1], numbers)
    np.testing.assert_array_equal(view_numbers(DIGESTS[7:8], 3), numbers[7:8])
    everything = np.concatenate([view_numbers(DIGESTS, view) for view in range(1, 30)])
    assert len(np.unique(everything[:, 0])) == len(everything)
    assert np.abs(everything.mean(axis=0) - 0.5).max() < 0.04
    assert np.abs(np.corrcoef(everything.T) - np.eye(WEAK_NUMBERS)).max() < 0.12


def test_each_row_may_have_a_view_of_its_own():
    views = np.arange(40) % 3 + 1
    mixed = view_numbers(DIGESTS, views)
    for view in (1, 2, 3):
        np.testing.assert_array_equal(mixed[views == view], view_numbers(DIGESTS, view)[views == view])


def test_the_pictures_of_this_version_stay_as_they_are():
    """Cached answers belong to these pictures: if this fails on purpose, raise VIEW_VERSION and write new values."""
    assert VIEW_VERSION == 1
    numbers = view_numbers(DIGESTS[:1], 1)
    np.testing.assert_allclose(
        numbers[0, :4], [0.735308768830034, 0.937039470001924, 0.682675329140826, 0.258723509151767], atol=1e-12
    )
    expected = [[0.998699140718, -0.042519139846, -0.038244817349], [0.050990453311, 0.832779974898, -0.161515551904]]
    np.testing.assert_allclose(weak_maps(numbers, flip=True)[0], expected, atol=1e-9)
    ramp = torch.arange(0, 256, 4, dtype=torch.uint8).view(1, 8, 8, 1).repeat(1, 1, 1, 3).contiguous()
    view = render_view(ramp, numbers, size=8, flip=True)
    np.testing.assert_allclose(
        view[0, ::3, ::3, 0].numpy().astype(int), [[0, 13, 29], [80, 98, 117], [168, 186, 205]], atol=1
    )


def test_a_large_and_a_small_view_show_the_same_crop():
    numbers = view_numbers(DIGESTS[:12], 2)
    large = render_view(squares(192, 12, detail=24), numbers, size=192, flip=True)
    pixels = squares(64, 12, detail=24)
    small = render_view(pixels, numbers, size=64, flip=True)
    other = render_view(pixels, view_numbers(DIGESTS[:12], 1), size=64, flip=True)
    shrunk = torch.from_numpy(np.stack([fit_square(image.numpy(), 64) for image in large]))

    def distance(one, another):
        return (one.double() - another.double()).abs().mean(dim=(1, 2, 3))

    assert (distance(shrunk, small) < 1.5).all()
    assert (distance(shrunk, other) > 6).all()


def test_a_view_depends_on_its_row_alone():
    pixels, numbers = squares(48, 9), view_numbers(DIGESTS[:9], 1)
    whole = render_view(pixels, numbers, size=40)
    assert (whole.dtype, whole.shape) == (torch.uint8, (9, 40, 40, 3))
    for row in (0, 5, 8):
        part = slice(row, row + 1)
        assert torch.equal(render_view(pixels[part], numbers[part], size=40)[0], whole[row])


def test_many_large_images_are_rendered_in_chunks_without_a_trace():
    pixels, numbers = squares(300, 5), view_numbers(DIGESTS[:5], 1)
    whole = render_view(pixels, numbers, size=256)
    assert torch.equal(whole[4:], render_view(pixels[4:], numbers[4:], size=256))


def test_flip_mirrors_about_half_of_the_views():
    numbers = view_numbers(DIGESTS, 5)
    pixels = squares(32, 40)
    turned = weak_maps(numbers, flip=True)[:, 0, 0] < 0
    assert 10 < turned.sum() < 30
    same = (render_view(pixels, numbers, size=32) == render_view(pixels, numbers, size=32, flip=True)).flatten(1)
    np.testing.assert_array_equal(same.all(dim=1).numpy(), ~turned)


def test_misuse():
    with pytest.raises(UsageError, match="numbered from 1"):
        view_numbers(DIGESTS, 0)
    with pytest.raises(UsageError, match="numbered from 1"):
        view_numbers(DIGESTS[:2], np.array([1, 0]))
    assert view_numbers([], np.array([], dtype=np.int64)).shape == (0, WEAK_NUMBERS)
    numbers = view_numbers(DIGESTS[:1], 1)
    for side in (31, 49):
        with pytest.raises(UsageError, match="S from 32 to 48"):
            render_view(squares(side), numbers, size=32)
    with pytest.raises(UsageError, match=r"Expected numbers \(2, 10\)"):
        render_view(squares(32, 2), numbers, size=32)
