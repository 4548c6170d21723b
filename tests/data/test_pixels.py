import numpy as np
import pytest

from potstill.data import (
    FileSquares,
    PackedSquares,
    fit_square,
    open_squares,
    open_target,
    pack_pixels,
    pixels,
    read_image,
)
from potstill.errors import DataError, OutputError


@pytest.fixture
def target(make_tree):
    return open_target(make_tree({"a": 6, "b": 6}))


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_are_the_images(target, workers, tmp_path):
    ids = sorted(target.files, reverse=True)
    reports = []
    packed = pack_pixels(target, ids, 9, workers=workers, progress=lambda *report: reports.append(report))
    assert packed.dtype == np.uint8
    assert packed.shape == (12, 9, 9, 3)
    for row, image_id in enumerate(ids):
        np.testing.assert_array_equal(packed[row], fit_square(read_image(target.files[image_id]), 9))
    assert reports[-1] == ("decode images", 12, 12)
    mapped = pack_pixels(target, ids, 9, cache_dir=tmp_path / "cache", workers=workers)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, packed)


def test_the_second_call_decodes_nothing(target, tmp_path, monkeypatch):
    first = pack_pixels(target, target.split.pool, 9, cache_dir=tmp_path)
    monkeypatch.setattr(pixels, "read_square", None)
    np.testing.assert_array_equal(pack_pixels(target, target.split.pool, 9, cache_dir=tmp_path), first)


def test_everything_that_matters_is_in_the_name(target, tmp_path, monkeypatch):
    ids = target.split.pool
    calls = [
        (ids, 9, "bicubic"),
        (ids, 8, "bicubic"),
        (ids, 9, "bilinear"),
        (ids[::-1], 9, "bicubic"),
        (ids[:-1], 9, "bicubic"),
    ]
    for chosen, size, interpolation in calls:
        packed = pack_pixels(target, chosen, size, interpolation=interpolation, cache_dir=tmp_path)
        expected = pack_pixels(target, chosen, size, interpolation=interpolation)
        np.testing.assert_array_equal(packed, expected)
    assert len(list((tmp_path / "pixels").iterdir())) == 5
    monkeypatch.setattr("PIL.__version__", "0.0")
    pack_pixels(target, ids, 9, cache_dir=tmp_path)
    assert len(list((tmp_path / "pixels").iterdir())) == 6


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "shape"])
def test_damaged_files_are_rebuilt(target, tmp_path, caplog, damage):
    ids = target.split.pool
    first = np.array(pack_pixels(target, ids, 9, cache_dir=tmp_path))
    (file,) = (tmp_path / "pixels").iterdir()
    if damage == "shape":
        np.save(file, first[:-1])
    else:
        content = file.read_bytes()
        file.write_bytes({"truncated": content[:-100], "empty": b"", "text": b"hello, this is no array"}[damage])
    np.testing.assert_array_equal(pack_pixels(target, ids, 9, cache_dir=tmp_path), first)
    assert "decoded again" in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(pack_pixels(target, ids, 9, cache_dir=tmp_path), first)
    assert caplog.text == ""


def test_a_failed_run_leaves_nothing_behind(target, tmp_path):
    target.files["a/3.png"].write_bytes(b"")
    with pytest.raises(DataError, match=r"a/3\.png"):
        pack_pixels(target, sorted(target.files), 9, cache_dir=tmp_path)
    assert list((tmp_path / "pixels").iterdir()) == []


def test_no_images_and_no_room(target, tmp_path):
    assert pack_pixels(target, (), 9, cache_dir=tmp_path).shape == (0, 9, 9, 3)
    (tmp_path / "pixels").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="Cannot write"):
        pack_pixels(target, target.split.pool, 9, cache_dir=tmp_path)


def test_what_is_too_large_to_pack_is_decoded_when_wanted(target, tmp_path):
    ids = target.split.pool
    size = len(ids) * 9 * 9 * 3
    options = {"cache_dir": tmp_path, "interpolation": "bilinear"}
    packed = open_squares(target, ids, 9, max_packed_bytes=size, **options)
    assert isinstance(packed, PackedSquares)
    assert len(list((tmp_path / "pixels").iterdir())) == 1
    for limit in (size - 1, 0):
        decoding = open_squares(target, ids, 9, max_packed_bytes=limit, **options)
        assert isinstance(decoding, FileSquares)
        rows = np.arange(len(ids))
        np.testing.assert_array_equal(decoding.take(rows), packed.take(rows))
    assert len(list((tmp_path / "pixels").iterdir())) == 1
    assert isinstance(open_squares(target, ids, 9), PackedSquares)
