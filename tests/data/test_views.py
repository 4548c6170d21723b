import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_sample_image
from sklearn.linear_model import LogisticRegression

from potstill.data import ViewDataset, fit_square, normalise
from potstill.data.augmentation import OPERATIONS, STRONG_NUMBERS, strong_views, weak_maps
from potstill.data.geometry import affine, compose, resample
from potstill.errors import UnknownNameError, UsageError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def photo_pixels(count=24, side=36):
    flower = load_sample_image("flower.jpg")
    return np.stack([flower[10 * k : 10 * k + side, 15 * k : 15 * k + side] for k in range(count)])


@pytest.fixture(scope="module")
def dataset():
    ids = [f"{k}.png" for k in range(24)]
    return ViewDataset(photo_pixels(), ids, image_size=32, mean=MEAN, std=STD, seed=3)


@pytest.mark.parametrize("kind", ["plain", "weak", "strong"])
def test_shape_type_and_range(dataset, kind):
    views = dataset.views(np.arange(24), kind)
    assert views.dtype == torch.float32
    assert views.shape == (24, 3, 32, 32)
    pixels = views * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6


def test_plain_is_the_centre(dataset):
    expected = normalise(photo_pixels()[[5, 2], 2:34, 2:34], MEAN, STD)
    assert torch.equal(dataset.views(np.array([5, 2]), "plain", epoch=7, draw=3), expected)


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_a_view_depends_on_its_image_and_draw_alone(dataset, kind):
    whole = dataset.views(np.arange(24), kind, epoch=2, draw=1)
    order = np.random.default_rng(0).permutation(24)
    assert torch.equal(dataset.views(order, kind, epoch=2, draw=1), whole[order])
    for row in (0, 7, 23):
        assert torch.equal(dataset.views(np.array([row]), kind, epoch=2, draw=1)[0], whole[row])
    subset = ViewDataset(
        photo_pixels()[20:], [f"{k}.png" for k in range(20, 24)], image_size=32, mean=MEAN, std=STD, seed=3
    )
    assert torch.equal(subset.views(np.arange(4), kind, epoch=2, draw=1), whole[20:])
    for other in ({"epoch": 3, "draw": 1}, {"epoch": 2, "draw": 0}):
        changed = (dataset.views(np.arange(24), kind, **other) != whole).flatten(1).any(dim=1)
        assert changed.all()


def test_large_images_are_cut_into_chunks_without_a_trace():
    pixels = np.stack([fit_square(load_sample_image(name), 256) for name in ("china.jpg", "flower.jpg")])
    dataset = ViewDataset(np.tile(pixels, (5, 1, 1, 1)), [str(k) for k in range(10)], image_size=224, seed=0, **PLAIN)
    whole = dataset.views(np.arange(10), "strong")
    # With several threads, torch's resampling of large images rounds differently by the size of the chunk.
    torch.testing.assert_close(dataset.views(np.array([9]), "strong")[0], whole[9], rtol=0, atol=1e-5)


def test_seeds_and_ids_change_views(dataset):
    rows = np.arange(24)
    ids = [f"{k}.png" for k in range(24)]
    other_seed = ViewDataset(photo_pixels(), ids, image_size=32, mean=MEAN, std=STD, seed=4)
    other_ids = ViewDataset(photo_pixels(), [f"x{i}" for i in ids], image_size=32, mean=MEAN, std=STD, seed=3)
    for other in (other_seed, other_ids):
        assert not torch.equal(other.views(rows, "weak"), dataset.views(rows, "weak"))


def test_no_global_random_state_is_touched(dataset):
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = dataset.views(np.arange(24), "strong")
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    torch.manual_seed(99)
    assert torch.equal(dataset.views(np.arange(24), "strong"), first)
    torch.random.set_rng_state(torch_state)


def test_memory_maps_and_empty_batches(dataset, tmp_path):
    np.save(tmp_path / "a.npy", photo_pixels())
    ids = [f"{k}.png" for k in range(24)]
    mapped = ViewDataset(np.load(tmp_path / "a.npy", mmap_mode="r"), ids, image_size=32, mean=MEAN, std=STD, seed=3)
    for kind in ("plain", "weak", "strong"):
        assert torch.equal(mapped.views(np.arange(24), kind), dataset.views(np.arange(24), kind))
        assert mapped.views(np.arange(0), kind).shape == (0, 3, 32, 32)


def test_errors(dataset):
    with pytest.raises(UnknownNameError, match=r"Unknown kind of view 'weka'\. Did you mean 'weak'"):
        dataset.views(np.arange(2), "weka")
    for pixels, ids in (
        (photo_pixels(), ["a"]),
        (photo_pixels(1, 20), ["a"]),
        (photo_pixels(1).astype(np.float32), ["a"]),
        (photo_pixels(1)[0], ["a"]),
    ):
        with pytest.raises(UsageError, match=r"Expected pixels uint8 \(\d+, S, S, 3\) with S >= 32, got"):
            ViewDataset(pixels, ids, image_size=32, seed=0, **PLAIN)


# Geometry


def test_identity_map_copies_the_image():
    image = torch.rand(2, 3, 17, 17, generator=torch.Generator().manual_seed(0))
    identity = np.tile(np.eye(2, 3), (2, 1, 1))
    torch.testing.assert_close(resample(image, identity, 17), image, atol=1e-5, rtol=0)


def test_resampling_is_that_of_torch():
    image = torch.rand(4, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    maps = np.random.default_rng(0).normal(size=(4, 2, 3)) * 0.5
    grid = F.affine_grid(torch.from_numpy(maps).float(), [4, 3, 16, 16], align_corners=False)
    expected = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(resample(image, maps, 16), expected, atol=1e-4, rtol=0)


def test_maps_compose_and_follow_the_order_scale_shear_rotate_shift():
    generator = np.random.default_rng(0)
    names = ("x_scale", "y_scale", "angle", "x_shear", "y_shear", "x_shift", "y_shift")
    first, second = ({name: generator.normal(size=5) for name in names} for _ in range(2))
    points = generator.normal(size=(5, 2))

    def move(values, points):
        x, y = points[:, 0] * values["x_scale"], points[:, 1] * values["y_scale"]
        x, y = x + values["x_shear"] * y, y + values["y_shear"] * x
        turned = (x + 1j * y) * np.exp(1j * values["angle"])
        return np.stack([turned.real + values["x_shift"], turned.imag + values["y_shift"]], axis=1)

    maps = compose(affine(**second), affine(**first))
    actual = np.einsum("bij,bj->bi", maps[:, :, :2], points) + maps[:, :, 2]
    np.testing.assert_allclose(actual, move(second, move(first, points)), atol=1e-12)


def test_a_quarter_turn_and_a_flip_move_pixels_as_they_should():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    one, zero = np.ones(1), np.zeros(1)
    none = {"x_shear": zero, "y_shear": zero, "x_shift": zero, "y_shift": zero}
    turn = affine(x_scale=one, y_scale=one, angle=np.array([np.pi / 2]), **none)
    torch.testing.assert_close(resample(image, turn, 4), torch.rot90(image, 1, (2, 3)), atol=1e-4, rtol=0)
    flip = affine(x_scale=-one, y_scale=one, angle=zero, **none)
    torch.testing.assert_close(resample(image, flip, 4), image.flip(3), atol=1e-4, rtol=0)


def test_weak_maps_stay_within_their_ranges():
    numbers = np.random.default_rng(0).random((5000, 10))
    maps = weak_maps(numbers, flip=False)
    area = maps[:, 0, 0] * maps[:, 1, 1] - maps[:, 0, 1] * maps[:, 1, 0]
    angle = np.rad2deg(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert 0.55 < area.min() < 0.65  # 0.6, less where a stretched crop is cut to the square
    assert 0.9 < area.max() <= 1 + 1e-9
    assert np.abs(angle).max() <= 8 + 1e-9
    corners = np.abs(maps[:, :, :2]).sum(axis=2) + np.abs(maps[:, :, 2])
    assert corners.max() < 1.25
    determinant_signs = np.sign(np.linalg.det(weak_maps(numbers, flip=True)[:, :, :2]))
    assert 0.45 < (determinant_signs < 0).mean() < 0.55


# Strong views


def strong_numbers(operations, magnitude, cut=(0.0, 0.0, 0.0)):
    """Random numbers that give the uncropped, untouched weak view and then the named operations."""
    weak = [0.99999999, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9, 0.5, 0.5]
    slots = [number for name in operations for number in ((OPERATIONS.index(name) + 0.5) / len(OPERATIONS), magnitude)]
    numbers = np.array([[*weak, *slots, *cut]])
    assert numbers.shape == (1, STRONG_NUMBERS)
    return numbers


def render(image, *arguments, **options):
    return strong_views(image.clone(), strong_numbers(*arguments, **options), size=image.shape[-1], flip=False)


@pytest.fixture(scope="module")
def photo():
    return torch.from_numpy(photo_pixels(8, 32)[7:8]).permute(0, 3, 1, 2).float() / 255


def test_two_identities_change_nothing(photo):
    torch.testing.assert_close(render(photo, ("identity", "identity"), 0.3), photo, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "identity"])
def test_every_operation_is_applied_once_for_each_slot(photo, name):
    once = render(photo, (name, "identity"), 0.1)
    assert (once - photo).abs().max() > 0.005
    torch.testing.assert_close(render(photo, ("identity", name), 0.1), once, atol=1e-4, rtol=0)


def test_translation_by_whole_pixels(photo):
    moved = render(photo, ("translate_x", "identity"), 0.5 + 4 / 32 / 0.6)
    torch.testing.assert_close(moved[:, :, :, :-4], photo[:, :, :, 4:], atol=1e-3, rtol=0)
    moved = render(photo, ("identity", "translate_y"), 0.5 - 4 / 32 / 0.6)
    torch.testing.assert_close(moved[:, :, 4:], photo[:, :, :-4], atol=1e-3, rtol=0)


def test_cutout_greys_a_square_of_up_to_half_the_side(photo):
    cut = render(photo, ("identity", "identity"), 0.5, cut=(0.5, 0.25, 0.75))  # 8 wide, centre x 8, y 24
    expected = photo.clone()
    expected[:, :, 20:28, 4:12] = 0.5
    torch.testing.assert_close(cut, expected, atol=1e-4, rtol=0)
    largest = render(photo, ("identity", "identity"), 0.5, cut=(1.0, 0.5, 0.5))
    assert ((largest == 0.5).all(dim=1).sum()) == 16 * 16


def test_downscaling_does_not_alias():
    """A fine checkerboard is grey at a third of its size; sampled without smoothing it would stay black and white."""
    board = np.indices((96, 96)).sum(axis=0) % 2 * 255
    pixels = np.repeat(board.astype(np.uint8)[None, :, :, None], 3, axis=3)
    views = ViewDataset(pixels, ["a"], image_size=32, seed=0, **PLAIN).views(np.array([0]), "weak")
    assert views.std() < 0.1


def test_augmented_digits_remain_readable():
    """A linear classifier of plain digits still reads most weak views, and far more strong ones than chance."""
    digits = load_digits()
    pixels = np.stack(
        [fit_square(np.repeat(255 - i.astype(np.uint8)[:, :, None] * 15, 3, axis=2), 18) for i in digits.images]
    )
    dataset = ViewDataset(pixels, [str(k) for k in range(len(pixels))], image_size=16, seed=0, **PLAIN)
    rows = np.arange(len(pixels))
    train, test = rows[:1200], rows[1200:]
    model = LogisticRegression(C=0.1, max_iter=2000)
    model.fit(dataset.views(train, "weak").flatten(1).numpy(), digits.target[train])
    accuracy = {
        kind: model.score(dataset.views(test, kind).flatten(1).numpy(), digits.target[test])
        for kind in ("plain", "weak", "strong")
    }
    assert accuracy["plain"] > 0.85
    assert accuracy["weak"] > 0.75
    assert accuracy["strong"] > 0.35
