"""`potstill rank`: which labels it reads, what its record holds, and what some metrics need beside the outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import potstill as ps
from potstill.config import build_config
from potstill.errors import UnknownNameError
from potstill.pipeline.preparation import gather_material, open_configured
from potstill.pipeline.ranking import rank_material, rank_zoo, with_companions
from potstill.similarity import AUTO, AUTO_BESIDE, SIMILARITIES


class WatchedLabels(Mapping[str, int]):
    """Labels that note which of them are read."""

    def __init__(self, labels: Mapping[str, int]) -> None:
        self._labels = labels
        self.read: set[str] = set()

    def __getitem__(self, image_id: str) -> int:
        self.read.add(image_id)
        return self._labels[image_id]

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("somebody went through all labels")

    def __len__(self) -> int:
        return len(self._labels)


def test_only_labels_of_labeled_training_images_are_read(digits: Path, models: Path) -> None:
    metrics = ",".join(name for name in SIMILARITIES if name != "rsa")
    config = build_config({"zoo": str(models / "zoo.yaml"), "labels_per_class": 4, "metric": metrics, "offline": True})
    target = open_configured(digits, config)
    material = gather_material(target, config)
    labels, hidden = WatchedLabels(target.labels), WatchedLabels(target.hidden_labels)
    ranking = rank_material(material, replace(target, labels=labels, hidden_labels=hidden), config)
    assert ranking.scores()
    assert labels.read == set(target.split.labeled)
    assert not hidden.read
    assert set(target.labels) > labels.read  # there were others to be read


@pytest.fixture(scope="module")
def record(digits: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    values = {
        "zoo": str(models / "zoo.yaml"),
        "labels_per_class": 8,
        "offline": True,
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
    }
    return rank_zoo(digits, config=build_config(values))


def test_record_of_auto_holds_several_metrics_and_their_agreement(record: dict[str, Any]) -> None:
    assert record["metric"] == AUTO
    assert list(record["sources"][0]["scores"]) == [AUTO, *AUTO_BESIDE]
    assert set(record["agreement"]) == {AUTO, *AUTO_BESIDE, "params", "depth", "stated-accuracy"}
    assert record["resamples"] > 0
    assert record["permutations"] > 0
    assert record["decided"] in (True, False)


def test_record_holds_ranks_and_baselines(record: dict[str, Any]) -> None:
    first = record["sources"][0]
    assert sum(first["rank_probabilities"]) == pytest.approx(1)
    assert first["rank_probability"] == first["rank_probabilities"][0]
    assert 0 < first["p_value"] <= 1
    assert set(first["baselines"]) == {"params", "depth"}
    assert first["baselines"]["params"] == first["params"]


def test_named_metrics_have_no_companions() -> None:
    config = build_config({"metric": "knn"})
    assert with_companions(config) == config
    assert with_companions(build_config({})).metric.split(",")[0] == "auto"


def test_reference_source_of_rsa(digits: Path, models: Path) -> None:
    values = {"zoo": str(models / "zoo.yaml"), "labels_per_class": 8, "metric": "rsa", "offline": True}
    ranking = rank_zoo(digits, config=build_config({**values, "reference": "source"}))
    rows = {row["name"]: row for row in ranking["sources"]}
    assert rows["source"]["score"] is None  # it would be compared with itself
    assert "this source is the reference" in rows["source"]["error"]
    assert -1 <= rows["headless"]["score"] <= 1
    assert ranking["related"] is None  # no labels were looked at
    with pytest.raises(UnknownNameError, match="Did you mean 'source'"):
        rank_zoo(digits, config=build_config({**values, "reference": "sorce"}))
    without = rank_zoo(digits, config=build_config(values))
    assert "--reference" in without["sources"][0]["error"]


def test_random_weights_of_kite(digits: Path, models: Path) -> None:
    values = {"zoo": str(models / "zoo.yaml"), "labels_per_class": 8, "metric": "kite", "offline": True}
    first, second = (rank_zoo(digits, config=build_config(values)) for _ in range(2))
    scores = [row["score"] for row in first["sources"]]
    assert all(score is not None for score in scores)
    assert scores == [row["score"] for row in second["sources"]]


def test_from_python_a_metric_can_be_a_ranker(digits: Path, models: Path) -> None:
    target = ps.open_target(digits, labels_per_class=8)
    outputs = ps.extract(target, ps.load_zoo(models / "zoo.yaml"))
    ranking = ps.rank(outputs, target, metric="stack")
    assert sum(ranking.scores().values()) == pytest.approx(1)
