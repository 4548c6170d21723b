"""The clusters that stand in for the classes of a source without any: found once, kept in the cache, used by all."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from potstill.cache import keep_derived, kept_derived
from potstill.cache.encoding import Arrays
from potstill.distillation.clusters import Clusters, cluster_sample, clusters_fingerprint, find_clusters
from potstill.errors import CacheError, OutputError, UsageError
from potstill.pipeline.preparation import Material
from potstill.training.processes import process_count, process_number
from potstill.types import Rows, SourceOutputs

log = logging.getLogger(__name__)


def settle_clusters(
    material: Material, sources: Iterable[str], pool: tuple[str, ...], cache_dir: Path
) -> dict[str, Clusters]:
    """The clusters of those sources that have no classes, kept so that other processes find the same ones."""
    return {
        name: clusters_of(material, name, pool, cache_dir) for name in sources if material.outputs[name].logits is None
    }


def clusters_of(material: Material, source: str, pool: tuple[str, ...], cache_dir: Path) -> Clusters:
    """The clusters of a source's features over the pool, as they are kept beside its outputs, or found anew.

    They are kept under a digest of the features that they were found on: another pool has others. Of several
    processes that train together number 0 finds them and the others read them, as clusters found on another machine
    may differ. They are not kept where the cache has no entry of the source or cannot be written.

    Raises:
        UsageError: the source has no features.
        CacheError: the kept clusters are damaged, or process 0 has kept them where this process does not see them.
        OutputError: several processes train together and the cache cannot be written.
    """
    outputs = material.outputs[source]
    features_of_all = require_features(outputs)
    sample = cluster_sample([material.target.digests[image_id] for image_id in pool])
    features = np.asarray(features_of_all[outputs.rows(pool)[sample]], dtype=np.float32)
    name = f"clusters-{clusters_fingerprint(features)}"
    arrays = kept_derived(cache_dir, outputs.key, name)
    if arrays is None:
        if process_number() > 0:
            raise CacheError(
                f"Process {process_number()} does not find the clusters of source {source} that process 0 has kept. "
                "All processes must see the same cache, so put --cache-dir on a disk that all machines share."
            )
        started = time.monotonic()
        found = find_clusters(features)
        log.info(
            "source %s has no classes: %d clusters of its features stand in for them (%d of %d images, %.1f s)",
            *(source, len(found.centres), len(sample), len(pool), time.monotonic() - started),
        )
        arrays = _kept(outputs, name, {"mean": found.mean, "centres": found.centres}, cache_dir)
    return Clusters(np.array(arrays["mean"]), np.array(arrays["centres"]))


def require_features(outputs: SourceOutputs) -> Rows:
    """The features of a source that has no classes. Raises UsageError if it has none either."""
    if outputs.features is None:
        raise UsageError(
            f"Source {outputs.source} has neither logits nor features, so it cannot be distilled. Leave it out."
        )
    return outputs.features


def _kept(outputs: SourceOutputs, name: str, arrays: Arrays, cache_dir: Path) -> Arrays:
    try:
        return keep_derived(cache_dir, outputs.key, name, arrays)
    except OutputError:
        # Alone, they are as good from memory; they are found again next time.
        if process_count() > 1:
            raise
        return arrays
