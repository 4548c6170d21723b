"""Every command on real images, from the outside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from potstill.reporting import read_json, read_predictions

Run = Callable[..., Any]
METHODS = (
    "transfer,probe,pseudo-label,fixmatch,softmatch,nearest,equal,weighted,weighted-without-source,stacked,self-distilled,"
    "start-nearest,source-finetune,auto,ceiling"
)


@pytest.fixture
def distilled(potstill: Run, digits: Path, student_options: list[str], tmp_path: Path) -> Path:
    """A run directory of `distill`."""
    directory = tmp_path / "run"
    outcome = potstill("distill", digits, "--labels-per-class", 4, "--output", directory, *student_options)
    assert outcome.code == 0, outcome.err
    return directory


def test_rank_counts_forwards_and_only_new_photos_cost(
    potstill: Run, own_digits: Path, models: Path, tmp_path: Path
) -> None:
    command = ["rank", own_digits, "--zoo", models / "zoo.yaml", "--metric", "parc,knn,leep", "--json"]
    command += ["--cache-dir", tmp_path / "cache"]
    first = potstill(*command).json
    assert first["forwards"] == 96 * 2
    assert potstill(*command).json["forwards"] == 0
    for number in range(10):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (9, 7, 3), dtype=np.uint8)).save(
            own_digits / "z" / f"new{number}.png"
        )
    assert potstill(*command).json["forwards"] == 10 * 2
    by_name = {row["name"]: row for row in first["sources"]}
    assert by_name["headless"]["scores"]["leep"]["score"] is None
    assert "probs" in by_name["headless"]["scores"]["leep"]["error"]
    assert by_name["source"]["license"] == "MIT"
    scores = [row["score"] for row in first["sources"]]
    assert scores == sorted(scores, reverse=True)


def test_rank_of_the_scored_images_alone(potstill: Run, digits: Path, models: Path, tmp_path: Path) -> None:
    command = ["rank", digits, "--zoo", models / "zoo.yaml", "--labels-per-class", 3, "--cache-dir", tmp_path]
    quick = potstill(*command, "--scoring-only", "--json").json
    assert quick["forwards"] == 4 * 3 * 2
    whole = potstill(*command, "--json").json
    assert [row["score"] for row in quick["sources"]] == pytest.approx([row["score"] for row in whole["sources"]])


def test_distill_writes_a_complete_run_directory(distilled: Path) -> None:
    files = {path.name for path in distilled.iterdir()}
    assert files >= {
        "config.yaml",
        "environment.json",
        "splits.csv",
        "ranking.json",
        "weights.json",
        "metrics.jsonl",
        "student",
        "predictions.parquet",
        "results.json",
        "report.html",
        "log.txt",
    }
    record = read_json(distilled / "results.json")
    predictions = read_predictions(distilled / "predictions.parquet")
    assert record["accuracy"] == pytest.approx((predictions.probs.argmax(1) == predictions.labels).mean())
    assert sum(record["weights"].values()) == pytest.approx(1)
    assert record["labels_used"] == 16
    lines = [json.loads(line) for line in (distilled / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for path in distilled.rglob("*"):
        if path.suffix in {".yaml", ".json", ".jsonl", ".csv", ".html", ".txt"}:
            assert str(Path.home()) not in path.read_text(encoding="utf-8"), path.name
            assert str(distilled.parent) not in path.read_text(encoding="utf-8"), path.name


def test_evaluate_repeats_the_accuracy_and_predict_agrees(potstill: Run, distilled: Path, digits: Path) -> None:
    record = read_json(distilled / "results.json")
    evaluated = potstill("evaluate", distilled, digits, "--json").json
    assert evaluated["part"] == "test part"
    assert evaluated["accuracy"] == pytest.approx(record["accuracy"])
    stored = read_predictions(distilled / "predictions.parquet")
    files = [digits / image_id for image_id in stored.image_ids]
    lines = [json.loads(line) for line in potstill("predict", distilled, *files, "--json").out.splitlines()]
    given = np.array([[line["probs"][name] for name in stored.classes] for line in lines])
    np.testing.assert_allclose(given, stored.probs, atol=1e-5)
    plain = potstill("predict", distilled, digits / "o").out.splitlines()
    assert len(plain) == 24
    assert plain[0].split("\t")[1] in stored.classes


def test_evaluate_a_run_with_unlabeled_images_and_bad_ones(
    potstill: Run, own_digits: Path, student_options: list[str], tmp_path: Path
) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    for number in range(6):
        (own_digits / "o" / f"{number:03d}.png").rename(pool / f"{number}.png")
    (own_digits / "i" / "000.png").write_bytes(b"")
    run = tmp_path / "run"
    command = ["distill", own_digits, "--unlabeled", pool, "--max-bad", "0.1", "--split-seed", "3", "--output", run]
    assert potstill(*command, *student_options).code == 0
    evaluated = potstill("evaluate", run, own_digits, "--json").json
    assert evaluated["part"] == "test part"
    assert evaluated["accuracy"] == pytest.approx(read_json(run / "results.json")["accuracy"])


def test_run_by_a_method_without_sources_and_a_test_part_of_the_users_own(
    potstill: Run, digits: Path, student_options: list[str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for name in ("o", "i", "z", "e"):
        for part, numbers in (("train", range(8)), ("test", range(8, 12))):
            (data / part / name).mkdir(parents=True)
            for number in numbers:
                (data / part / name / f"{number}.png").write_bytes((digits / name / f"{number:03d}.png").read_bytes())
    outcome = potstill("run", data, "--method", "transfer", "--output", tmp_path / "run", *student_options, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["labels_used"] == 32
    assert "cross_validation" not in outcome.json
    assert (tmp_path / "run" / "ranking.json").exists()
    refused = potstill("run", data, "--cross-validate", "--output", tmp_path / "other", *student_options)
    assert refused.code == 2
    assert "train on the test part" in refused.err


def test_a_finished_run_on_changed_images_is_not_taken_over(
    potstill: Run, own_digits: Path, student_options: list[str], tmp_path: Path
) -> None:
    command = ["compare", own_digits, "--output", tmp_path / "cmp", "--seeds", "1", *student_options]
    assert potstill(*command, "--methods", "probe").code == 0
    Image.new("L", (8, 8), 99).save(own_digits / "o" / "000.png")
    refused = potstill(*command, "--methods", "probe,transfer", "--resume")
    assert refused.code == 2
    assert "images have changed" in refused.err


def test_evaluate_on_other_data_says_so(potstill: Run, distilled: Path, own_digits: Path) -> None:
    Image.new("L", (8, 8), 200).save(own_digits / "o" / "other.png")
    outcome = potstill("evaluate", distilled, own_digits, "--json").json
    assert outcome["part"] == "all labeled images"
    assert outcome["images"] == 97
    assert outcome["trained_on"] > 0
    (own_digits / "i").rename(own_digits / "j")
    refused = potstill("evaluate", distilled, own_digits)
    assert refused.code == 3
    assert "does not know the class(es) j" in refused.err


def test_predict_names_an_unreadable_file_and_goes_on(
    potstill: Run, distilled: Path, digits: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    outcome = potstill("predict", distilled, broken, digits / "o" / "000.png")
    assert outcome.code == 0
    assert "broken.png" in outcome.err
    assert len(outcome.out.splitlines()) == 1
    assert potstill("predict", distilled, tmp_path / "none").code == 3


def test_compare_resumes_report_and_paired_statistics(
    potstill: Run, digits: Path, student_options: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "cmp"
    command = ["compare", digits, "--labels-per-class", 4, "--seeds", 2, "--output", root, *student_options, "--json"]
    outcome = potstill(*command, "--methods", METHODS)
    assert outcome.code == 0, outcome.err
    results = outcome.json
    names = METHODS.split(",")
    assert [(run["method"], run["seed"]) for run in results["runs"]] == [
        (name, seed) for seed in (0, 1) for name in names
    ]
    by_name = {(run["method"], run["seed"]): run for run in results["runs"]}
    assert by_name["ceiling", 0]["labels_used"] > by_name["transfer", 0]["labels_used"] == 16
    assert by_name["weighted-without-source", 0]["weights"] == {"headless": 1.0}
    assert by_name["start-nearest", 0]["weights"] == {"headless": 1.0}  # the only one of the student's architecture
    assert not list(root.glob("*/teacher"))
    finetuned = by_name["source-finetune", 0]
    (started,) = finetuned["weights"]
    assert finetuned["student"]["name"] == {"source": "timm/test_resnet", "headless": "timm/test_efficientnet"}[started]
    assert by_name["auto", 0]["chosen"] in ("stacked", "transfer")
    assert by_name["transfer", 0]["images_trained"] == 4 * 24
    assert by_name["fixmatch", 0]["images_seen"] > by_name["fixmatch", 0]["images_trained"]
    assert results["references"][0]["name"] == "source-probe"
    accuracies = [by_name["weighted", seed]["accuracy"] for seed in (0, 1)]
    assert results["summary"]["weighted"]["mean"] == pytest.approx(np.mean(accuracies))
    assert results["summary"]["weighted"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert (root / "report.html").exists()
    assert potstill("report", root).code == 0
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/student/model.safetensors")}
    again = potstill(*command, "--methods", METHODS, "--resume")
    assert [run["accuracy"] for run in again.json["runs"]] == [run["accuracy"] for run in results["runs"]]
    assert again.json["summary"] == results["summary"]
    assert {path: path.stat().st_mtime_ns for path in root.glob("*/student/model.safetensors")} == before
    changed = potstill(*command, "--methods", METHODS, "--resume", "--lr", "0.5")
    assert changed.code == 2
    assert "lr: 0.03 -> 0.5" in changed.err


def test_run_cross_validates_when_the_test_part_is_small(
    potstill: Run, digits: Path, student_options: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "run"
    outcome = potstill("run", digits, "--output", root, *student_options, "--json")
    assert outcome.code == 0, outcome.err
    record = outcome.json
    folds = record["cross_validation"]
    assert folds["images"] == 96
    assert record["labels_used"] == 96
    rights = [
        read_json(path)["accuracy"] * len(read_predictions(path.parent / "predictions.parquet").labels)
        for path in (root / "folds").glob("*/results.json")
    ]
    assert folds["accuracy"] == pytest.approx(sum(rights) / (96 * folds["repeats"]))
    asked = [
        image_id
        for path in sorted((root / "folds").glob("repeat0-*"))
        for image_id in read_predictions(path / "predictions.parquet").image_ids
    ]
    assert len(asked) == len(set(asked)) == 96
    assert any("related" in sentence for sentence in record["findings"])
    refused = potstill("evaluate", root, digits)
    assert refused.code == 3
    assert "keeps no test part" in refused.err


def test_a_stored_configuration_repeats_the_run_bit_for_bit(
    potstill: Run, distilled: Path, digits: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    outcome = potstill("distill", digits, "--config", distilled / "config.yaml", "--output", again)
    assert outcome.code == 0, outcome.err
    weights = Path("student") / "model.safetensors"
    assert (again / weights).read_bytes() == (distilled / weights).read_bytes()
