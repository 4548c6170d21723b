"""What was computed from the rows of an entry and is dear enough to be kept beside them, such as clusters."""

from __future__ import annotations

from pathlib import Path

from potstill.cache.encoding import Arrays
from potstill.cache.records import locked
from potstill.cache.shards import open_shard, write_arrays
from potstill.cache.store import LOCK, MANIFEST


def kept_derived(cache_dir: Path, key: str, name: str) -> Arrays | None:
    """The arrays that `keep_derived` has kept under this name, as memory maps; None where there are none.

    Raises CacheError if they are damaged.
    """
    path = _file(cache_dir, key, name)
    return open_shard(path) if path.with_suffix(".json").is_file() else None


def keep_derived(cache_dir: Path, key: str, name: str, arrays: Arrays) -> Arrays:
    """Keep arrays beside the rows of the entry `key`, and return what is kept there.

    Whoever comes first decides: what another process kept meanwhile stays, so that all work with the same numbers.

    Args:
        cache_dir: the cache.
        key: of the entry. Where the cache has no such entry, for the rows came from elsewhere, nothing is kept.
        name: tells what the arrays are and all that they depend on, so that other arrays have another name.
        arrays: float16 or float32, at least one.

    Raises OutputError if the cache cannot be written.
    """
    path = _file(cache_dir, key, name)
    if not (path.parent / MANIFEST).is_file():
        return arrays
    with locked(path.parent / LOCK):
        if not path.with_suffix(".json").is_file():
            write_arrays(path, arrays, rows=0)
    return open_shard(path)


def _file(cache_dir: Path, key: str, name: str) -> Path:
    return cache_dir / "outputs" / key / f"derived-{name}.safetensors"
