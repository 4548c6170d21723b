"""What is asked of a source: which of its entries shall have rows, for one view each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from potstill.cache.encoding import row_bytes
from potstill.cache.rows import AskedSource
from potstill.cache.store import OutputStore


@dataclass(frozen=True, eq=False)
class Entry:
    """One view of one source in the cache; `fields` are those of its key."""

    view: int
    fields: Mapping[str, Any]
    store: OutputStore

    @property
    def bytes_a_row(self) -> int:
        """Of an entry with a manifest, where float16 does for features."""
        source = (self.store.manifest or {})["source"]
        sizes = int(source["feature_dim"]), int(source["num_classes"])
        return row_bytes(*sizes, self.store.kept_classes, with_features=self.view == 0)


@dataclass(frozen=True, eq=False)
class Job:
    """A source, and its entries that may lack rows."""

    name: str
    asked: AskedSource
    entries: tuple[Entry, ...]

    @property
    def keys(self) -> set[str]:
        """Of all its entries."""
        return {entry.store.key for entry in self.entries}
