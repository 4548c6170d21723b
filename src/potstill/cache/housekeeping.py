"""List the entries of a cache, check every file in it, and remove what is damaged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from potstill.cache.records import locked, read_record
from potstill.cache.shards import open_shard
from potstill.cache.store import LOCK, MANIFEST
from potstill.errors import CacheError, OutputError


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


@dataclass(frozen=True)
class DamagedFile:
    """A file of the cache that does not hold what was written, and what to do about it."""

    path: Path
    reason: str


def cache_summary(cache_dir: Path) -> tuple[CacheEntry, ...]:
    """The entries of a cache, by source name, view and key; damaged ones are left out (`verify_cache` names them).

    Only manifests and records are read: the cost does not depend on the number of rows.
    """
    entries = []
    for folder in _folders(cache_dir):
        try:
            manifest = read_record(folder / MANIFEST)
            records = [read_record(path) for path in sorted(folder.glob("shard-*.json"))]
        except CacheError:
            continue
        source = manifest["source"]
        view = manifest["fields"]["view"]
        entries.append(
            CacheEntry(
                key=folder.name,
                source=source["name"],
                architecture=manifest["fields"]["source"]["architecture"],
                rows=sum(record["rows"] for record in records),
                size=sum(record["bytes"] for record in records),
                feature_dim=source["feature_dim"],
                num_classes=source["num_classes"],
                view=view if isinstance(view, int) else view["number"],
            )
        )
    return tuple(sorted(entries, key=lambda entry: (entry.source, entry.view, entry.key)))


def verify_cache(cache_dir: Path) -> tuple[DamagedFile, ...]:
    """Check every file of every entry against its checksum; reads the whole cache."""
    damaged = []
    for folder in _folders(cache_dir):
        records = [path for path in sorted(folder.glob("*.json")) if path.name != MANIFEST]
        for path in [folder / MANIFEST, *records] if records or (folder / MANIFEST).exists() else []:
            try:
                if path.name == MANIFEST:
                    read_record(path)
                else:
                    open_shard(path.with_suffix(".safetensors"))
            except CacheError as error:
                damaged.append(DamagedFile(path, str(error)))
    return tuple(damaged)


def repair_cache(cache_dir: Path) -> tuple[DamagedFile, ...]:
    """Delete what `verify_cache` finds, and return it: a damaged shard alone, all of an entry with a damaged manifest.

    The next extraction computes those rows again. Raises OutputError if a file cannot be deleted.
    """
    damaged = verify_cache(cache_dir)
    for file in damaged:
        folder = file.path.parent
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
