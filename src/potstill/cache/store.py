"""One folder a key: a manifest and shards of rows that are addressed by the sha256 of the image file.

`<cache_dir>/outputs/<key>/manifest.json` says what the rows are and which choices were made at first use;
`shard-000000.safetensors` holds rows and `shard-000000.json` its checksum; files `plan-ID` and `part-ID-NUMBER` are of
rows that are being computed (see `plan`); files `derived-NAME` hold what was computed from rows. Files are written once
and never changed, the manifest apart, so that readers need no lock; whoever writes holds the lock of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from potstill.cache.choices import Choices
from potstill.cache.encoding import decode_logits
from potstill.cache.records import locked, read_record, repair_hint, write_record
from potstill.cache.shards import ShardedRows, join_shards, open_shard
from potstill.errors import CacheError
from potstill.types import SourceLogits

MANIFEST = "manifest.json"
LOCK = "lock"


def default_cache_dir() -> Path:
    """`POTSTILL_CACHE_DIR` if it is set, else `~/.cache/potstill`."""
    chosen = os.environ.get("POTSTILL_CACHE_DIR")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "potstill"


class OutputStore:
    """The cached rows of one key. Opening one reads every record and checks every shard (once a process).

    Raises CacheError if a file of the entry is damaged; the message says what to delete.
    """

    def __init__(self, cache_dir: Path, key: str) -> None:
        self.key = key
        self.folder = cache_dir / "outputs" / key
        self.refresh()

    def refresh(self) -> None:
        """Read the folder again: another process may have added rows."""
        manifest = self.folder / MANIFEST
        self.manifest = read_record(manifest) if manifest.is_file() else None
        if self.manifest is not None and self.manifest["key"] != self.key:
            raise CacheError(f"The cache file {manifest} is that of another key. {repair_hint(manifest)}")
        records = sorted(self.folder.glob("shard-*.json"))
        if records and self.manifest is None:
            raise CacheError(f"The cache file {manifest} is missing though rows exist. {repair_hint(manifest)}")
        self._shards = [open_shard(record.with_suffix(".safetensors")) for record in records]
        self._used = {record.stem for record in records}
        self._place: dict[bytes, tuple[int, int]] = {}
        for number, shard in enumerate(self._shards):
            for offset, digest in enumerate(shard["digests"]):
                self._place.setdefault(digest.tobytes(), (number, offset))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock of the folder; what others wrote before is visible inside. Raises OutputError."""
        with locked(self.folder / LOCK):
            for remnant in self.folder.glob(".*.tmp"):  # of a writer that was killed
                remnant.unlink(missing_ok=True)
            self.refresh()
            yield

    def note_use(self) -> None:
        """Tell `prune_cache` that the rows are used now; where the cache cannot be written, nothing is told."""
        with suppress(OSError):
            os.utime(self.folder / MANIFEST)

    @property
    def choices(self) -> Choices:
        """How the source is asked, as fixed at first use. Raises CacheError for an entry without a manifest."""
        return Choices.of(self._described())

    @property
    def kept_classes(self) -> int | None:
        """How many logits of an image rows keep, as fixed at first use: the largest ones, or None for all of them.

        Raises CacheError for an entry without a manifest.
        """
        # Entries of version 0.1 say nothing about it and keep all logits.
        kept: int | None = self._described()["choices"].get("kept_classes")
        return kept

    def _described(self) -> dict[str, Any]:
        if self.manifest is None:
            raise CacheError(f"The cache entry {self.folder} has no manifest yet.")
        return self.manifest

    def missing(self, digests: Sequence[str]) -> list[str]:
        """Those of the sha256 hex digests that have no row, sorted, each once."""
        return sorted({digest for digest in digests if bytes.fromhex(digest) not in self._place})

    def write_manifest(self, body: Mapping[str, Any]) -> None:
        """Set the manifest; its key is added. Raises OutputError."""
        self.manifest = {**body, "key": self.key}
        write_record(self.folder / MANIFEST, self.manifest)

    def has_shard(self, number: int) -> bool:
        """Whether the shard of this number is finished."""
        return _shard_name(number) in self._used or (self.folder / f"{_shard_name(number)}.json").is_file()

    def free_numbers(self, count: int, reserved: Collection[int] = ()) -> list[int]:
        """The first numbers that no shard has and that are not reserved for one."""
        numbers: list[int] = []
        number = 0
        while len(numbers) < count:
            if _shard_name(number) not in self._used and number not in reserved:
                numbers.append(number)
            number += 1
        return numbers

    def join_rows(self, number: int, parts: Sequence[Path]) -> None:
        """Write the shard of this number from the rows of others; call `refresh` to read it.

        The caller holds the lock. Raises CacheError for a damaged part, OutputError.
        """
        join_shards(self.folder / f"{_shard_name(number)}.safetensors", parts)
        self._used.add(_shard_name(number))

    def read(self, digests: Sequence[str]) -> tuple[ShardedRows | None, SourceLogits | None]:
        """Features, and logits, of images that all have a row, in the given order; None for what the entry has not.

        Raises KeyError for a digest without a row.
        """
        places = np.array([self._place[bytes.fromhex(digest)] for digest in digests], dtype=np.int64).reshape(-1, 2)
        numbers, offsets = places[:, 0].copy(), places[:, 1].copy()

        def rows(name: str) -> ShardedRows:
            return ShardedRows([shard[name] for shard in self._shards], numbers, offsets)

        names = self._shards[0]
        features = rows("features") if "features" in names else None
        return features, decode_logits(names, rows, int(self._described()["source"]["num_classes"]))


def _shard_name(number: int) -> str:
    return f"shard-{number:06d}"
