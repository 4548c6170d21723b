import hashlib
import os

import pytest

from potstill.data import files, inspect_files, list_images
from potstill.errors import DataError


def test_listing_takes_images_and_counts_the_rest(make_tree, make_image):
    root = make_tree({"a": 2, "b/deep/er": 1})
    make_image(root / "UPPER.JPEG")
    for name in ("notes.txt", "photo.HEIC", "b/Thumbs.db", "b/read.txt", "LICENSE"):
        (root / name).write_text("x")
    listing = list_images(root)
    ids = [path.relative_to(root).as_posix() for path in listing.images]
    assert ids == ["UPPER.JPEG", "a/0.png", "a/1.png", "b/deep/er/0.png"]
    assert listing.other == {"(no suffix)": 1, ".db": 1, ".heic": 1, ".txt": 2}


def test_hidden_files_and_folders_are_ignored(make_tree):
    root = make_tree({"a": 1, ".ipynb_checkpoints": 1, "a/.thumbnails": 2, "__MACOSX/a": 1})
    (root / "a" / "._0.png").write_bytes(b"resource fork")
    (root / ".DS_Store").write_bytes(b"x")
    listing = list_images(root)
    assert [path.name for path in listing.images] == ["0.png"]
    assert listing.other == {}


def test_links_to_folders_are_followed_but_not_in_circles(make_tree):
    root = make_tree({"a": 1})
    make_tree({"x": 2}, root="elsewhere")
    (root / "linked").symlink_to(root.parent / "elsewhere" / "x")
    (root / "a" / "circle").symlink_to(root)
    assert len(list_images(root).images) == 3


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match=r"Cannot list the folder .*nowhere: No such file or directory\. Check that"):
        list_images(tmp_path / "nowhere")


@pytest.mark.parametrize("workers", [0, 2])
def test_inspection_hashes_and_finds_bad_files(make_tree, workers):
    root = make_tree({"a": 3})
    good, empty, text = (root / "a" / f"{k}.png" for k in range(3))
    empty.write_bytes(b"")
    text.write_bytes(b"hello")
    missing = root / "a" / "9.png"
    seen = []
    checks = inspect_files([good, empty, text, missing], workers=workers, progress=lambda *report: seen.append(report))
    assert checks[good].reason is None
    assert checks[good].digest == hashlib.sha256(good.read_bytes()).hexdigest()
    assert checks[empty].reason == "the file is empty (0 bytes)"
    assert checks[text].reason.startswith("not a JPEG, PNG")
    assert checks[missing].reason == "cannot read the file (No such file or directory)"
    assert seen == [("check images", done, 4) for done in range(5)]


def count_reads(monkeypatch):
    reads = []
    original = files.read_bytes
    monkeypatch.setattr(files, "read_bytes", lambda path: reads.append(path.name) or original(path))
    return reads


def test_answers_are_remembered_until_the_file_changes(make_tree, make_image, tmp_path, monkeypatch):
    root = make_tree({"a": 2})
    first, second = paths = sorted(root.rglob("*.png"))
    second.write_bytes(b"hello")
    cache = tmp_path / "cache"
    before = inspect_files(paths, cache_dir=cache)
    reads = count_reads(monkeypatch)
    assert inspect_files(paths, cache_dir=cache) == before
    assert reads == []
    make_image(second, "repaired")
    os.utime(second, ns=(1, 1))
    after = inspect_files(paths, cache_dir=cache)
    assert reads == ["1.png"]
    assert after[first] == before[first]
    assert after[second].reason is None
    third = make_image(root / "a" / "2.png")
    inspect_files([*paths, third], cache_dir=cache)
    assert reads == ["1.png", "2.png"]
    assert not list(cache.rglob("*.tmp"))


def test_another_pillow_version_checks_again(make_tree, tmp_path, monkeypatch):
    paths = sorted(make_tree({"a": 2}).rglob("*.png"))
    inspect_files(paths, cache_dir=tmp_path / "cache")
    reads = count_reads(monkeypatch)
    monkeypatch.setattr("PIL.__version__", "0.0")
    inspect_files(paths, cache_dir=tmp_path / "cache")
    assert len(reads) == 2


def test_a_missing_file_is_not_remembered(make_tree, make_image, tmp_path):
    root = make_tree({"a": 1})
    late = root / "a" / "late.png"
    paths = [root / "a" / "0.png", late]
    assert inspect_files(paths, cache_dir=tmp_path / "cache")[late].reason is not None
    make_image(late)
    assert inspect_files(paths, cache_dir=tmp_path / "cache")[late].reason is None


def test_a_damaged_index_is_rebuilt(make_tree, tmp_path, caplog):
    paths = sorted(make_tree({"a": 2}).rglob("*.png"))
    before = inspect_files(paths, cache_dir=tmp_path / "cache")
    (index,) = (tmp_path / "cache" / "files").iterdir()
    index.write_bytes(index.read_bytes()[:50])
    assert inspect_files(paths, cache_dir=tmp_path / "cache") == before
    assert "is damaged" in caplog.text
    caplog.clear()
    assert inspect_files(paths, cache_dir=tmp_path / "cache") == before
    assert caplog.text == ""


def test_an_unwritable_cache_is_a_warning(make_tree, tmp_path, caplog):
    paths = sorted(make_tree({"a": 1}).rglob("*.png"))
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert inspect_files(paths, cache_dir=tmp_path / "cache")[paths[0]].reason is None
    assert "are not remembered: Cannot write" in caplog.text


def test_names_that_are_not_text(make_tree, tmp_path):
    root = make_tree({"a": 1})
    odd = root / "a" / os.fsdecode(b"caf\xe9.png")
    try:
        (root / "a" / "0.png").rename(odd)
    except OSError:
        pytest.skip("this file system only has names that are text")
    for _ in range(2):
        assert inspect_files([odd], cache_dir=tmp_path / "cache")[odd].reason is None
