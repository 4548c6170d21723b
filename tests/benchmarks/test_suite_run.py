"""The suite's runner, on two targets that need no package."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from potstill.config import overridden
from potstill.pipeline.comparison import compare
from suite import run
from suite.estimates import read_table
from suite.jobs import Job
from suite.quick import quick_targets
from suite.tasks import TASKS
from suite.workers import Answer, Request, Workers, train_all
from suite.zoo import RECIPES, write_zoo


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
    monkeypatch.setattr("suite.zoo.imagenet_entry", lambda model: {"name": model})
    (tmp_path / "zoo").mkdir()
    for name in RECIPES:
        (tmp_path / "zoo" / f"{name}.json").write_text(f'{{"name": "{name}"}}')
    protocol = {
        "student": "timm/tf_efficientnet_lite0",
        "steps": {48: 8, 64: 4},
        "settings": {"batch_size": 64},
        "settings_of": {"fixmatch": {"threshold": 0.8}},
        "shares_classes_with": {"mnist": ["scanned-digits"]},
        "tables": {
            "main": {
                "targets": ["mnist", "units"],
                "methods": ["transfer", "nearest-only-*"],
                "seeds": 3,
                "settings": {"label_fraction": 0.2},
                "settings_of": {"transfer+short": {"budget": 0.25}},
            }
        },
    }
    jobs = {job.target: job for job in run.jobs_of(protocol, "main", tmp_path, "cpu")}
    zoo = {
        target: {entry["name"] for entry in yaml.safe_load(Path(job.settings["zoo"]).read_text())["sources"]}
        for target, job in jobs.items()
    }
    imagenet = {f"tf_efficientnet_lite{number}" for number in range(3)}
    for target, left_out in (("mnist", {"mnist", "scanned-digits"}), ("units", {"units"})):
        assert zoo[target] == set(RECIPES) - left_out | imagenet
    assert jobs["mnist"].methods == (
        "transfer",
        *(f"nearest-only-{source}" for source in sorted_as_in_zoo(jobs["mnist"])),
    )
    config = jobs["units"].config()
    assert (config.image_size, config.flip, config.steps, config.label_fraction) == (TASKS["units"].size, True, 4, 0.2)
    assert overridden(config, "transfer+short").steps == 1
    assert overridden(config, "fixmatch").threshold == 0.8
    config = jobs["mnist"].config()
    assert (config.flip, config.steps, overridden(config, "transfer+short").steps) == (False, 8, 2)
    assert jobs["mnist"].manifest == tmp_path / "tasks" / "mnist" / "target.csv"


def test_a_zoo_that_lacks_a_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    with pytest.raises(SystemExit, match="no source lower-case yet"):
        write_zoo(tmp_path, "mnist", {"mnist"})


def sorted_as_in_zoo(job: Job) -> list[str]:
    return [entry["name"] for entry in yaml.safe_load(Path(job.settings["zoo"]).read_text())["sources"]]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the workers have it: the last bits depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_several_processes_train_what_compare_would(tmp_path: Path) -> None:
    target, manifest, settings = next(iter(quick_targets(tmp_path)))
    settings = {**settings, "steps": 4, "precision": "float32", "memory_format": "channels-last"}
    methods = ("transfer", "nearest", "nearest+warm")
    settings["overrides"] = {"nearest+warm": {"temperature": 2.0}}
    job = Job("quick", target, manifest, tmp_path / "by-workers", methods, 2, settings)
    # The time is up at once.
    assert not train_all([job], tmp_path / "results", processes=2, threads=1, seconds=0.0).complete
    outcome = train_all([job], tmp_path / "results", processes=2, threads=1, seconds=600.0)
    assert (outcome.complete, outcome.trained, outcome.failures) == (True, 6, {})
    alone = compare(manifest, tmp_path / "alone", config=job.config(), methods=methods, seeds=2)
    together = json.loads((tmp_path / "results" / "quick" / f"{target}.json").read_text())
    assert together["summary"] == alone["summary"]
    assert {run["path"]: run["accuracy"] for run in together["runs"]} == {
        run["path"]: run["accuracy"] for run in alone["runs"]
    }
    table = read_table(tmp_path / "results" / "quick")
    assert table.methods == tuple(sorted(methods))
    for method in methods:
        assert table.accuracy(target, method) == pytest.approx(100 * alone["summary"][method]["mean"])


def quick_job(folder: Path, **settings: object) -> Job:
    target, manifest, own = next(iter(quick_targets(folder)))
    return Job("quick", target, manifest, folder / "runs", ("transfer",), 1, {**own, **settings})


def test_a_target_whose_zoo_is_short_of_a_source_is_not_trained(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    card = {"model": "timm/test_efficientnet", "num_classes": 3, "license": "Apache-2.0"}
    zoo = {"sources": [{"name": "broken", "weights": "broken.safetensors", **card}]}
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump(zoo))
    job = quick_job(tmp_path, zoo=str(tmp_path / "zoo.yaml"))
    outcome = train_all([job], tmp_path / "results", processes=1, threads=1, seconds=600.0)
    assert (outcome.complete, outcome.trained, outcome.unknown) == (False, 0, 1)
    assert list(outcome.failures) == ["ask quick/scanned-digits broken 0"]
    assert "broken.safetensors" in outcome.failures["ask quick/scanned-digits broken 0"]
    assert not (tmp_path / "results").exists()


def test_a_process_that_is_killed_is_told_and_its_work_is_left(tmp_path: Path) -> None:
    workers = Workers([quick_job(tmp_path)], processes=1, threads=1, results=tmp_path / "results")
    told: list[Answer] = []

    def say(request: Request, answer: Answer) -> None:
        told.append(answer)

    os.kill(workers.process_ids[0], signal.SIGKILL)
    asked = [Request("left", "quick/scanned-digits"), Request("collect", "quick/scanned-digits")]
    assert workers.everywhere(asked, seconds=60.0, say=say) == [None, None]
    workers.close()
    idle = Workers([quick_job(tmp_path)], processes=2, threads=1, results=tmp_path / "results")
    os.kill(idle.process_ids[0], signal.SIGKILL)
    idle.close()  # nothing was asked of the dead one, and the other ends
    assert ["ended with -9" in (answer.error or "") for answer in told] == [True]


def test_a_misspelt_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "jobs_of", lambda *arguments: iter([quick_job_without_files()]))
    for arguments, message in (
        (["--table", "man"], "Unknown table 'man'. Did you mean 'main'?"),
        (["--targets", "mnits"], "Unknown target 'mnits'"),
        (["--methods", "transfre"], "Unknown method 'transfre'. Did you mean 'transfer'?"),
    ):
        monkeypatch.setattr("sys.argv", ["run.py", *arguments])
        with pytest.raises(SystemExit, match=re.escape(message)):
            run.main()


def quick_job_without_files() -> Job:
    return Job("main", "mnist", Path("target.csv"), Path("runs"), ("transfer",), 1, {})
