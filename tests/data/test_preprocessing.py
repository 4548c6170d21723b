import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import create_transform
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from potstill.data import fit_square, normalise, open_target, prepare_images, read_image, resized_size
from potstill.errors import DataError, UnknownNameError, UsageError
from potstill.types import Preprocessing

PHOTO = load_sample_image("china.jpg")  # 427 x 640
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize(
    ("image", "size", "crop"),
    [
        (PHOTO, 224, 0.875),
        (PHOTO, 64, 1.0),
        (PHOTO[:, 100:300], 96, 0.9),
        (PHOTO[:21, :33], 64, 0.95),
        (PHOTO[:50, :50], 32, 0.5),
    ],
)
def test_squares_are_those_of_torchvision(image, size, crop, interpolation):
    resize = Resize(resized_size(size, crop), InterpolationMode(interpolation))
    expected = np.array(Compose([resize, CenterCrop(size)])(Image.fromarray(image)))
    difference = np.abs(fit_square(image, size, interpolation=interpolation, crop=crop).astype(int) - expected)
    if interpolation == "nearest":
        assert (difference > 0).mean() < 0.04  # a position between two pixels may fall either way
    else:
        assert difference.max() <= 1


def test_the_whole_transform_is_timms():
    transform = create_transform(128, interpolation="bicubic", mean=MEAN, std=STD, crop_pct=0.9)
    expected = transform(Image.fromarray(PHOTO))
    square = fit_square(PHOTO, 128, interpolation="bicubic", crop=0.9)
    actual = normalise(square[None], MEAN, STD)[0]
    assert (actual - expected).abs().max() < 1.01 / 255 / min(STD)


def test_tiny_and_extreme_images():
    assert (fit_square(np.full((1, 1, 3), 7, np.uint8), 32) == 7).all()
    wide = np.zeros((1, 50_000, 3), np.uint8)
    wide[:, 25_000] = 255
    assert fit_square(wide, 224, interpolation="bilinear").shape == (224, 224, 3)
    tall = fit_square(wide.transpose(1, 0, 2), 224, interpolation="bilinear")
    assert tall.shape == (224, 224, 3)


def test_arguments_out_of_range():
    with pytest.raises(UnknownNameError, match=r"Unknown interpolation 'bicubc'\. Did you mean 'bicubic'"):
        fit_square(PHOTO, 32, interpolation="bicubc")
    for size, crop in ((0, 1.0), (32, 0.0), (32, 1.5)):
        with pytest.raises(UsageError, match="image_size must be at least 1 and crop in"):
            fit_square(PHOTO, size, crop=crop)
    with pytest.raises(UsageError, match="three values each, std positive"):
        normalise(PHOTO[None], MEAN, (0.2, 0.2, 0.0))


def test_normalise():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    expected = ((pixels / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2)
    for given in (pixels, torch.from_numpy(pixels)):
        actual = normalise(given, MEAN, STD)
        assert actual.dtype == torch.float32
        np.testing.assert_allclose(actual.numpy(), expected, atol=1e-6)
        assert actual.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("workers", [0, 3])
def test_prepared_images_come_in_order(make_tree, workers):
    target = open_target(make_tree({"a": 5, "b": 4}))
    ids = sorted(target.files, reverse=True)
    preprocessing = Preprocessing(image_size=8, mean=MEAN, std=STD, interpolation="bicubic", crop=0.9)
    batches = list(prepare_images(target.files, ids, preprocessing=preprocessing, batch_size=4, workers=workers))
    assert [len(batch_ids) for batch_ids, _ in batches] == [4, 4, 1]
    assert [image_id for batch_ids, _ in batches for image_id in batch_ids] == ids
    for batch_ids, pixels in batches:
        for image_id, square in zip(batch_ids, pixels, strict=True):
            expected = fit_square(read_image(target.files[image_id]), 8, interpolation="bicubic", crop=0.9)
            np.testing.assert_array_equal(square, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_went_bad_is_an_error(make_tree, workers):
    target = open_target(make_tree({"a": 40, "b": 4}))
    target.files["a/3.png"].write_bytes(b"")
    preprocessing = Preprocessing(image_size=8, mean=MEAN, std=STD)
    with pytest.raises(DataError, match=r"a/3\.png: the file is empty"):
        list(prepare_images(target.files, sorted(target.files), preprocessing=preprocessing, workers=workers))
