"""The cache: what sources say about images, computed once and kept on disk by image content."""

from potstill.cache.derived import keep_derived, kept_derived
from potstill.cache.extraction import extract_outputs, extract_source, fill_cache, open_jobs
from potstill.cache.forecast import SourceForecast, forecast_extraction
from potstill.cache.housekeeping import CacheEntry, DamagedFile, cache_summary, prune_cache, repair_cache, verify_cache
from potstill.cache.images import ImageReader
from potstill.cache.shards import ShardedRows
from potstill.cache.store import default_cache_dir

__all__ = [
    "CacheEntry",
    "DamagedFile",
    "ImageReader",
    "ShardedRows",
    "SourceForecast",
    "cache_summary",
    "default_cache_dir",
    "extract_outputs",
    "extract_source",
    "fill_cache",
    "forecast_extraction",
    "keep_derived",
    "kept_derived",
    "open_jobs",
    "prune_cache",
    "repair_cache",
    "verify_cache",
]
