"""`potstill cache` and `potstill zoo`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from potstill.cache import plan

Run = Callable[..., Any]


@pytest.fixture
def ranked(potstill: Run, digits: Path, models: Path, tmp_path: Path) -> Path:
    """A cache with an entry of each source of the zoo."""
    outcome = potstill("rank", digits, "--zoo", models / "zoo.yaml", "--cache-dir", tmp_path / "cache")
    assert outcome.code == 0, outcome.err
    return tmp_path / "cache"


def ask(potstill: Run, *arguments: object) -> dict[str, Any]:
    outcome = potstill(*arguments, "--json")
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def test_ls_shows_every_entry_and_what_else_there_is(potstill: Run, ranked: Path) -> None:
    record = ask(potstill, "cache", "ls", "--cache-dir", ranked)
    assert [entry["source"] for entry in record["entries"]] == ["headless", "source"]
    assert [entry["rows"] for entry in record["entries"]] == [96, 96]
    assert record["files"]["outputs"] >= sum(entry["size"] for entry in record["entries"]) > 0
    text = potstill("cache", "ls", "--cache-dir", ranked).out
    assert "2 entries" in text
    assert "known" in text
    assert "0 entries" in potstill("cache", "ls", "--cache-dir", ranked / "nothing").out


def test_verify_and_repair(potstill: Run, ranked: Path, digits: Path, models: Path) -> None:
    assert potstill("cache", "verify", "--cache-dir", ranked).code == 0
    shard = next(ranked.rglob("shard-*.safetensors"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    outcome = potstill("cache", "verify", "--cache-dir", ranked)
    assert outcome.code == 5
    assert "potstill cache repair" in outcome.err
    assert shard.name in outcome.err
    assert len(ask(potstill, "cache", "repair", "--cache-dir", ranked)["removed"]) == 1
    assert potstill("cache", "verify", "--cache-dir", ranked).code == 0
    again = ask(potstill, "rank", digits, "--zoo", models / "zoo.yaml", "--cache-dir", ranked)
    assert again["forwards"] == 96  # those of one source
    assert shard.read_bytes() == content


def test_prune_says_what_would_go_and_deletes_what_was_asked(potstill: Run, ranked: Path) -> None:
    refused = potstill("cache", "prune", "--cache-dir", ranked)
    assert refused.code == 2
    assert "--unused-days" in refused.err
    assert potstill("cache", "prune", "--source", "sorce", "--cache-dir", ranked).code == 2
    only = ["cache", "prune", "--source", "headless", "--cache-dir", ranked]
    assert [entry["source"] for entry in ask(potstill, *only, "--dry-run")["entries"]] == ["headless"]
    assert len(ask(potstill, "cache", "ls", "--cache-dir", ranked)["entries"]) == 2
    assert "1 entries" in potstill(*only).out
    assert [entry["source"] for entry in ask(potstill, "cache", "ls", "--cache-dir", ranked)["entries"]] == ["source"]
    (manifest,) = ranked.rglob("manifest.json")
    assert ask(potstill, "cache", "prune", "--unused-days", 1, "--stale", "--cache-dir", ranked)["entries"] == []
    os.utime(manifest, (time.time() - 3 * 86400,) * 2)
    assert len(ask(potstill, "cache", "prune", "--unused-days", 2, "--cache-dir", ranked)["entries"]) == 1
    assert not manifest.exists()
    assert [path.name for path in manifest.parent.iterdir()] == ["lock"]


def test_use_is_noted(potstill: Run, ranked: Path, digits: Path, models: Path) -> None:
    manifests = sorted(ranked.rglob("manifest.json"))
    for manifest in manifests:
        os.utime(manifest, (time.time() - 3 * 86400,) * 2)
    assert ask(potstill, "rank", digits, "--zoo", models / "zoo.yaml", "--cache-dir", ranked)["forwards"] == 0
    assert all(time.time() - manifest.stat().st_mtime < 600 for manifest in manifests)


def test_exported_answers_are_a_zoo_that_ranks_alike(
    potstill: Run, ranked: Path, digits: Path, models: Path, tmp_path: Path
) -> None:
    cached = ["--cache-dir", ranked]
    command = ["cache", "export", digits, "--zoo", models / "zoo.yaml", "--output", tmp_path / "out", *cached]
    record = ask(potstill, *command)
    assert record["images"] == 96
    assert {row["name"]: row["num_classes"] for row in record["sources"]} == {"source": 7, "headless": 0}
    zoo = yaml.safe_load((tmp_path / "out" / "zoo.yaml").read_text())
    assert zoo["sources"][0]["license"] == "MIT"
    features = np.load(tmp_path / "out" / "source-features.npy")
    assert features.shape == (96, record["sources"][0]["feature_dim"])
    first = ask(potstill, "rank", digits, "--zoo", models / "zoo.yaml", *cached)
    again = ask(potstill, "rank", digits, "--zoo", tmp_path / "out" / "zoo.yaml", *cached)
    assert again["forwards"] == 0
    scores = {row["name"]: row["score"] for row in first["sources"]}
    assert scores == pytest.approx({row["name"]: row["score"] for row in again["sources"]}, abs=0.01)
    assert potstill(*command).code == 2  # the folder is not empty


def test_zoo_list(potstill: Run, models: Path) -> None:
    zoos = {row["name"]: row for row in ask(potstill, "zoo", "list")["zoos"]}
    assert set(zoos) == {"mini", "light", "standard", "diverse"}
    assert zoos["diverse"]["permissive"] < zoos["diverse"]["sources"]
    rows = ask(potstill, "zoo", "list", "light")["sources"]
    params = {row["name"]: row["params"] for row in rows}
    assert params["resnet18"] == 11_689_512
    assert "ImageNet-1k" in potstill("zoo", "list", "light").out
    permissive = ask(potstill, "zoo", "list", "diverse", "--licenses", "permissive")["sources"]
    assert all(row["permissive"] for row in permissive)
    assert len(permissive) == zoos["diverse"]["permissive"]
    assert "Did you mean 'light'" in potstill("zoo", "list", "ligth").err


def test_zoo_check_names_every_source_that_cannot_be_asked(potstill: Run, models: Path, tmp_path: Path) -> None:
    good = potstill("zoo", "check", models / "zoo.yaml")
    assert good.code == 0
    assert "headless" in good.out
    entries = yaml.safe_load((models / "zoo.yaml").read_text())["sources"]
    for entry in entries:
        entry["weights"] = str(models / entry["weights"])
    entries[1]["weights"] = "gone.safetensors"
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump({"sources": entries}))
    outcome = potstill("zoo", "check", tmp_path / "zoo.yaml", "--json")
    assert outcome.code == 4
    record = json.loads(outcome.out)
    assert [row["error"] is None for row in record["sources"]] == [True, False]
    assert "gone.safetensors" in record["sources"][1]["error"]


def test_sources_without_a_permissive_licence_are_left_out(
    potstill: Run, digits: Path, models: Path, tmp_path: Path
) -> None:
    options = ["--zoo", models / "zoo.yaml", "--licenses", "permissive", "--cache-dir", tmp_path]
    outcome = potstill("rank", digits, *options, "--json")
    assert [row["name"] for row in json.loads(outcome.out)["sources"]] == ["source"]
    assert "headless (not stated)" in outcome.err


def test_fill_by_parts_and_what_it_would_take(potstill: Run, digits: Path, models: Path, tmp_path: Path) -> None:
    command = ["cache", "fill", digits, "--zoo", models / "zoo.yaml", "--cache-dir", tmp_path / "cache"]
    forecast = ask(potstill, *command, "--dry-run")
    assert [(row["name"], row["passes"]) for row in forecast["sources"]] == [("source", 96), ("headless", 96)]
    assert forecast["seconds"] > 0
    assert not (tmp_path / "cache" / "outputs").exists()
    assert "about" in potstill(*command, "--dry-run").out
    first = ask(potstill, *command, "--part", "1/2")  # all images fit into the first shard
    assert [(row["passes"], row["missing"]) for row in first["sources"]] == [(0, 96), (0, 96)]
    second = ask(potstill, *command, "--part", "0/2")
    assert [(row["passes"], row["missing"]) for row in second["sources"]] == [(96, 0), (96, 0)]
    size = sum(path.stat().st_size for path in (tmp_path / "cache" / "outputs").rglob("*.safetensors"))
    assert forecast["bytes"] == pytest.approx(size, rel=0.05)
    assert ask(potstill, *command, "--dry-run")["bytes"] == 0
    assert "missing" in potstill(*command).out
    assert potstill(*command, "--part", "2/2").code == 2


def test_fill_under_torchrun_makes_the_same_bytes(
    potstill: Run, digits: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes go on with what one of three began; parts and shards are small enough for all to have some."""
    monkeypatch.setattr(plan, "PART_ROWS", 16)
    monkeypatch.setattr(plan, "SHARD_ROWS", 32)
    command = ["cache", "fill", digits, "--zoo", models / "zoo.yaml", "--json", "--cache-dir"]
    assert potstill(*command, tmp_path / "whole").code == 0
    assert sum(row["passes"] for row in potstill(*command, tmp_path / "cache", "--part", "2/3").json["sources"]) == 64
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher += ["--redirects", "3", "--log-dir", str(tmp_path / "logs"), "-m", "potstill"]
    subprocess.run([*launcher, *map(str, command), str(tmp_path / "cache")], check=True, timeout=120)
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "logs").rglob("stdout.log"))]
    assert [record["part"] for record in records] == ["0/2", "1/2"]
    done = [sum(row["passes"] for row in record["sources"]) for record in records]
    assert sum(done) == 2 * 96 - 64
    assert min(done) > 0
    assert rows_of(tmp_path / "cache") == rows_of(tmp_path / "whole")


def rows_of(cache_dir: Path) -> dict[str, bytes]:
    """Every file of the entries."""
    folder = cache_dir / "outputs"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }
