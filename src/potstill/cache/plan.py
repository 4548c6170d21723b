"""Which rows are computed together and where they go: decided once, whoever computes them, and when.

While rows are missing, `plan-ID.safetensors` in the folder of the entry lists their images in order; the id is a hash
of that list. They are computed in parts of a few hundred rows, `part-ID-000000.safetensors` and on, so that an
interruption loses little and processes can share the work. When all parts are there they are joined to shards, which
are few and so fast to read, and the plan is forgotten. Whatever happened on the way, the shards are the same files with
the same bytes.

Targets that share images may have plans in one entry at the same time; each is finished by whoever has its images.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.cache.encoding import Arrays
from potstill.cache.shards import open_shard, write_arrays, write_shard
from potstill.cache.store import OutputStore
from potstill.errors import CacheError

PART_ROWS = 256
SHARD_ROWS = 65_536
"""A multiple of PART_ROWS."""
ABANDONED_SECONDS = 86400.0
"""A plan that nobody worked on for so long, and that has images which are not there, is joined as far as it went."""


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
    return bool(_plans(store))


def rows_left(store: OutputStore, digests: Collection[str]) -> list[str]:
    """Those of the sha256 hex digests whose rows are still to be computed, sorted; rows in parts are computed."""
    missing = store.missing(list(digests))
    if not missing:
        return []
    done = {digest for plan in _plans(store) for part in _read(store, plan) if part.is_there for digest in part.digests}
    return [digest for digest in missing if digest not in done]


def planned_parts(store: OutputStore, digests: Collection[str]) -> list[PlannedPart]:
    """The parts that are to be computed so that all of `digests` have rows; the caller holds the lock of the entry.

    A plan that was begun is gone on with if all of its images are among `digests`; what no plan has is planned now.

    Raises CacheError if a plan or a part is damaged, OutputError if the cache cannot be written.
    """
    finish_plans(store)
    missing = set(store.missing(list(digests)))
    if not missing:
        return []
    found: list[PlannedPart] = []
    for plan in _plans(store):
        parts = _read(store, plan)
        left = [part for part in parts if not part.is_there and not store.has_shard(part.shard)]
        if all(digest in digests for part in left for digest in part.digests):
            found += left
            missing -= {digest for part in parts for digest in part.digests}
        elif _idle_seconds(plan, parts) > ABANDONED_SECONDS:
            _join(store, plan, parts)
            missing &= set(store.missing(list(missing)))
    return found + (_plan(store, sorted(missing)) if missing else [])


def finish_plans(store: OutputStore) -> None:
    """Join the parts of plans that are complete, and forget those; the caller holds the lock of the entry.

    Raises CacheError if a part is damaged, OutputError if the cache cannot be written.
    """
    for plan in _plans(store):
        parts = _read(store, plan)
        if all(part.is_there or store.has_shard(part.shard) for part in parts):
            _join(store, plan, parts)


def _plan(store: OutputStore, digests: list[str]) -> list[PlannedPart]:
    hashes = np.frombuffer(bytes.fromhex("".join(digests)), dtype=np.uint8).reshape(-1, 32)
    reserved = {part.shard for plan in _plans(store) for part in _read(store, plan)}
    count = -(-len(digests) // SHARD_ROWS)
    numbers = np.array(store.free_numbers(count, reserved), dtype=np.uint32)
    sizes = np.array([PART_ROWS, SHARD_ROWS], dtype=np.uint32)
    path = store.folder / f"plan-{hashlib.sha256(hashes.tobytes()).hexdigest()[:16]}.safetensors"
    write_arrays(path, {"digests": hashes, "numbers": numbers, "sizes": sizes}, rows=0)
    return _read(store, path)


def _join(store: OutputStore, plan: Path, parts: list[PlannedPart]) -> None:
    """Make shards of the parts that are there, and remove them and the plan."""
    for number in sorted({part.shard for part in parts}):
        there = [part for part in parts if part.shard == number and part.is_there]
        if there and not store.has_shard(number):
            store.join_rows(number, [part.path for part in there])
    # In this order, so that whoever is stopped in between leaves a plan that says what is left to do.
    for part in parts:
        _remove(part.path)
    _remove(plan)
    store.refresh()


def _plans(store: OutputStore) -> list[Path]:
    return [record.with_suffix(".safetensors") for record in sorted(store.folder.glob("plan-*.json"))]


def _read(store: OutputStore, plan: Path) -> list[PlannedPart]:
    arrays = open_shard(plan)
    rows, shard_rows = (int(each) for each in arrays["sizes"])
    hashes = [bytes(digest).hex() for digest in arrays["digests"]]
    if len(arrays["numbers"]) != -(-len(hashes) // shard_rows):
        raise CacheError(f"The cache file {plan} makes no sense. Delete it.")
    identity = plan.stem.removeprefix("plan-")
    return [
        PlannedPart(
            number=number,
            shard=int(arrays["numbers"][start // shard_rows]),
            digests=tuple(hashes[start : min(start + rows, start - start % shard_rows + shard_rows)]),
            path=store.folder / f"part-{identity}-{number:06d}.safetensors",
        )
        for number, start in enumerate(range(0, len(hashes), rows))
    ]


def _idle_seconds(plan: Path, parts: list[PlannedPart]) -> float:
    """How long ago anybody wrote to the plan."""
    files = [plan, *(part.path for part in parts if part.is_there)]
    return time.time() - max(file.stat().st_mtime for file in files if file.exists())


def _remove(path: Path) -> None:
    path.with_suffix(".json").unlink(missing_ok=True)  # without its record a file does not count
    path.unlink(missing_ok=True)
