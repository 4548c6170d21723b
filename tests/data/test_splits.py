import csv
import hashlib
from collections import Counter

import pytest

from potstill.data import (
    cross_validation_folds,
    open_target,
    redraw_labels,
    scoring_ids,
    split_digest,
    target_fingerprint,
    write_splits,
)
from potstill.errors import OutputError, UsageError


@pytest.fixture
def grouped(make_image, tmp_path):
    """Two classes of 20 images in ten groups of four, eight unlabeled images of the first groups, a test part."""
    rows = ["path,label,split,group"]
    for k in range(40):
        make_image(tmp_path / f"{k:02}.png", f"train {k}")
        rows.append(f"{k:02}.png,{'ab'[k % 2]},train,g{k // 4}")
    for k in range(8):
        make_image(tmp_path / f"u{k}.png", f"unlabeled {k}")
        rows.append(f"u{k}.png,,train,g{k}")
        make_image(tmp_path / f"t{k}.png", f"test {k}")
        rows.append(f"t{k}.png,{'ab'[k % 2]},test,")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    return open_target(tmp_path / "list.csv")


def test_redrawn_labels_equal_a_fresh_opening(make_tree):
    root = make_tree({"train/a": 20, "train/b": 10, "val/a": 2, "unlabeled": 3})
    target = open_target(root, label_fraction=0.2)
    for seed in range(3):
        assert redraw_labels(target, seed, label_fraction=0.2) == open_target(root, label_fraction=0.2, seed=seed)
        assert redraw_labels(target, seed, labels_per_class=3) == open_target(root, labels_per_class=3, seed=seed)
    everything = redraw_labels(target, 0)
    assert everything == open_target(root)
    assert everything.hidden_labels == {}


def test_redrawing_refuses_both_numbers(make_tree):
    with pytest.raises(UsageError, match="exclude each other"):
        redraw_labels(open_target(make_tree({"a": 3, "b": 3})), 0, label_fraction=0.5, labels_per_class=1)


def test_folds_cover_the_labeled_images_once(make_tree):
    target = open_target(make_tree({"train/a": 11, "train/b": 23, "test/a": 1, "unlabeled": 2}))
    folds = cross_validation_folds(target, 5, 0)
    tested = [image_id for fold in folds for image_id in fold.split.test]
    assert sorted(tested) == sorted(target.split.labeled)
    for fold in folds:
        assert set(fold.split.labeled) == set(target.split.labeled) - set(fold.split.test)
        assert fold.split.unlabeled == target.split.unlabeled
        assert fold.split.val == ()
        assert set(fold.labels) == set(target.split.labeled)
        per_class = Counter(target.labels[i] for i in fold.split.test)
        assert per_class[0] in (2, 3)
        assert per_class[1] in (4, 5)
    assert cross_validation_folds(target, 5, 0) == folds
    assert cross_validation_folds(target, 5, 1) != folds


def test_folds_keep_groups_together(grouped):
    folds = cross_validation_folds(grouped, 5, 0)
    assert sorted(image_id for fold in folds for image_id in fold.split.test) == sorted(grouped.split.labeled)
    for fold in folds:
        test = {grouped.groups[i] for i in fold.split.test}
        assert len(test) == 2
        assert test.isdisjoint(grouped.groups[i] for i in fold.split.pool)


def test_folds_of_tiny_classes(make_tree):
    target = open_target(make_tree({"train/a": 6, "train/b": 1, "train/c": 2, "test/a": 1}))
    folds = cross_validation_folds(target, 3, 0)
    tested = Counter(target.labels[i] for fold in folds for i in fold.split.test)
    assert tested == {0: 6, 2: 2}  # the only image of b stays in training
    for fold in folds:
        assert {target.labels[i] for i in fold.split.labeled} == {0, 1, 2}


@pytest.mark.parametrize("folds", [1, 11])
def test_impossible_numbers_of_folds(grouped, folds):
    with pytest.raises(UsageError, match=rf"folds must be from 2 to 10 \(groups of labeled images\), got {folds}"):
        cross_validation_folds(grouped, folds, 0)


def test_scoring_set(make_tree):
    target = open_target(make_tree({"train/a": 60, "train/b": 30, "train/c": 1, "train/d": 2, "test/a": 1}))
    assert scoring_ids(target) == target.split.labeled
    chosen = scoring_ids(target, 33)
    counts = Counter(target.labels[i] for i in chosen)
    assert sum(counts.values()) == 33
    assert (counts[2], counts[3]) == (1, 2)
    assert 19 <= counts[0] <= 21
    assert chosen == tuple(sorted(chosen)) == scoring_ids(target, 33)
    assert chosen != scoring_ids(target, 33, seed=1)
    assert Counter(target.labels[i] for i in scoring_ids(target, 4)) == {0: 1, 1: 1, 2: 1, 3: 1}
    with pytest.raises(UsageError, match="at least 1, got 0"):
        scoring_ids(target, 0)


def test_scoring_set_has_labeled_training_images_only(make_tree):
    target = open_target(make_tree({"train/a": 60, "train/b": 30, "val/a": 5, "test/a": 5}), label_fraction=0.5)
    assert set(scoring_ids(target, 10)) < set(target.split.labeled)


def test_splits_file(make_tree, tmp_path):
    root = make_tree({"train/a": 2, "train/b": 3, "val/b": 1, "test/a": 1, "unlabeled": 1})
    target = open_target(root, labels_per_class=1)
    write_splits(target, tmp_path / "run" / "splits.csv")
    content = (tmp_path / "run" / "splits.csv").read_bytes()
    assert split_digest(target) == hashlib.sha256(content).hexdigest()
    rows = list(csv.DictReader(content.decode().splitlines()))
    assert list(rows[0]) == ["image_id", "split", "label", "group", "labeled"]
    assert [row["image_id"] for row in rows] == sorted(target.files)
    by_id = {row["image_id"]: row for row in rows}
    assert by_id["test/a/0.png"] == {
        "image_id": "test/a/0.png",
        "split": "test",
        "label": "a",
        "group": "",
        "labeled": "1",
    }
    assert by_id["unlabeled/0.png"] | {"split": "unlabeled", "label": "", "labeled": "0"} == by_id["unlabeled/0.png"]
    hidden = [row for row in rows if row["split"] == "train" and row["labeled"] == "0"]
    assert sorted(row["label"] for row in hidden) == ["a", "b", "b"]
    assert content.count(b"\r") == 0


def test_splits_file_is_a_manifest(grouped, tmp_path):
    write_splits(grouped, tmp_path / "again.csv")
    text = (tmp_path / "again.csv").read_text().replace("image_id", "path", 1)
    (tmp_path / "again.csv").write_text(text)
    again = open_target(tmp_path / "again.csv")
    assert again.split == grouped.split
    assert again.labels == grouped.labels
    assert again.groups == grouped.groups


def test_split_digest_changes_with_the_draw_and_the_fingerprint_does_not(make_tree):
    root = make_tree({"a": 10, "b": 10})
    first, second = open_target(root, labels_per_class=2), open_target(root, labels_per_class=2, seed=1)
    assert split_digest(first) != split_digest(second)
    assert target_fingerprint(first) == target_fingerprint(second)


def test_fingerprint_changes_with_content(make_tree, make_image):
    root = make_tree({"a": 10, "b": 10})
    before = target_fingerprint(open_target(root))
    make_image(root / "a" / "0.png", "other")
    assert target_fingerprint(open_target(root)) != before


def test_splits_that_cannot_be_written(grouped, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"Cannot write .*splits\.csv: .+\. Check the folder"):
        write_splits(grouped, tmp_path / "file" / "splits.csv")
