"""Which rows go into which shard: decided once for all images that lack a row, whoever computes them, and when."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from potstill.cache.shards import open_shard, write_arrays
from potstill.cache.store import OutputStore
from potstill.errors import CacheError

PLAN = "plan.safetensors"
PlannedShard = tuple[int, tuple[str, ...]]


def planned_shards(store: OutputStore, digests: Collection[str], *, rows: int) -> list[PlannedShard]:
    """Number and images of every shard that is still to be written; the caller holds the entry's lock.

    An unfinished plan is gone on with, so that shards are the same files with the same bytes after any interruption
    and for any number of processes. It is dropped if it has images that are not among `digests`, which nobody could
    compute. Images that came since wait for the next plan.

    Raises CacheError if the plan is damaged, OutputError if the cache cannot be written.
    """
    path = store.folder / PLAN
    if path.with_suffix(".json").is_file():
        shards = list(_read(path))
        left = [(number, images) for number, images in shards if not store.has_shard(number)]
        if left and all(digest in digests for _, images in left for digest in images):
            return left
        _remove(path)
    missing = store.missing(list(digests))
    if not missing:
        return []
    count = -(-len(missing) // rows)
    hashes = np.frombuffer(bytes.fromhex("".join(missing)), dtype=np.uint8).reshape(-1, 32)
    numbers = np.array(store.free_numbers(count), dtype=np.uint32)
    write_arrays(path, {"digests": hashes, "numbers": numbers, "rows": np.array([rows], dtype=np.uint32)}, rows=0)
    return list(_read(path))


def finish_plan(store: OutputStore) -> None:
    """Forget a plan whose shards are all there; the caller holds the entry's lock."""
    path = store.folder / PLAN
    if path.with_suffix(".json").is_file() and all(store.has_shard(number) for number, _ in _read(path)):
        _remove(path)


def _read(path: Path) -> Iterator[PlannedShard]:
    arrays = open_shard(path)
    per_shard = int(arrays["rows"][0])
    hashes = [bytes(digest).hex() for digest in arrays["digests"]]
    if len(arrays["numbers"]) != -(-len(hashes) // per_shard):
        raise CacheError(f"The cache file {path} makes no sense. Delete it.")
    for position, number in enumerate(arrays["numbers"].tolist()):
        yield int(number), tuple(hashes[position * per_shard : (position + 1) * per_shard])


def _remove(path: Path) -> None:
    path.with_suffix(".json").unlink(missing_ok=True)  # without its record the file does not count
    path.unlink(missing_ok=True)
