"""Which rows are computed together and where they go: decided once, whoever computes them, and when.

While rows are missing, `plan.safetensors` in the folder of the entry lists their images in order. They are computed in
parts of a few hundred rows, `part-000000.safetensors` and on, so that an interruption loses little and processes can
share the work. When all parts are there they are joined to shards, which are few and so fast to read, and the plan is
forgotten. Whatever happened on the way, the shards are the same files with the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.cache.encoding import Arrays
from potstill.cache.shards import open_shard, write_arrays, write_shard
from potstill.cache.store import OutputStore
from potstill.errors import CacheError

PLAN = "plan.safetensors"
PART_ROWS = 256
SHARD_ROWS = 4096
"""A multiple of PART_ROWS."""


@dataclass(frozen=True)
class PlannedPart:
    """Rows that are computed together: the images in order, the file they go to, and the shard that this joins."""

    number: int
    shard: int
    digests: tuple[str, ...]
    path: Path

    @property
    def is_there(self) -> bool:
        """Whether the part is written."""
        return self.path.with_suffix(".json").is_file()

    def write(self, arrays: Arrays) -> None:
        """Write the part; the caller holds the lock of the entry. Raises OutputError."""
        write_shard(self.path, arrays)


def has_plan(store: OutputStore) -> bool:
    """Whether rows of the entry were planned and are not all in shards."""
    return _plan_file(store).with_suffix(".json").is_file()


def rows_left(store: OutputStore, digests: Collection[str]) -> list[str]:
    """Those of the sha256 hex digests whose rows are still to be computed, sorted; rows in parts are computed."""
    done = {digest for part in _read(store) if part.is_there for digest in part.digests} if has_plan(store) else set()
    return [digest for digest in store.missing(list(digests)) if digest not in done]


def planned_parts(store: OutputStore, digests: Collection[str]) -> list[PlannedPart]:
    """The parts that are to be computed; the caller holds the lock of the entry.

    A plan that was begun is gone on with; images that came since wait for the next one. If it has images that are not
    among `digests`, which nobody could compute, what there is of it is kept and the others are planned anew.

    Raises CacheError if the plan or a part is damaged, OutputError if the cache cannot be written.
    """
    if has_plan(store):
        left = [part for part in _read(store) if not part.is_there and not store.has_shard(part.shard)]
        if left and all(digest in digests for part in left for digest in part.digests):
            return left
        finish_plan(store, whole=False)
    missing = store.missing(list(digests))
    if not missing:
        return []
    hashes = np.frombuffer(bytes.fromhex("".join(missing)), dtype=np.uint8).reshape(-1, 32)
    numbers = np.array(store.free_numbers(-(-len(missing) // SHARD_ROWS)), dtype=np.uint32)
    sizes = np.array([PART_ROWS, SHARD_ROWS], dtype=np.uint32)
    write_arrays(_plan_file(store), {"digests": hashes, "numbers": numbers, "sizes": sizes}, rows=0)
    return _read(store)


def finish_plan(store: OutputStore, *, whole: bool = True) -> None:
    """Join the parts to shards and forget the plan; the caller holds the lock of the entry.

    Nothing is done while parts are missing, unless `whole` is False. Raises CacheError if a part is damaged,
    OutputError if the cache cannot be written.
    """
    if not has_plan(store):
        return
    parts = _read(store)
    if whole and not all(part.is_there or store.has_shard(part.shard) for part in parts):
        return
    for number in sorted({part.shard for part in parts}):
        rows = [open_shard(part.path) for part in parts if part.shard == number and part.is_there]
        if rows and not store.has_shard(number):
            store.write_rows(number, _joined(rows))
    # In this order, so that whoever is stopped in between leaves a plan that says what is left to do.
    for part in parts:
        _remove(part.path)
    _remove(_plan_file(store))
    store.refresh()


def _joined(parts: list[Arrays]) -> Arrays:
    """The rows of several parts; where some have features in float32, all have."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read(store: OutputStore) -> list[PlannedPart]:
    path = _plan_file(store)
    arrays = open_shard(path)
    rows, shard_rows = (int(each) for each in arrays["sizes"])
    hashes = [bytes(digest).hex() for digest in arrays["digests"]]
    if len(arrays["numbers"]) != -(-len(hashes) // shard_rows):
        raise CacheError(f"The cache file {path} makes no sense. Delete it.")
    return [
        PlannedPart(
            number=number,
            shard=int(arrays["numbers"][start // shard_rows]),
            digests=tuple(hashes[start : min(start + rows, start - start % shard_rows + shard_rows)]),
            path=store.folder / f"part-{number:06d}.safetensors",
        )
        for number, start in enumerate(range(0, len(hashes), rows))
    ]


def _plan_file(store: OutputStore) -> Path:
    return store.folder / PLAN


def _remove(path: Path) -> None:
    path.with_suffix(".json").unlink(missing_ok=True)  # without its record a file does not count
    path.unlink(missing_ok=True)
