"""What is kept beside the rows of a cache entry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from potstill.cache import extract_source, keep_derived, kept_derived, repair_cache, verify_cache
from potstill.errors import CacheError


@pytest.fixture
def entry(target, headless, tmp_path):
    """The cache directory and key of an extracted source."""
    return tmp_path / "cache", extract_source(headless, target, list(target.files), cache_dir=tmp_path / "cache").key


def test_arrays_come_back_and_whoever_came_first_decides(entry):
    first = {"mean": np.arange(3, dtype=np.float32), "centres": np.eye(2, 3, dtype=np.float32)}
    assert kept_derived(*entry, "clusters-a") is None
    for arrays in (first, {name: array + 1 for name, array in first.items()}):
        for found in (keep_derived(*entry, "clusters-a", arrays), kept_derived(*entry, "clusters-a")):
            assert {name: array.tolist() for name, array in found.items()} == {
                name: array.tolist() for name, array in first.items()
            }
    assert kept_derived(*entry, "clusters-b") is None


def test_nothing_is_kept_for_rows_from_elsewhere(tmp_path):
    arrays = {"mean": np.zeros(3, dtype=np.float32)}
    assert keep_derived(tmp_path, "given", "clusters-a", arrays) is arrays
    assert not list(tmp_path.iterdir())


def test_damage_is_noticed_and_repaired_alone(entry, target, headless):
    cache_dir, key = entry
    keep_derived(cache_dir, key, "clusters-a", {"mean": np.zeros(3, dtype=np.float32)})
    assert verify_cache(cache_dir) == ()
    (file,) = cache_dir.rglob("derived-clusters-a.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CacheError, match=r"derived-clusters-a\.\* .*computed again"):
        kept_derived(cache_dir, key, "clusters-a")
    assert [Path(one.path).stem for one in repair_cache(cache_dir)] == ["derived-clusters-a"]
    assert kept_derived(cache_dir, key, "clusters-a") is None
    assert extract_source(headless, target, list(target.files), cache_dir=cache_dir).cost.forwards == 0
