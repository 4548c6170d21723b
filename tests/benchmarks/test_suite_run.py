"""The suite's runner, on two targets that need no package."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from suite import run
from suite.tasks import TASKS
from suite.zoo import RECIPES


def test_the_quick_run_trains_and_compares_students() -> None:
    found = run.run_quick()
    assert set(found) == {"scanned-digits", "printed-digits"}
    for results in found.values():
        assert [record["method"] for record in results["runs"]] == ["transfer", "weighted"]
        assert all(record["status"] == "done" for record in results["runs"])
        assert results["summary"]["transfer"]["mean"] > 0.2  # chance is 0.1
        assert results["references"][0]["name"] == "source-probe"


def test_a_target_is_compared_without_the_sources_that_share_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suite.zoo.imagenet_entry", lambda model, size: {"name": f"{model} at {size}"})
    (tmp_path / "zoo").mkdir()
    for name in RECIPES:
        (tmp_path / "zoo" / f"{name}.json").write_text(f'{{"name": "{name}"}}')
    protocol = {
        "student": "timm/tf_efficientnet_lite0",
        "settings": {"steps": 7},
        "overrides": {"fixmatch": {"threshold": 0.8}},
        "shares_classes_with": {"mnist": ["scanned-digits"]},
        "tables": {
            "main": {
                "targets": ["mnist", "units"],
                "methods": ["transfer", "fixmatch"],
                "seeds": 3,
                "settings": {"label_fraction": 0.2},
            }
        },
    }
    jobs = {job.target: job for job in run.jobs_of(protocol, "main", tmp_path, "cpu")}
    zoo = {
        target: {entry["name"] for entry in yaml.safe_load(Path(job.settings["zoo"]).read_text())["sources"]}
        for target, job in jobs.items()
    }
    sizes = {"mnist": 48, "units": 64}
    for target, left_out in (("mnist", {"mnist", "scanned-digits"}), ("units", {"units"})):
        imagenet = {f"tf_efficientnet_lite{number} at {sizes[target]}" for number in range(3)}
        assert zoo[target] == set(RECIPES) - left_out | imagenet
    assert jobs["units"].settings["image_size"] == TASKS["units"].size
    assert (jobs["units"].settings["flip"], jobs["mnist"].settings["flip"]) == (True, False)
    assert jobs["mnist"].manifest == tmp_path / "tasks" / "mnist" / "target.csv"
