"""Every kind of file decodes to what a viewer shows; files are made here and pixel values are known by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from potstill.data import read_image
from potstill.data.images import SUFFIXES
from potstill.errors import DataError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(size=16):
    """Red, green / blue, white: every corner is told apart."""
    image = np.zeros((size, size, 3), np.uint8)
    half = size // 2
    image[:half, :half], image[:half, half:], image[half:, :half], image[half:, half:] = RED, GREEN, BLUE, WHITE
    return image


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif"])
def test_lossless_formats_are_read_exactly(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(quarters()).save(path)
    assert f".{suffix}" in SUFFIXES
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, quarters())


def test_webp_and_jpeg_are_read(tmp_path):
    Image.fromarray(quarters()).save(tmp_path / "a.webp", lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp"), quarters())
    Image.fromarray(quarters(32)).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - quarters(32)).mean() < 3


def test_rows_and_columns_keep_their_place(tmp_path):
    Image.fromarray(np.zeros((3, 7, 3), np.uint8)).save(tmp_path / "wide.png")
    assert read_image(tmp_path / "wide.png").shape == (3, 7, 3)


def test_bilevel_and_grey(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "one.png")
    np.testing.assert_array_equal(read_image(tmp_path / "one.png")[0, :, 0], [0, 255])
    Image.fromarray(np.array([[7, 200]], np.uint8)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png")[0], [[7, 7, 7], [200, 200, 200]])


def test_alpha_is_laid_over_the_background(tmp_path):
    Image.fromarray(np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], [RED, WHITE, [127, 127, 127]])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", background=BLUE)[0], [RED, BLUE, [0, 0, 127]])


def test_grey_with_alpha(tmp_path):
    Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png")[0], [[10, 10, 10], WHITE])


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_palette_with_transparency(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([*RED, *GREEN, *BLUE])
    image.save(tmp_path / "p.png", transparency=transparency)
    np.testing.assert_array_equal(read_image(tmp_path / "p.png")[0], [RED, WHITE, BLUE])


def test_colour_key_transparency(tmp_path):
    Image.fromarray(np.array([[RED, GREEN]], np.uint8)).save(tmp_path / "key.png", transparency=GREEN)
    np.testing.assert_array_equal(read_image(tmp_path / "key.png")[0], [RED, WHITE])


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 25700, 65535]], np.uint16)
    for name in ("deep.png", "deep.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name)[0, :, 0], [0, 1, 100, 255])


def test_sixteen_bit_grey_with_a_colour_key(tmp_path):
    Image.fromarray(np.array([[0, 65535, 500]], np.uint16)).save(tmp_path / "deep.png", transparency=500)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png", background=RED)[0], [(0, 0, 0), WHITE, RED])


def test_thirty_two_bit_integers_are_sixteen_bit_values_or_an_error(tmp_path):
    Image.fromarray(np.array([[0, 65535]], np.int32)).save(tmp_path / "i.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "i.tiff")[0, :, 1], [0, 255])
    Image.fromarray(np.array([[0, 65536]], np.int32)).save(tmp_path / "big.tiff")
    with pytest.raises(DataError, match=r"big\.tiff: a 32-bit image with values outside 0\.\.65535; save it"):
        read_image(tmp_path / "big.tiff")


def test_floating_point_must_lie_in_0_to_1(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "f.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "f.tiff")[0, :, 2], [0, 128, 255])
    for bad in (300.0, np.nan):
        Image.fromarray(np.array([[0.0, bad]], np.float32)).save(tmp_path / "bad.tiff")
        with pytest.raises(DataError, match=r"floating-point image with values outside 0\.\.1"):
            read_image(tmp_path / "bad.tiff")


def test_cmyk(tmp_path):
    flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    flat.save(tmp_path / "c.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "c.tiff")[8, 8], RED)
    flat.save(tmp_path / "c.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "c.jpg")[8, 8].astype(int) - RED).max() <= 3


def test_ycck_jpeg(tmp_path):
    """Adobe's YCCK is CMYK whose first three channels were turned into YCbCr; byte 11 of its marker says so.

    In the file: Y, Cb, Cr, K = 76, 85, 255, 255. As YCbCr that is red, so C, M, Y, K = 0, 255, 255, 255 by the JPEG
    rule C = 255 - R; Adobe stores ink inverted, so the inks are 255, 0, 0, 0: cyan.
    """
    buffer = io.BytesIO()
    channels = [
        Image.new("L", (16, 16), 255 - stored) for stored in (76, 85, 255, 255)
    ]  # Pillow inverts when it writes
    Image.merge("CMYK", channels).save(buffer, "JPEG", quality=100)
    content = bytearray(buffer.getvalue())
    content[content.index(b"Adobe") + 11] = 2
    (tmp_path / "y.jpg").write_bytes(bytes(content))
    assert np.abs(read_image(tmp_path / "y.jpg").astype(int) - (0, 255, 255)).max() <= 3


# What the pixels of `quarters` become: the EXIF standard says how a viewer turns the stored image for each value.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_exif_orientation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = quarters()[:, :10]
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), UPRIGHT[orientation](stored))


def test_exif_orientation_of_a_photo(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(quarters(32)[:, :24]).save(tmp_path / "a.jpg", exif=exif, quality=95)
    pixels = read_image(tmp_path / "a.jpg")
    assert pixels.shape == (24, 32, 3)
    assert np.abs(pixels[2, 29].astype(int) - RED).max() < 20  # the stored top left is at the top right


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_orientation(tmp_path):
    Image.fromarray(quarters()).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95)
    assert read_image(tmp_path / "a.jpg").shape == (16, 16, 3)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_first_frame_of_an_animation(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), np.full((8, 8, 3), RED))


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_decompression_bomb_is_an_error(tmp_path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"x") + png_chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(DataError, match=r"bomb\.png: more pixels than Pillow opens safely"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif"])
def test_truncated_files_are_errors(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"a\.{suffix}: .+ Expected a JPEG, PNG, WEBP, BMP, TIFF or GIF image\."):
        read_image(path)


def test_other_bad_files(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_bytes(b"<html>not found</html>")
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PPM")
    (tmp_path / "other.png").write_bytes(buffer.getvalue())  # Pillow could, but this decoder is not allowed
    with pytest.raises(DataError, match=r"empty\.jpg: the file is empty \(0 bytes\)"):
        read_image(tmp_path / "empty.jpg")
    for name in ("page.jpg", "other.png"):
        with pytest.raises(DataError, match=f"{name}: not a JPEG, PNG, WEBP, BMP, TIFF or GIF image, or damaged"):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match=r"missing\.jpg: cannot read the file \(No such file or directory\)"):
        read_image(tmp_path / "missing.jpg")
