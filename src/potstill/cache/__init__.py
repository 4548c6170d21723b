"""The cache: what sources say about images, computed once and kept on disk by image content."""

from potstill.cache.derived import keep_derived, kept_derived
from potstill.cache.extraction import extract_outputs, extract_source
from potstill.cache.housekeeping import CacheEntry, DamagedFile, cache_summary, prune_cache, repair_cache, verify_cache
from potstill.cache.images import ImageReader
from potstill.cache.shards import ShardedRows
from potstill.cache.store import default_cache_dir

__all__ = [
    "CacheEntry",
    "DamagedFile",
    "ImageReader",
    "ShardedRows",
    "cache_summary",
    "default_cache_dir",
    "extract_outputs",
    "extract_source",
    "keep_derived",
    "kept_derived",
    "prune_cache",
    "repair_cache",
    "verify_cache",
]
