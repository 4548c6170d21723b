"""Bad input: the exit code, and a message that says what to do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import load_file, save_file

Run = Callable[..., Any]


def refused(outcome: Any, code: int, *texts: str) -> None:
    message = " ".join(outcome.err.split())
    assert outcome.code == code, outcome.err
    for text in texts:
        assert text in message
    assert "Traceback" not in message


def test_no_images_and_no_folder(potstill: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(potstill("rank", tmp_path / "empty"), 3, "image")
    refused(potstill("rank", tmp_path / "nowhere"), 3, "nowhere", "Check the path")


def test_one_class(potstill: Run, own_digits: Path) -> None:
    for name in ("i", "z", "e"):
        shutil.rmtree(own_digits / name)
    refused(potstill("rank", own_digits), 3, "class")


def test_a_test_class_that_training_lacks(potstill: Run, own_digits: Path, tmp_path: Path) -> None:
    data = tmp_path / "parts"
    shutil.copytree(own_digits, data / "train")
    shutil.copytree(own_digits / "o", data / "test" / "oh")
    refused(potstill("rank", data), 3, "oh", "alias")


def test_unreadable_images_are_named_and_too_many_stop(
    potstill: Run, own_digits: Path, models: Path, tmp_path: Path
) -> None:
    (own_digits / "o" / "000.png").write_bytes(b"")
    command = ["rank", own_digits, "--zoo", models / "zoo.yaml", "--cache-dir", tmp_path / "cache"]
    refused(potstill(*command), 3, "o/000.png", "max_bad")
    accepted = potstill(*command, "--max-bad", "0.05", "--json")
    assert accepted.code == 0
    assert accepted.json["forwards"] == 95 * 2


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["--metric", "prac"], ["Unknown metric 'prac'", "Did you mean 'parc'"]),
        (["--zoo", "mimi"], ["mimi", "mini"]),
        (["--layout", "clases"], ["classes"]),
        (["--test-fraction", "1.5"], ["test_fraction"]),
        (["--labels-per-class", "0", "--scoring-images", "1"], ["labels_per_class", "scoring_images"]),
        (["--labels-per-class", "2", "--label-fraction", "0.5"], ["not both"]),
    ],
)
def test_wrong_options_of_rank(potstill: Run, digits: Path, models: Path, options: list[str], texts: list[str]) -> None:
    given = [] if "--zoo" in options else ["--zoo", models / "zoo.yaml"]
    refused(potstill("rank", digits, *given, *options), 2, *texts)


def test_unknown_names_of_training(potstill: Run, digits: Path, student_options: list[str], tmp_path: Path) -> None:
    command = ["distill", digits, "--output", tmp_path / "run", *student_options]
    refused(potstill(*command, "--method", "weihted"), 2, "Unknown method 'weihted'", "Did you mean 'weighted'")
    refused(potstill(*command, "--student", "timm/mobilnetv3_small_100"), 2, "mobilenetv3_small_100")
    refused(potstill(*command, "--method", "weighted-without-nobody"), 2, "nobody")
    refused(potstill(*command, "--method", "transfer-without-source"), 2, "uses no sources")
    refused(potstill(*command, "--scheme", "powr"), 2, "power")


def test_unknown_keys_of_zoo_and_configuration(potstill: Run, digits: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo.yaml"
    zoo.write_text("sources:\n  - {name: a, model: timm/test_resnet, wieghts: a.safetensors}\n")
    refused(potstill("rank", digits, "--zoo", zoo), 2, "wieghts", "weights")
    config = tmp_path / "config.yaml"
    config.write_text("lable_weight: 0.5\n")
    refused(potstill("rank", digits, "--config", config), 2, "lable_weight", "Did you mean 'label_weight'")


def test_missing_and_unfitting_weights(potstill: Run, digits: Path, models: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo.yaml"
    zoo.write_text("sources:\n  - {name: a, model: timm/test_resnet, weights: gone.safetensors, num_classes: 7}\n")
    refused(potstill("rank", digits, "--zoo", zoo), 4, "gone.safetensors")
    state = load_file(models / "source.safetensors")
    state["surplus.weight"] = state.pop("fc.weight")
    save_file(state, tmp_path / "odd.safetensors")
    zoo.write_text("sources:\n  - {name: a, model: timm/test_resnet, weights: odd.safetensors, num_classes: 7}\n")
    refused(potstill("rank", digits, "--zoo", zoo), 4, "fc.weight", "surplus.weight")


def test_one_bad_source_does_not_stop_the_others(potstill: Run, digits: Path, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "models")
    (tmp_path / "models" / "headless.safetensors").write_bytes(b"rubbish")
    outcome = potstill("rank", digits, "--zoo", tmp_path / "models" / "zoo.yaml", "--json")
    assert outcome.code == 0, outcome.err
    first, last = outcome.json["sources"]
    assert first["name"] == "source"
    assert last["score"] is None
    assert "headless.safetensors" in last["error"]
    assert str(tmp_path) not in last["error"]


def test_student_weights_of_another_architecture(
    potstill: Run, digits: Path, student_options: list[str], tmp_path: Path
) -> None:
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "other.safetensors")
    options = [*student_options, "--student-weights", tmp_path / "other.safetensors"]
    outcome = potstill("distill", digits, "--output", tmp_path / "run", *options)
    refused(outcome, 4, "other.safetensors", "another architecture")


def test_a_mistyped_path_of_student_weights_is_noticed_before_anything_is_made(
    potstill: Run, digits: Path, student_options: list[str], tmp_path: Path
) -> None:
    options = [*student_options, "--student-weights", tmp_path / "gone.safetensors"]
    refused(
        potstill("distill", digits, "--output", tmp_path / "run", *options), 4, "gone.safetensors", "--student-weights"
    )
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_touched(
    potstill: Run, digits: Path, student_options: list[str], tmp_path: Path
) -> None:
    command = ["distill", digits, "--output", tmp_path / "run", *student_options, "--method", "probe"]
    assert potstill(*command).code == 0
    refused(potstill(*command), 2, "--overwrite", "--resume")
    assert potstill(*command, "--overwrite").code == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_output(potstill: Run, digits: Path, student_options: list[str], tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    command = ["distill", digits, "--output", tmp_path / "locked" / "run", *student_options]
    refused(potstill(*command), 6, "run", "--output")


def test_output_below_a_file_cannot_be_written(
    potstill: Run, digits: Path, student_options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    command = ["distill", digits, "--output", tmp_path / "file" / "run", *student_options]
    refused(potstill(*command), 6, "--output")


def test_scores_that_a_scheme_cannot_take(
    potstill: Run, digits: Path, student_options: list[str], tmp_path: Path
) -> None:
    command = ["distill", digits, "--output", tmp_path / "run", *student_options, "--metric", "leep"]
    refused(potstill(*command, "--scheme", "power"), 2, "softmax")
    assert potstill(*command, "--scheme", "softmax", "--overwrite").code == 0


def test_a_class_with_one_labeled_image_is_accepted_with_a_warning(
    potstill: Run, own_digits: Path, student_options: list[str], tmp_path: Path
) -> None:
    for path in sorted((own_digits / "z").iterdir())[2:]:
        path.unlink()
    command = ["run", own_digits, "--output", tmp_path / "run", "--no-cross-validate"]
    outcome = potstill(*command, *student_options, "--json")
    assert outcome.code == 0, outcome.err
    findings = " ".join(outcome.json["findings"])
    assert "one labeled image" in findings
    assert "too few to tell" in findings


def test_one_label_in_every_class_names_what_needs_two(
    potstill: Run, digits: Path, student_options: list[str], tmp_path: Path
) -> None:
    command = ["distill", digits, "--labels-per-class", "1", *student_options, "--output", tmp_path / "run"]
    refused(potstill(*command), 2, "No source has a parc score", "2 images")
    outcome = potstill(*command, "--metric", "nce", "--scheme", "nearest", "--overwrite", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["weights"] == {"source": 1.0}


def test_json_errors_are_json(potstill: Run, tmp_path: Path) -> None:
    outcome = potstill("rank", tmp_path / "nowhere", "--json")
    assert outcome.code == 3
    assert outcome.json["error"]["kind"] == "DataError"


def test_a_16_bit_photo_and_a_palette_photo_are_welcome(potstill: Run, own_digits: Path, models: Path) -> None:
    Image.fromarray((np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)).save(own_digits / "o" / "deep.png")
    Image.new("P", (9, 9), 3).save(own_digits / "i" / "palette.png")
    outcome = potstill("rank", own_digits, "--zoo", models / "zoo.yaml", "--json")
    assert outcome.json["forwards"] > 0
