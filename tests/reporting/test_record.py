"""Files are written whole or not at all, hold no NaN and no trace of the machine's owner, and read back the same."""

import getpass
import json
import os
import platform

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from potstill.errors import DataError, OutputError
from potstill.reporting import (
    environment_record,
    read_predictions,
    read_results,
    read_yaml,
    write_csv,
    write_json,
    write_lines,
    write_predictions,
    write_text,
    write_yaml,
)


def test_json_reads_back_with_numpy_values_as_plain_ones(tmp_path):
    value = {"a": np.float32(0.5), "b": np.arange(2), "c": (1, None, True, "ü"), "d": {"e": np.int64(3)}}
    write_json(tmp_path / "x.json", value)
    expected = {"a": 0.5, "b": [0, 1], "c": [1, None, True, "ü"], "d": {"e": 3}}
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("nan"), np.array([1.0, np.nan])])
def test_json_without_a_meaning_is_refused_and_the_old_file_stays(tmp_path, bad):
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError, match=r"at \$\.runs\[0\]\.ece"):
        write_json(tmp_path / "x.json", {"runs": [{"ece": bad}]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(("bad", "place"), [({1: 2}, r"at \$"), ({"a": {object()}}, r"set at \$\.a")])
def test_json_refuses_what_it_cannot_hold(tmp_path, bad, place):
    with pytest.raises(TypeError, match=place):
        write_json(tmp_path / "x.json", bad)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"^Cannot write .*x\.json: .*--output"):
        write_json(tmp_path / "file" / "x.json", {})


def test_a_crash_while_moving_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    write_text(tmp_path / "log.txt", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_text(tmp_path / "log.txt", "new")
    assert (tmp_path / "log.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_lines_and_yaml_read_back(tmp_path):
    write_lines(tmp_path / "metrics.jsonl", [{"step": 0, "loss": np.float64(1.5)}, {"step": 1, "loss": 1.0}])
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0, "loss": 1.5}\n{"step": 1, "loss": 1.0}\n'
    with pytest.raises(ValueError, match=r"at \$\[0\]\.loss"):
        write_lines(tmp_path / "metrics.jsonl", [{"loss": float("nan")}])
    value = {"student": "timm/x", "classes": ["yes", "ü"], "lr": 0.1, "minutes": None, "mean": (0.5, 1)}
    write_yaml(tmp_path / "config.yaml", value)
    assert read_yaml(tmp_path / "config.yaml") == value | {"mean": [0.5, 1]}
    assert list(read_yaml(tmp_path / "config.yaml")) == list(value)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "as YAML"), ("- 1", "a mapping"), ("!!python/name:os.system", "YAML")]
)
def test_other_yaml_is_refused(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_yaml(tmp_path / "config.yaml")


def test_csv(tmp_path):
    write_csv(tmp_path / "splits.csv", ("image_id", "label"), [("a,b.jpg", None), ("c.jpg", "x")])
    assert (tmp_path / "splits.csv").read_bytes() == b'image_id,label\n"a,b.jpg",\nc.jpg,x\n'
    with pytest.raises(ValueError, match="Expected 2 cells"):
        write_csv(tmp_path / "splits.csv", ("image_id", "label"), [("a.jpg",)])


def test_predictions_read_back(tmp_path):
    probs = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]], dtype=np.float32)
    path = tmp_path / "predictions.parquet"
    write_predictions(path, ["a.jpg", "b/c.jpg", "d.jpg"], np.array([1, -1, 0]), probs, ("yes", "no, <b>"))
    table = pq.read_table(path)
    assert [f"{field.name}:{field.type}" for field in table.schema] == [
        "image_id:string",
        "label:string",
        "probs:list<element: float>",
    ]
    assert table["label"].to_pylist() == ["no, <b>", None, "yes"]
    back = read_predictions(path)
    assert back.image_ids == ("a.jpg", "b/c.jpg", "d.jpg")
    assert back.classes == ("yes", "no, <b>")
    np.testing.assert_array_equal(back.labels, [1, -1, 0])
    np.testing.assert_array_equal(back.probs, probs)


def test_predictions_without_labels_and_without_images(tmp_path):
    path = tmp_path / "p.parquet"
    write_predictions(path, ["a.jpg"], None, np.array([[0.5, 0.5]]), ("x", "y"))
    np.testing.assert_array_equal(read_predictions(path).labels, [-1])
    write_predictions(path, [], None, np.zeros((0, 2)), ("x", "y"))
    assert read_predictions(path).probs.shape == (0, 2)


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        (np.array([0]), np.full((2, 2), 0.5), "as many labels"),
        (np.array([0, 1]), np.full((2, 3), 0.3), r"shape \(2, 2\)"),
        (np.array([0, 2]), np.full((2, 2), 0.5), "below 2, got 2"),
        (np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 1]]), r"b\.jpg are not finite"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path, labels, probs, message):
    with pytest.raises(DataError, match=message):
        write_predictions(tmp_path / "p.parquet", ["a.jpg", "b.jpg"], labels, probs, ("x", "y"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"not parquet at all"])
def test_damaged_predictions_are_named(tmp_path, content):
    path = tmp_path / "predictions.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"predictions\.parquet could not be read") as caught:
        read_predictions(path)
    assert str(tmp_path) not in str(caught.value)


def test_a_single_run_reads_as_a_comparison_of_one(tmp_path):
    run = {"schema": 1, "method": "transfer", "seed": 0, "status": "done", "accuracy": 0.5}
    write_json(tmp_path / "results.json", run)
    results = read_results(tmp_path)
    assert results["runs"] == [run]
    assert results["summary"] == {}
    assert results["references"] == []


@pytest.mark.parametrize(
    ("text", "message"), [("{", "as JSON"), ("[]", "no results"), ('{"schema": 2, "runs": []}', "schema 2, .* reads 1")]
)
def test_other_results_are_refused(tmp_path, text, message):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_results(tmp_path)


def test_the_environment_names_versions_and_hardware_but_no_owner(tmp_path):
    record = environment_record()
    write_json(tmp_path / "environment.json", record)
    assert (
        record["packages"]["torch"] == torch.__version__.split("+")[0]
        or torch.__version__ == record["packages"]["torch"]
    )
    assert record["packages"]["numpy"] == np.__version__
    assert record["python"] == platform.python_version()
    assert record["cores"] >= 1
    text = (tmp_path / "environment.json").read_text()
    for secret in (platform.node(), getpass.getuser(), os.getcwd(), os.path.expanduser("~")):  # noqa: PTH109, PTH111
        assert secret not in text
