import pickle
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from sklearn.linear_model import RidgeClassifier
from torchvision.transforms.v2 import functional as F2

from potstill.data import FileSquares, PackedSquares, ViewDataset, fit_square, normalise, read_image
from potstill.data.augmentation import OPERATIONS, STRONG_NUMBERS, WEAK_NUMBERS, strong_views, weak_maps, weak_views
from potstill.data.crops import CROP_NUMBERS, crop_boxes, crop_views
from potstill.data.geometry import affine, compose, resample
from potstill.data.hashing import hash_ids, uniforms
from potstill.errors import DataError, UnknownNameError, UsageError
from potstill.types import ViewKind

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
RANDOM: tuple[ViewKind, ...] = ("weak", "strong", "crop")
KINDS = ("plain", *RANDOM)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def photo_pixels(count=24, side=36):
    flower = load_sample_image("flower.jpg")
    return np.stack([flower[10 * k : 10 * k + side, 15 * k : 15 * k + side] for k in range(count)])


@pytest.fixture(scope="module")
def dataset():
    ids = [f"{k}.png" for k in range(24)]
    return ViewDataset(photo_pixels(), ids, image_size=32, mean=MEAN, std=STD, seed=3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [24, 1])
def test_views_are_bytes_until_they_are_normalised(dataset, kind, count):
    views = dataset.views(np.arange(count), kind)
    assert views.dtype == torch.uint8
    assert views.shape == (count, 3, 32, 32)
    assert views.stride() == (32 * 32 * 3, 1, 32 * 3, 3)
    images = dataset.normalise(views)
    assert images.dtype == torch.float32
    assert images.shape == views.shape
    assert images.stride() == views.stride()
    expected = (views.double() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    torch.testing.assert_close(images.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(dataset.normalise(views.contiguous()), images)


def test_plain_is_the_centre(dataset):
    pixels = photo_pixels()[[5, 2], 2:34, 2:34]
    views = dataset.views(np.array([5, 2]), "plain", epoch=7, draw=3)
    np.testing.assert_array_equal(views.permute(0, 2, 3, 1).numpy(), pixels)
    assert torch.equal(dataset.normalise(views), normalise(pixels, MEAN, STD))


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_values_are_rounded_to_the_nearest_byte(dataset, kind):
    columns = {"weak": WEAK_NUMBERS, "strong": STRONG_NUMBERS}[kind]
    numbers = uniforms(hash_ids(["3.png"]), (3, 2, 1, get_args(ViewKind).index(kind)), columns)
    image = torch.from_numpy(photo_pixels()[3:4]).permute(0, 3, 1, 2).float() / 255
    augment = weak_views if kind == "weak" else strong_views
    exact = augment(image, numbers, size=32, flip=False).double() * 255
    views = dataset.views(np.array([3]), kind, epoch=2, draw=1)
    assert (views.double() - exact).abs().max() <= 0.5


@pytest.mark.parametrize("kind", RANDOM)
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


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_may_have_its_own_epoch(dataset, kind):
    for same in (2, np.int64(2), np.full(2, 2)):
        assert torch.equal(dataset.views(np.arange(2), kind, epoch=same), dataset.views(np.arange(2), kind, epoch=2))
    rows, epochs = np.array([7, 3, 3, 0]), np.array([1, 0, 1, 5])
    together = dataset.views(rows, kind, epoch=epochs, draw=2)
    for position, (row, epoch) in enumerate(zip(rows, epochs.tolist(), strict=True)):
        assert torch.equal(together[position], dataset.views(np.array([row]), kind, epoch=epoch, draw=2)[0])


def test_large_images_are_cut_into_chunks_without_a_trace():
    pixels = np.stack([fit_square(load_sample_image(name), 256) for name in ("china.jpg", "flower.jpg")])
    dataset = ViewDataset(np.tile(pixels, (5, 1, 1, 1)), [str(k) for k in range(10)], image_size=224, seed=0, **PLAIN)
    whole = dataset.views(np.arange(10), "strong")
    # With several threads, torch's resampling of large images rounds differently by the size of the chunk: a value
    # halfway between two bytes may fall to either side.
    assert (dataset.views(np.array([9]), "strong")[0].int() - whole[9].int()).abs().max() <= 1


def test_seeds_and_ids_change_views(dataset):
    rows = np.arange(24)
    ids = [f"{k}.png" for k in range(24)]
    other_seed = ViewDataset(photo_pixels(), ids, image_size=32, mean=MEAN, std=STD, seed=4)
    other_ids = ViewDataset(photo_pixels(), [f"x{i}" for i in ids], image_size=32, mean=MEAN, std=STD, seed=3)
    for other in (other_seed, other_ids):
        for kind in RANDOM:
            assert not torch.equal(other.views(rows, kind), dataset.views(rows, kind))


def test_no_global_random_state_is_touched(dataset):
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = dataset.views(np.arange(24), "strong")
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    torch.manual_seed(99)
    assert torch.equal(dataset.views(np.arange(24), "strong"), first)
    torch.random.set_rng_state(torch_state)


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "a.npy", photo_pixels())
    return np.load(tmp_path / "a.npy", mmap_mode="r")


def test_a_pickled_memory_map_is_its_path(dataset, mapped):
    ids = [f"{k}.png" for k in range(24)]
    content = pickle.dumps(ViewDataset(mapped, ids, image_size=32, mean=MEAN, std=STD, seed=3))
    assert len(content) < 4000 < mapped.nbytes
    again = pickle.loads(content)
    assert isinstance(again._squares._given, np.memmap)
    for kind in KINDS:
        assert torch.equal(again.views(np.arange(24), kind), dataset.views(np.arange(24), kind))


def test_parts_of_maps_and_arrays_are_pickled_with_their_values(mapped):
    for pixels in (mapped[3:7], mapped[::2], np.array(mapped)):
        again = pickle.loads(pickle.dumps(PackedSquares(pixels)))
        np.testing.assert_array_equal(again.take(np.arange(len(pixels))), pixels)


# Squares from files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for k, pixels in enumerate(photo_pixels(8, 90)):
        Image.fromarray(pixels[: 90 - 5 * k]).save(folder / f"{k} \N{OLD ITALIC LETTER A}.jpg")
    return sorted(folder.iterdir())


def test_files_give_the_pixels_of_the_packed_array(files):
    squares = FileSquares(files, side=36)
    assert (len(squares), squares.side) == (8, 36)
    expected = np.stack([fit_square(read_image(file), 36) for file in files])
    rows = np.array([7, 0, 3, 0])
    np.testing.assert_array_equal(squares.take(rows), expected[rows])
    options = {"image_ids": [file.name for file in files], "image_size": 32, "mean": MEAN, "std": STD, "seed": 0}
    decoding, packed = ViewDataset(squares, **options), ViewDataset(expected, **options)
    for kind in KINDS:
        assert torch.equal(decoding.views(rows, kind, epoch=1), packed.views(rows, kind, epoch=1))
    again = pickle.loads(pickle.dumps(decoding))
    assert torch.equal(again.views(rows, "weak"), packed.views(rows, "weak"))


def test_all_views_of_a_batch_cost_one_decode_an_image(files):
    squares = FileSquares(files, side=36)
    dataset = ViewDataset(squares, [file.name for file in files], image_size=32, mean=MEAN, std=STD, seed=0)
    dataset.views(np.array([1, 2]), "crop")
    assert squares.decoded == 2
    for kind in ("weak", "strong"):
        dataset.views(np.array([5, 2, 6, 5]), kind)
    assert squares.decoded == 4
    dataset.views(np.array([1]), "weak")  # no longer among the last
    assert squares.decoded == 5


def test_reduced_decoding_changes_little(tmp_path):
    flower = load_sample_image("flower.jpg")
    Image.fromarray(flower).save(tmp_path / "a.jpg", quality=95)
    exact, reduced = (
        FileSquares([tmp_path / "a.jpg"], side=64, reduced=reduced).take(np.array([0])).astype(int)
        for reduced in (False, True)
    )
    difference = np.abs(exact - reduced)
    assert 0 < difference.mean() < 1.5
    assert difference.max() < 40
    assert read_image(tmp_path / "a.jpg", smallest_side=64).shape == (107, 160, 3)  # a quarter: an eighth is too small


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"lost\.jpg: cannot read the file"):
        FileSquares([tmp_path / "lost.jpg"], side=8).take(np.array([0]))


# Crops


def test_crops_are_those_of_torchvision():
    """Each view is torchvision's antialiased resized crop of the drawn box, mirrored where that was drawn."""
    pixels = photo_pixels(16, 50)
    numbers = np.random.default_rng(0).random((16, CROP_NUMBERS))
    for size in (32, 72):
        views = torch.empty(16, size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        crop_views(pixels, numbers, views, flip=True)
        for row, (left, top, width, height) in enumerate(crop_boxes(numbers, 50).tolist()):
            image = torch.from_numpy(pixels[row]).permute(2, 0, 1)
            expected = F2.resized_crop(image, top, left, height, width, [size, size], antialias=True)
            assert torch.equal(views[row], expected.flip(2) if numbers[row, 4] < 0.5 else expected)


def test_crop_boxes_stay_inside_and_cover_the_ranges():
    boxes = crop_boxes(np.random.default_rng(0).random((5000, CROP_NUMBERS)), 100)
    starts, lengths = boxes[:, :2], boxes[:, 2:]
    assert starts.min() == 0
    assert (starts + lengths).max() == 100
    area = lengths.prod(axis=1) / 100**2
    assert 0.58 < area.min() < 0.62
    assert area.max() > 0.98
    aspect = lengths[:, 0] / lengths[:, 1]
    assert 0.74 < aspect.min() < 0.78
    assert 1.29 < aspect.max() < 1.35
    assert (crop_boxes(np.zeros((1, CROP_NUMBERS)), 1) == [0, 0, 1, 1]).all()


def test_only_flips_that_are_allowed_happen():
    pixels = np.tile(photo_pixels(1, 40), (60, 1, 1, 1))
    left_to_right = np.arange(40) * 6
    pixels[:] = left_to_right[None, None, :, None]
    for flip in (False, True):
        dataset = ViewDataset(pixels, [str(k) for k in range(60)], image_size=32, seed=0, flip=flip, **PLAIN)
        views = dataset.views(np.arange(60), "crop").int()
        mirrored = (views[:, 0, 0, 0] > views[:, 0, 0, -1]).sum()
        assert 15 < mirrored < 45 if flip else mirrored == 0


def test_errors(dataset):
    with pytest.raises(UnknownNameError, match=r"Unknown kind of view 'weka'\. Did you mean 'weak'"):
        dataset.views(np.arange(2), "weka")
    for pixels, ids in (
        (photo_pixels(), ["a"]),
        (photo_pixels(1, 20), ["a"]),
        (photo_pixels(1).astype(np.float32), ["a"]),
        (photo_pixels(1)[0], ["a"]),
    ):
        with pytest.raises(UsageError, match=r"Expected (pixels uint8|\d+ squares of at least 32 pixels).* got"):
            ViewDataset(pixels, ids, image_size=32, seed=0, **PLAIN)
    with pytest.raises(UsageError, match="mean and std need three values each, std positive"):
        ViewDataset(photo_pixels(), list("abcdefghijklmnopqrstuvwx"), image_size=32, seed=0, mean=MEAN, std=(1, 0, 1))


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
    assert views.double().std() < 25


def test_augmented_digits_remain_readable():
    """A linear classifier of plain digits still reads most weak views, and far more strong ones than chance."""
    digits = load_digits()
    pixels = np.stack(
        [fit_square(np.repeat(255 - i.astype(np.uint8)[:, :, None] * 15, 3, axis=2), 18) for i in digits.images]
    )
    dataset = ViewDataset(pixels, [str(k) for k in range(len(pixels))], image_size=16, seed=0, **PLAIN)
    rows = np.arange(len(pixels))
    train, test = rows[:1200], rows[1200:]

    def inputs(rows, kind):
        return dataset.normalise(dataset.views(rows, kind)).flatten(1).numpy()

    model = RidgeClassifier(alpha=100.0)
    model.fit(inputs(train, "weak"), digits.target[train])
    accuracy = {kind: model.score(inputs(test, kind), digits.target[test]) for kind in KINDS}
    assert accuracy["plain"] > 0.85
    assert accuracy["weak"] > 0.75
    assert accuracy["crop"] > 0.75
    assert accuracy["strong"] > 0.35
