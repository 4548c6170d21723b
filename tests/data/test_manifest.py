import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from potstill.data import open_target
from potstill.errors import DataError, UsageError


@pytest.fixture
def write_manifest(make_tree):
    """Write a manifest of any kind beside ten images img/0.png ... img/9.png."""
    root = make_tree({"img": 10})

    def write(rows, suffix=".csv", text=None):
        path = root / f"list{suffix}"
        if text is not None:
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        elif suffix == ".csv":
            header = list(rows[0])
            lines = [
                ",".join(header),
                *(",".join("" if row[k] is None else str(row[k]) for k in header) for row in rows),
            ]
            path.write_text("\n".join(lines) + "\n")
        elif suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)
        return path

    return write


ROWS = [
    {"path": "img/0.png", "label": "cat", "split": "train", "group": "g1"},
    {"path": "img/1.png", "label": "dog", "split": "train", "group": None},
    {"path": "img/2.png", "label": None, "split": "train", "group": "g2"},
    {"path": "./img/3.png", "label": None, "split": "unlabeled", "group": None},
    {"path": "img/4.png", "label": "dog", "split": "test", "group": "g3"},
    {"path": "img/5.png", "label": "cat", "split": "valid", "group": None},
]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_all_kinds_say_the_same(write_manifest, suffix):
    path = write_manifest(ROWS, suffix)
    target = open_target(path)
    assert (target.layout, target.name, target.root) == ("manifest", "list", path.parent)
    assert target.classes == ("cat", "dog")
    assert target.split.labeled == ("img/0.png", "img/1.png")
    assert target.split.unlabeled == ("img/2.png", "img/3.png")
    assert target.split.val == ("img/5.png",)
    assert target.split.test == ("img/4.png",)
    assert target.groups == {"img/0.png": "g1", "img/2.png": "g2", "img/4.png": "g3"}
    assert target.files["img/3.png"] == path.parent / "img" / "3.png"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_as_spreadsheets_write_it(write_manifest, delimiter):
    rows = ["path,label,note", *(f"img\\{k}.png,{'a' if k % 2 else ' b '},x" for k in range(8)), ",,"]
    text = "\ufeff" + "\r\n".join(rows[:-1]).replace(",", delimiter) + "\r\n"
    target = open_target(write_manifest(None, text=text))
    assert target.classes == ("a", "b")
    assert len(target.files) == 8
    assert "columns of the manifest that are not used: 'note'" in target.notes


def test_quoted_paths_with_commas(write_manifest, make_image):
    path = write_manifest(
        None, text='path,label\n"img/0.png",a\n"x, y.png","b ""c"""\nimg/1.png,a\nimg/2.png,"b ""c"""\n'
    )
    make_image(path.parent / "x, y.png")
    assert open_target(path).classes == ("a", 'b "c"')


def test_numbers_are_names(write_manifest):
    rows = [{"path": f"img/{k}.png", "label": float(k % 2) if k < 6 else None} for k in range(8)]
    assert open_target(write_manifest(rows, ".parquet")).classes == ("0", "1")
    target = open_target(write_manifest(rows, ".jsonl"))
    assert target.classes == ("0", "1")
    assert len(target.split.unlabeled) == 2


def test_labels_of_unlabeled_rows_are_not_used(write_manifest):
    rows = [*ROWS[:3], {**ROWS[3], "label": "bird"}, *ROWS[4:]]
    target = open_target(write_manifest(rows))
    assert target.classes == ("cat", "dog")
    assert target.hidden_labels == {}
    assert "1 row of the split 'unlabeled' with a label: the label is not used" in target.notes


def test_groups_never_straddle_a_drawn_test_part(write_manifest, make_image):
    rows = [{"path": f"img/{k}.png", "label": "ab"[k % 2], "group": f"g{k // 4}"} for k in range(10)]
    path = write_manifest(rows)
    seen = set()
    for split_seed in range(5):
        target = open_target(path, split_seed=split_seed)
        test = {target.groups[image_id] for image_id in target.split.test}
        assert test.isdisjoint(target.groups[image_id] for image_id in target.split.pool)
        assert len(test) >= 1
        seen.add(frozenset(test))
    assert len(seen) > 1


def test_unlabeled_images_of_a_test_group_are_left_out(write_manifest):
    rows = [{"path": f"img/{k}.png", "label": "ab"[k % 2] if k < 6 else "", "group": f"g{k % 6}"} for k in range(10)]
    target = open_target(write_manifest(rows))
    test = {target.groups[image_id] for image_id in target.split.test}
    assert test.isdisjoint(target.groups[image_id] for image_id in target.split.pool)
    left_out = 10 - len(target.files)
    assert left_out == sum(f"g{k % 6}" in test for k in range(6, 10))


def test_groups_that_straddle_given_parts_are_reported(write_manifest):
    rows = [{**row, "group": "g1"} if row["split"] == "test" else row for row in ROWS]
    assert any(
        note.startswith("1 group in test and in another part") for note in open_target(write_manifest(rows)).notes
    )


def test_missing_files_are_bad_images(write_manifest):
    path = write_manifest([*ROWS, {"path": "img/none.png", "label": "cat", "split": "train", "group": None}])
    with pytest.raises(
        DataError, match=r"1 image of 7 cannot be read.*img/none\.png: cannot read the file \(No such file"
    ):
        open_target(path)
    assert [bad.image_id for bad in open_target(path, max_bad=0.2).bad_images] == ["img/none.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nimg/0.png,a\n", "expected the columns path and label .*found 'file', 'label'. Rename the column"),
        ("path,class\nimg/0.png,a\n", "found 'path', 'class'. Rename the column that holds the label"),
        ("path,label\nimg/0.png,a\n,b\n", "row 3 has no path"),
        ("path,label\nimg/0.png,a\n./img/0.png,b\n", "rows 2 and 3 have the same path 'img/0.png'. Keep one"),
        ("path,label,split\nimg/0.png,a,tset\n", "row 2 has the split 'tset'; expected train, .* Did you mean 'test'?"),
        ("path,label,split\nimg/0.png,,test\n", "row 2 .'img/0.png'. is of the split 'test' but has no label"),
        ("path,label\nimg/0, 1.png,a\n", "row 2 has more fields than the header. Quote values that contain ','"),
        (b"path,label\nimg/0.png,caf\xe9\n", "not UTF-8 text .* Save the CSV as UTF-8"),
        ("path,label\nimg/0.png,\n", "no labeled training image"),
        ("path,label\nimg/0.png,a\n", "only one class, 'a'"),
        ("", "expected the columns path and label"),
        ("path,label\n", "no image found"),
    ],
)
def test_bad_csv(write_manifest, text, message):
    with pytest.raises(DataError, match=message):
        open_target(write_manifest(None, text=text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"path": "img/0.png", "label": "a"}\n{"path": \n', "row 2 is not JSON"),
        ("[1]\n", "row 1 is not a JSON object"),
        ('{"path": "img/0.png", "label": ["a", "b"]}\n', "row 1, column label: expected text or a number, found"),
        (b"\xff\xfe\n", "not UTF-8 text"),
    ],
)
def test_bad_jsonl(write_manifest, text, message):
    with pytest.raises(DataError, match=message):
        open_target(write_manifest(None, ".jsonl", text=text))


def test_bad_parquet_and_other_files(write_manifest, tmp_path):
    with pytest.raises(DataError, match="not a readable Parquet file"):
        open_target(write_manifest(None, ".parquet", text="hello"))
    with pytest.raises(DataError, match=r"list\.txt is no folder and no manifest\. Expected a folder of images or"):
        open_target(write_manifest(None, ".txt", text="hello"))
    with pytest.raises(UsageError, match=r"The layout 'parts' needs a folder, but .*list\.csv is a file"):
        open_target(write_manifest(ROWS), layout="parts")
