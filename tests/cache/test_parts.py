"""Several processes fill one cache, each its shards, and any of them may be killed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill.cache import cache_summary, extract_outputs, fill_cache, plan, repair_cache, verify_cache
from potstill.cache.records import locked
from potstill.cache.store import LOCK, OutputStore
from potstill.errors import CacheError, UsageError
from potstill.types import Zoo

SCRIPT = """
import sys
from pathlib import Path
from typing import Any
tests, root, cache, part, pause = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], float(sys.argv[5])
sys.path.insert(0, tests)
root.mkdir()
import time
from conftest import make_source, make_target
from potstill.cache import fill_cache, plan
from potstill.types import Zoo
plan.SHARD_ROWS, plan.PART_ROWS = 8, 4
target = make_target(root / "images", 30)
specs = [make_source(root, "five", num_classes=5, seed=0), make_source(root, "headless", num_classes=0, seed=1)]
zoo = Zoo("two", {spec.name: spec for spec in specs})
number = None if part == "all" else tuple(int(each) for each in part.split("/"))
print("ready", flush=True)
def progress(task, done, total):
    time.sleep(pause)
fill_cache(target, zoo, list(target.files), cache_dir=cache, batch_size=2, part=number, workers=1, progress=progress)
"""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SHARD_ROWS", 8)
    monkeypatch.setattr(plan, "PART_ROWS", 4)


@pytest.fixture
def zoo(spec, headless) -> Zoo:
    return Zoo("two", {"five": spec, "headless": headless})


def contents(cache_dir: Path) -> dict[str, bytes]:
    files = (path for path in sorted((cache_dir / "outputs").rglob("*")) if path.is_file() and path.name != "lock")
    return {str(path.relative_to(cache_dir)): path.read_bytes() for path in files}


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_any_number_of_parts_makes_the_same_cache(parts: int, thirty, zoo: Zoo, tmp_path: Path) -> None:
    ids = list(thirty.files)
    extract_outputs(thirty, zoo, ids, cache_dir=tmp_path / "whole", batch_size=2)
    made = 0
    for number in reversed(range(parts)):
        forwards, missing, errors = fill_cache(
            thirty, zoo, ids, cache_dir=tmp_path / "parts", batch_size=2, part=(number, parts)
        )
        assert errors == {}
        made += sum(forwards.values())
        assert sum(missing.values()) == 60 - made
    assert made == 60
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_another_number_of_parts_goes_on(thirty, zoo: Zoo, tmp_path: Path) -> None:
    ids = list(thirty.files)
    extract_outputs(thirty, zoo, ids, cache_dir=tmp_path / "whole", batch_size=2)
    arguments = {"cache_dir": tmp_path / "parts", "batch_size": 2}
    first, _, _ = fill_cache(thirty, zoo, ids, part=(1, 3), **arguments)
    second, missing, _ = fill_cache(thirty, zoo, ids, part=(0, 2), **arguments)
    assert sum(missing.values()) == 60 - sum(first.values()) - sum(second.values()) > 0
    outputs, _ = extract_outputs(thirty, zoo, ids, **arguments)
    assert sum(one.cost.forwards for one in outputs.values()) == sum(missing.values())
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_images_that_come_while_a_plan_is_open_wait_for_the_next(thirty, zoo: Zoo, tmp_path: Path) -> None:
    ids = list(thirty.files)
    arguments = {"cache_dir": tmp_path / "cache", "batch_size": 2}
    fill_cache(thirty, zoo, ids[:20], part=(0, 2), **arguments)
    outputs, _ = extract_outputs(thirty, zoo, ids, **arguments)
    assert all(len(one.features) == 30 for one in outputs.values())
    assert not list((tmp_path / "cache").rglob("plan-*"))
    assert verify_cache(tmp_path / "cache") == ()


def test_two_targets_that_share_images_do_not_disturb_each_other(thirty, zoo: Zoo, tmp_path: Path) -> None:
    """Parts of two pools in turns: every pass counts, and neither drops what the other planned."""
    ids = list(thirty.files)
    pools = (ids[:20], ids[10:])
    arguments = {"cache_dir": tmp_path / "cache", "batch_size": 2}
    for number in (0, 1):
        for pool in pools:
            fill_cache(thirty, zoo, pool, part=(number, 2), **arguments)
    for pool in pools:
        _, missing, errors = fill_cache(thirty, zoo, pool, part=(0, 1), **arguments)
        assert errors == {}
        assert set(missing.values()) == {0}
    outputs, _ = extract_outputs(thirty, zoo, ids, **arguments)
    fresh, _ = extract_outputs(thirty, zoo, ids, cache_dir=tmp_path / "fresh", batch_size=2)
    for name, one in outputs.items():
        assert one.cost.forwards == 0
        np.testing.assert_allclose(
            np.asarray(one.features, np.float64), np.asarray(fresh[name].features), rtol=1e-2, atol=1e-3
        )
    assert not list((tmp_path / "cache").rglob("plan-*"))
    assert not list((tmp_path / "cache").rglob("part-*"))


def test_images_that_are_all_there_are_read_while_others_are_computed(thirty, spec, zoo: Zoo, tmp_path: Path) -> None:
    ids = list(thirty.files)
    arguments = {"cache_dir": tmp_path / "cache", "batch_size": 2}
    extract_outputs(thirty, zoo, ids[:10], **arguments)
    fill_cache(thirty, zoo, ids, part=(0, 2), **arguments)
    spec.weights.unlink()  # nothing is opened
    folder = OutputStore(tmp_path / "cache", cache_key_of(tmp_path / "cache")).folder
    with locked(folder / LOCK):  # as the process that computes has it
        outputs, errors = extract_outputs(thirty, zoo, ids[:10], **arguments)
    assert errors == {}
    assert all(one.cost.forwards == 0 for one in outputs.values())


def cache_key_of(cache_dir: Path) -> str:
    return next(entry.key for entry in cache_summary(cache_dir) if entry.source == "five")


def test_an_abandoned_plan_is_joined_as_far_as_it_went(
    thirty, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = list(thirty.files)
    arguments = {"cache_dir": tmp_path / "cache", "batch_size": 2}
    computed, _, _ = fill_cache(thirty, zoo, ids, part=(0, 2), **arguments)
    monkeypatch.setattr(plan, "ABANDONED_SECONDS", -1.0)  # some images are gone for good
    outputs, errors = extract_outputs(thirty, zoo, ids[:25], **arguments)
    assert errors == {}
    assert all(len(one.features) == 25 for one in outputs.values())
    assert sum(one.cost.forwards for one in outputs.values()) <= 60 - sum(computed.values())
    assert not list((tmp_path / "cache").rglob("plan-*"))


def test_damage_in_every_file_of_work_in_progress_is_found(thirty, spec, tmp_path: Path) -> None:
    """Plans and parts too: verify and reading name the file, repair deletes it alone, and the rest is computed."""
    ids, zoo = list(thirty.files), Zoo("one", {spec.name: spec})
    arguments: dict[str, Any] = {"batch_size": 2}
    extract_outputs(thirty, zoo, ids, cache_dir=tmp_path / "whole", **arguments)
    fill_cache(thirty, zoo, ids, cache_dir=tmp_path / "begun", part=(0, 2), **arguments)
    begun = contents(tmp_path / "begun")
    assert {Path(name).name.partition("-")[0] for name in begun} == {"manifest.json", "plan", "part"}
    for number, (name, content) in enumerate(begun.items()):
        for changed in (content[:-1], content[:40] + bytes([content[40] ^ 16]) + content[41:]):
            cache_dir = tmp_path / f"damaged-{number}-{len(changed)}"
            shutil.copytree(tmp_path / "begun", cache_dir)
            (cache_dir / name).write_bytes(changed)
            (found,) = verify_cache(cache_dir)
            assert found.path.stem == Path(name).stem
            with pytest.raises(CacheError, match=Path(name).stem):
                extract_outputs(thirty, zoo, ids, cache_dir=cache_dir, **arguments)
            repair_cache(cache_dir)
            outputs, _ = extract_outputs(thirty, zoo, ids, cache_dir=cache_dir, **arguments)
            if Path(name).name.startswith("part"):  # the others were computed before it was read
                assert outputs[spec.name].cost.forwards == 4
            assert contents(cache_dir) == contents(tmp_path / "whole")


@pytest.mark.parametrize("part", [(2, 2), (-1, 2), (0, 0)])
def test_a_part_that_is_none(part: tuple[int, int], thirty, zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="part must be i/n"):
        fill_cache(thirty, zoo, list(thirty.files), cache_dir=tmp_path, part=part)


def start(root: Path, cache: Path, part: str, pause: float) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(root), str(cache), part, str(pause)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_kills_at_random_moments_leave_a_cache_that_grows_to_the_same_bytes(thirty, zoo: Zoo, tmp_path: Path) -> None:
    """Two processes at a time, killed again and again, first as two parts, then as three, then alone."""
    ids = list(thirty.files)
    extract_outputs(thirty, zoo, ids, cache_dir=tmp_path / "whole", batch_size=2)
    rng = random.Random(0)
    kills = int(os.environ.get("POTSTILL_TEST_KILLS", "6"))
    for round_number in range((kills + 1) // 2):
        parts = ("0/2", "1/2") if round_number % 2 == 0 else ("1/3", "all")
        roots = [tmp_path / f"process-{round_number}-{number}" for number in (0, 1)]
        processes = [start(root, tmp_path / "killed", part, 0.05) for root, part in zip(roots, parts, strict=True)]
        time.sleep(rng.uniform(0.0, 0.5))
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
    extract_outputs(thirty, zoo, ids, cache_dir=tmp_path / "killed", batch_size=2)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
