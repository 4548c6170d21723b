"""List the entries of a cache, check every file in it, and remove what is damaged."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from potstill.cache.key import is_current
from potstill.cache.records import locked, read_record
from potstill.cache.shards import open_shard
from potstill.cache.store import LOCK, MANIFEST
from potstill.errors import CacheError, OutputError, unknown_name

NOTES = ("known", "measured", "rankings")
"""Folders of small records, each of which is made again when it is wanted and not there."""


@dataclass(frozen=True)
class CacheEntry:
    """One key of the cache. `source` is the name at first use; `rows` and `size` (bytes) count finished shards.

    `view` is the number of the stored view, 0 for the plain one.
    """

    key: str
    source: str
    architecture: str
    rows: int
    size: int
    feature_dim: int
    num_classes: int
    view: int = 0
    used: float = 0.0
    """When rows were last read or written, in seconds since 1970."""
    stale: bool = False
    """Whether this version of Pillow and of the store will never read it."""


@dataclass(frozen=True)
class DamagedFile:
    """A file of the cache that does not hold what was written, and what to do about it."""

    path: Path
    reason: str


def cache_summary(cache_dir: Path) -> tuple[CacheEntry, ...]:
    """The entries of a cache, by source name, view and key; damaged ones are left out (`verify_cache` names them).

    Only manifests and records are read: the cost does not depend on the number of rows.
    """
    found = [entry for folder in _folders(cache_dir) if (entry := _entry(folder)) is not None]
    return tuple(sorted(found, key=lambda entry: (entry.source, entry.view, entry.key)))


def _entry(folder: Path) -> CacheEntry | None:
    """The entry of a folder, or None if there is none or it is damaged."""
    try:
        manifest = read_record(folder / MANIFEST)
        records = [read_record(path) for path in sorted(folder.glob("shard-*.json"))]
        used = (folder / MANIFEST).stat().st_mtime
    except (CacheError, OSError):
        return None
    source, fields = manifest["source"], manifest["fields"]
    view = fields["view"]
    return CacheEntry(
        key=folder.name,
        source=source["name"],
        architecture=fields["source"].get("architecture", fields["source"]["kind"]),
        rows=sum(record["rows"] for record in records),
        size=sum(record["bytes"] for record in records),
        feature_dim=source["feature_dim"],
        num_classes=source["num_classes"],
        view=view if isinstance(view, int) else view["number"],
        used=used,
        stale=not is_current(fields),
    )


def verify_cache(cache_dir: Path) -> tuple[DamagedFile, ...]:
    """Check every file of every entry, and what else is noted in the cache, against its checksum; reads all of it."""
    damaged = []
    for path in (path for folder in NOTES for path in sorted((cache_dir / folder).glob("*.json"))):
        try:
            read_record(path)
        except CacheError as error:
            damaged.append(DamagedFile(path, str(error)))
    for folder in _folders(cache_dir):
        records = [path for path in sorted(folder.glob("*.json")) if path.name != MANIFEST]
        for path in [folder / MANIFEST, *records] if records or (folder / MANIFEST).exists() else []:
            try:
                if path.name == MANIFEST:
                    read_record(path)
                else:
                    open_shard(path.with_suffix(".safetensors"))
            except CacheError as error:
                if path.name == MANIFEST or path.exists():  # else it was joined to a shard meanwhile
                    damaged.append(DamagedFile(path, str(error)))
    return tuple(damaged)


def prune_cache(
    cache_dir: Path,
    *,
    sources: Collection[str] = (),
    unused_days: float | None = None,
    stale: bool = False,
    dry_run: bool = False,
) -> tuple[CacheEntry, ...]:
    """Delete the entries that any of the conditions holds for, and return them.

    Args:
        cache_dir: the cache.
        sources: names of sources, as `cache_summary` has them.
        unused_days: entries whose rows were not used for so many days.
        stale: entries that were made by another version of Pillow or of the store.
        dry_run: delete nothing.

    Raises UnknownNameError for a source of which there is no entry, OutputError if a file cannot be deleted.
    """
    entries = cache_summary(cache_dir)
    for name in sources:
        if name not in {entry.source for entry in entries}:
            raise unknown_name("source in the cache", name, sorted({entry.source for entry in entries}))
    oldest = -math.inf if unused_days is None else time.time() - unused_days * 86400

    def is_chosen(entry: CacheEntry) -> bool:
        return entry.source in sources or entry.used < oldest or (stale and entry.stale)

    chosen = tuple(entry for entry in entries if is_chosen(entry))
    if dry_run:
        return chosen
    gone = []
    for entry in chosen:
        folder = cache_dir / "outputs" / entry.key
        with locked(folder / LOCK):
            now = _entry(folder)  # it may have been used, or have grown, while we waited
            if now is None or not is_chosen(now):
                continue
            # The manifest goes last: until then what is left is an entry with fewer rows. Folder and lock stay, for
            # another process may wait for it.
            files = [path for path in folder.iterdir() if path.name not in (LOCK, MANIFEST)]
            for path in [*sorted(files), folder / MANIFEST]:
                _delete(path)
            gone.append(now)
    return tuple(gone)


def repair_cache(cache_dir: Path) -> tuple[DamagedFile, ...]:
    """Delete what `verify_cache` finds, and return it.

    A damaged shard or note goes alone, with a damaged manifest all of its entry. What is wanted of it is made again.

    Raises OutputError if a file cannot be deleted.
    """
    damaged = verify_cache(cache_dir)
    for file in damaged:
        folder = file.path.parent
        if folder.name in NOTES:
            _delete(file.path)
            continue
        with locked(folder / LOCK):
            pattern = "*" if file.path.name == MANIFEST else f"{file.path.stem}.*"
            for path in folder.glob(pattern):
                if path.name != LOCK:
                    _delete(path)
    return damaged


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"Cannot delete {path}: {error.strerror or error}. Check the rights of its folder."
        ) from error


def _folders(cache_dir: Path) -> list[Path]:
    return sorted(path for path in (cache_dir / "outputs").glob("*") if path.is_dir())
