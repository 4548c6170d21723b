import os
import time

import numpy as np
import pytest
from PIL import Image

from potstill.data import open_target
from potstill.errors import DataError, UnknownNameError, UsageError


def counts(target):
    split = target.split
    return len(split.labeled), len(split.unlabeled), len(split.val), len(split.test)


def notes(target):
    return "\n".join(target.notes)


# Layout 1


def test_parts(make_tree):
    root = make_tree({"train/cat": 3, "train/dog/deep": 2, "val/cat": 1, "test/dog": 2, "unlabeled/any/where": 4})
    target = open_target(root)
    assert (target.layout, target.name, target.root) == ("parts", "photos", root)
    assert target.classes == ("cat", "dog")
    assert counts(target) == (5, 4, 1, 2)
    assert target.split.labeled[-1] == "train/dog/deep/1.png"
    assert target.files["test/dog/0.png"] == root / "test" / "dog" / "0.png"
    assert set(target.files) == set(target.digests) == {*target.split.pool, *target.split.val, *target.split.test}
    np.testing.assert_array_equal(target.labels_of(["train/cat/0.png", "val/cat/0.png", "test/dog/1.png"]), [0, 0, 1])
    assert set(target.labels) == {*target.split.labeled, *target.split.val, *target.split.test}
    assert target.notes[0] == "layout 'parts': test/, train/, unlabeled/, val/"
    assert "images: 5 train, 1 val, 2 test, 4 unlabeled" in target.notes


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_val_has_aliases(make_tree, name):
    target = open_target(make_tree({"train/a": 2, "train/b": 2, f"{name}/a": 1, "test/b": 1}))
    assert counts(target) == (4, 0, 1, 1)


def test_two_val_folders(make_tree):
    with pytest.raises(DataError, match="'val/' and 'valid/' are the same part; keep one"):
        open_target(make_tree({"train/a": 2, "train/b": 2, "val/a": 1, "valid/a": 1}))


def test_hidden_folders_are_neither_classes_nor_parts(make_tree):
    root = make_tree({"train/a": 2, "train/b": 2, "test/a": 1, ".git": 1, "train/.cache": 3, "train/a/.thumbs": 2})
    assert counts(open_target(root)) == (4, 0, 0, 1)
    assert open_target(root).classes == ("a", "b")


def test_another_top_folder_is_an_error(make_tree):
    root = make_tree({"train/a": 2, "train/b": 2, "tests/a": 1})
    with pytest.raises(DataError, match=r"found 'tests/'\. Did you mean 'test'\? Rename it, move it"):
        open_target(root)
    target = open_target(
        make_tree({"train/a": 2, "train/b": 2, "extra": 1}, root="other"), unlabeled=root.parent / "other/extra"
    )
    assert target.split.unlabeled == ("extra/0.png",)


def test_loose_images_in_train_are_an_error(make_tree):
    root = make_tree({"train/a": 2, "train/b": 2, "train": 1})
    with pytest.raises(
        DataError, match=r"only class folders in train/, found 1 image directly in it and 2 folders\. Put"
    ):
        open_target(root)
    assert open_target(make_tree({"train": 2, "car": 2}, root="vehicles"), layout="classes").classes == ("car", "train")


def test_loose_images_elsewhere_are_reported(make_tree):
    root = make_tree({"train/a": 2, "train/b": 2, "test/a": 1, "test": 2, ".": 1})
    target = open_target(root)
    assert counts(target) == (4, 0, 0, 1)
    assert "2 images directly in test/, in no class folder: left out" in target.notes
    assert "1 image directly in the data folder, in no class folder: left out" in target.notes


def test_other_files_and_empty_class_folders_are_reported(make_tree):
    root = make_tree({"train/a": 2, "train/b": 2, "test/a": 1})
    (root / "train" / "nothing").mkdir()
    for number in range(3):
        (root / "train" / "a" / f"{number}.heic").write_text("x")
    target = open_target(root)
    assert target.classes == ("a", "b")
    assert "train/: folders without an image are no classes: 'nothing'" in target.notes
    assert "not images, ignored: 3 .heic" in target.notes


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_class_that_training_lacks_is_an_error(make_tree, part):
    root = make_tree({"train/cat": 2, "train/dog": 2, f"{part}/Cats": 1, f"{part}/dog": 1})
    message = (
        rf"the {part} part has the class 'Cats', which no training label has\. Did you mean 'cat'\? Training classes: "
        r"'cat', 'dog'\. Rename it, or join the names with an alias, \{'Cats': 'cat'\}"
    )
    with pytest.raises(DataError, match=message):
        open_target(root)
    target = open_target(root, aliases={"Cats": "cat"})
    assert target.classes == ("cat", "dog")
    assert target.labels[f"{part}/Cats/0.png"] == 0


def test_classes_are_matched_by_name_not_by_position(make_tree):
    target = open_target(make_tree({"train/10": 2, "train/9": 2, "train/b": 2, "test/9": 1, "test/b": 1}))
    assert target.classes == ("10", "9", "b")
    assert target.labels["test/9/0.png"] == 1
    assert "labels: 1 class without a test image: '10'" in target.notes


def test_aliases_join_classes_and_unused_ones_are_reported(make_tree):
    target = open_target(make_tree({"kitty": 4, "cat": 4, "dog": 4}), aliases={"kitty": "cat", "hound": "dog"})
    assert target.classes == ("cat", "dog")
    assert "aliases that match no class: 'hound'" in target.notes


# Layout 2


def test_classes(make_tree):
    target = open_target(make_tree({"cat": 10, "dog/deep": 20}))
    assert (target.layout, target.classes) == ("classes", ("cat", "dog"))
    assert counts(target) == (21, 0, 0, 9)
    assert sum(image_id.startswith("cat/") for image_id in target.split.test) == 3
    assert "no test part: 9 of 30 labeled images drawn as test (30.0%, asked 30.0%, split seed 0)" in target.notes


def test_unlabeled_folder_outside_and_inside(make_tree):
    root = make_tree({"cat": 5, "dog": 5, "more": 3})
    outside = make_tree({"x/y": 2}, root="pool")
    inside = open_target(root, unlabeled=root / "more")
    assert inside.classes == ("cat", "dog")
    assert inside.split.unlabeled == ("more/0.png", "more/1.png", "more/2.png")
    assert "unlabeled folder more/: 3 images" in inside.notes
    both = open_target(make_tree({"cat": 5, "dog": 5}, root="b"), unlabeled=outside)
    assert both.split.unlabeled == ("../pool/x/y/0.png", "../pool/x/y/1.png")
    assert both.files["../pool/x/y/0.png"] == outside / "x" / "y" / "0.png"


def test_a_folder_named_unlabeled_beside_classes_can_be_given_as_such(make_tree):
    root = make_tree({"cat": 5, "dog": 5, "unlabeled": 3})
    target = open_target(root, unlabeled=root / "unlabeled")
    assert (target.layout, target.classes, len(target.split.unlabeled)) == ("classes", ("cat", "dog"), 3)


def test_unlabeled_folder_that_is_missing_or_empty(make_tree):
    root = make_tree({"cat": 5, "dog": 5})
    with pytest.raises(DataError, match=r"folder of unlabeled images, .*nowhere, does not exist\. Check the path"):
        open_target(root, unlabeled=root / "nowhere")
    (root.parent / "text").mkdir()
    (root.parent / "text" / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no image file \(other files: 1 \.txt\)"):
        open_target(root, unlabeled=root.parent / "text")


@pytest.mark.parametrize("name", ["unlabeled", "test", "Valid", "Train"])
def test_part_names_without_train_are_doubtful(make_tree, name):
    root = make_tree({"cat": 5, "dog": 5, name: 3})
    with pytest.raises(DataError, match=f"no folder train/, but '{name}' is the name of a part, not of a class"):
        open_target(root)
    assert name in open_target(root, layout="classes").classes


# What cannot be used


def test_nothing_there(tmp_path, make_tree):
    with pytest.raises(DataError, match=r"nowhere does not exist\. Expected a folder of images or a manifest \(\.csv"):
        open_target(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no image found in a place that is read \(no file at all\)"):
        open_target(tmp_path / "empty")
    (tmp_path / "empty" / "photo.heic").write_text("x")
    with pytest.raises(DataError, match=r"no image found .*\(1 \.heic\)"):
        open_target(tmp_path / "empty")
    with pytest.raises(DataError, match=r"no image found .*3 images directly in the data folder, in no class folder"):
        open_target(make_tree({".": 3}, root="flat"))


def test_one_class(make_tree):
    with pytest.raises(DataError, match="only one class, 'cat'; a classifier needs at least two"):
        open_target(make_tree({"cat": 5}))
    with pytest.raises(
        DataError, match=r"only one class, 'photos'.*'photos/' is the only folder and holds folders itself"
    ):
        open_target(make_tree({"photos/cat": 5, "photos/dog": 5}, root="outer"))


def test_only_unlabeled_images(make_tree):
    root = make_tree({"a": 2, "b": 2})
    with pytest.raises(DataError, match=r"no labeled training image\. At least two classes need"):
        open_target(root, unlabeled=root)


def test_bad_images_take_part_in_nothing(make_tree):
    root = make_tree({"train/a": 60, "train/b": 60, "test/a": 4, "unlabeled": 4})
    for image_id in ("train/a/3.png", "unlabeled/2.png"):
        (root / image_id).write_bytes(b"not an image")
    with pytest.raises(
        DataError, match=r"2 images of 128 cannot be read, more than max_bad allows \(1\.00%\): train/a/3"
    ):
        open_target(root)
    target = open_target(root, max_bad=0.02)
    assert [bad.image_id for bad in target.bad_images] == ["train/a/3.png", "unlabeled/2.png"]
    assert counts(target) == (119, 3, 0, 4)
    for place in (target.files, target.digests, target.labels, target.split.pool):
        assert "train/a/3.png" not in place
    assert "unreadable, left out: train/a/3.png: not a JPEG" in notes(target)


def test_one_bad_image_in_a_hundred_is_allowed(make_tree):
    root = make_tree({"a": 50, "b": 50})
    (root / "a" / "0.png").write_bytes(b"")
    assert len(open_target(root).bad_images) == 1


def test_a_class_that_becomes_empty(make_tree):
    root = make_tree({"a": 150, "b": 1})
    (root / "b" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"No training image of 'b' can be read: b/0\.png: the file is empty"):
        open_target(root)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_fraction": 1.0}, "test_fraction must be at least 0 and less than 1, got 1.0"),
        ({"max_bad": 2}, "max_bad is a share"),
        ({"label_fraction": 0.0}, "label_fraction must be greater than 0 and at most 1, got 0.0"),
        ({"labels_per_class": 0}, "labels_per_class must be at least 1, got 0"),
        ({"label_fraction": 0.5, "labels_per_class": 3}, "exclude each other"),
        ({"layout": "manifest"}, "needs a file"),
        ({"layout": "part"}, "Unknown layout 'part'. Did you mean 'parts'"),
    ],
)
def test_arguments_out_of_range(make_tree, arguments, message):
    with pytest.raises(UsageError, match=message):
        open_target(make_tree({"a": 3, "b": 3}), **arguments)


def test_unknown_layout_is_an_unknown_name(make_tree):
    with pytest.raises(UnknownNameError):
        open_target(make_tree({"a": 3, "b": 3}), layout="folders")


def test_forced_parts_without_train(make_tree):
    with pytest.raises(DataError, match="expects a folder train/ with one folder for each class"):
        open_target(make_tree({"test/a": 3}), layout="parts")


# Labels, copies, splits


def test_a_class_with_one_image_is_accepted_with_a_note(make_tree):
    target = open_target(make_tree({"a": 9, "b": 1}))
    assert target.split.labeled.count("b/0.png") == 1
    assert "labels: 1 class with one labeled image, expect little of them: 'b'" in target.notes
    assert "labels: 1 class without a test image: 'b'" in target.notes


def test_no_test_part_is_possible(make_tree):
    root = make_tree({"a": 1, "b": 1})
    with pytest.raises(DataError, match="No test part can be drawn: every image"):
        open_target(root)
    target = open_target(root, test_fraction=0)
    assert counts(target) == (2, 0, 0, 0)
    assert "no test part, and none drawn (test_fraction 0)" in target.notes


def test_hidden_labels(make_tree):
    target = open_target(make_tree({"train/a": 11, "train/b": 3, "test/a": 1, "unlabeled": 2}), label_fraction=0.1)
    assert counts(target) == (3, 13, 0, 1)  # 2 of 11 and 1 of 3: rounded up
    assert len(target.hidden_labels) == 11
    assert not set(target.hidden_labels) & set(target.labels)
    assert set(target.hidden_labels) < set(target.split.unlabeled)
    assert "labels: 3 training labels visible of 14" in target.notes


def test_copies_between_given_parts_are_counted(make_tree, make_image):
    root = make_tree({"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 1, "unlabeled": 1})
    make_image(root / "train/a/copy.png", "test/a/0")
    make_image(root / "train/b/copy.png", "test/a/0")
    make_image(root / "unlabeled/copy.png", "test/b/0")
    text = notes(open_target(root))
    assert "1 image of test also in train (exact copies)" in text
    assert "1 image of test also in unlabeled (exact copies)" in text
    assert "1 image with exact copies under another label" in text


def test_copies_stay_on_one_side_of_a_drawn_test_part(make_tree, make_image):
    root = make_tree({"a": 20, "b": 20})
    pool = make_tree({"x": 1}, root="pool")
    for number in range(20):
        make_image(root / "a" / f"copy{number}.png", f"a/{number}")
        make_image(pool / f"copy{number}.png", f"b/{number}")
    target = open_target(root, unlabeled=pool)
    test = {target.digests[image_id] for image_id in target.split.test}
    assert test.isdisjoint(target.digests[image_id] for image_id in target.split.pool)
    assert len(target.split.test) == 18
    assert "6 unlabeled images of the same group as, or equal to, a test image: left out" in target.notes
    assert len(target.split.unlabeled) == 15


def test_the_order_of_files_does_not_matter(make_tree, monkeypatch):
    root = make_tree({"a": 20, "b": 20})
    first = open_target(root, label_fraction=0.3)
    scandir = os.scandir
    monkeypatch.setattr("os.scandir", lambda folder: reversed(list(scandir(folder))))
    assert open_target(root, label_fraction=0.3) == first


def test_seeds(make_tree):
    root = make_tree({"a": 20, "b": 20})
    base = open_target(root, label_fraction=0.3)
    assert open_target(root, label_fraction=0.3, workers=2) == base
    other_labels = open_target(root, label_fraction=0.3, seed=1)
    assert other_labels.split.test == base.split.test
    assert set(other_labels.split.pool) == set(base.split.pool)
    assert other_labels.split.labeled != base.split.labeled
    assert open_target(root, label_fraction=0.3, split_seed=1).split.test != base.split.test


def test_progress_and_cache(make_tree, tmp_path):
    root = make_tree({"a": 3, "b": 3})
    reports = []
    first = open_target(root, cache_dir=tmp_path / "c", progress=lambda *report: reports.append(report))
    assert reports[-1] == ("check images", 6, 6)
    assert open_target(root, cache_dir=tmp_path / "c") == first


def test_opening_two_thousand_images_is_fast(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(2000):
        path = tmp_path / f"class{number % 10}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path, compress_level=0)
    start = time.process_time()
    assert len(open_target(tmp_path).split.labeled) == 1400
    assert time.process_time() - start < 3.0
