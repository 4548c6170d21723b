"""One pass of each source over the images that have no cached row yet."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from potstill.cache.drift import check_versions, library_versions
from potstill.cache.images import ImageReader
from potstill.cache.key import cache_key, key_fields
from potstill.cache.rows import RowComputer
from potstill.cache.shards import encode_rows
from potstill.cache.store import OutputStore
from potstill.errors import DataError, SourceError, UnknownNameError, UsageError
from potstill.sources import open_source, source_identity
from potstill.types import Progress, SourceCost, SourceOutputs, SourceSpec, Target, Zoo, no_progress

SHARD_ROWS = 4096


def extract_outputs(
    target: Target,
    zoo: Zoo,
    image_ids: Sequence[str],
    *,
    cache_dir: Path,
    device: str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    offline: bool = False,
    progress: Progress = no_progress,
) -> tuple[dict[str, SourceOutputs], dict[str, str]]:
    """What every source of the zoo says about the images, and why the sources that failed did: two mappings by name.

    The arguments are those of `extract_source`. An image is decoded once for all sources with the same preprocessing,
    as far as 512 MiB of memory go. Raises SourceError, listing the reasons, only if every source failed; a damaged
    cache and unreadable images are errors at once, as they are not the source's fault.
    """
    reader = ImageReader(target.files)
    outputs: dict[str, SourceOutputs] = {}
    errors: dict[str, str] = {}
    for spec in zoo:
        try:
            outputs[spec.name] = extract_source(
                spec,
                target,
                image_ids,
                cache_dir=cache_dir,
                device=device,
                batch_size=batch_size,
                workers=workers,
                offline=offline,
                progress=progress,
                reader=reader,
            )
        except (SourceError, UnknownNameError) as error:
            errors[spec.name] = str(error)
    if not outputs:
        reasons = "".join(f"\n  - {name}: {reason}" for name, reason in errors.items())
        raise SourceError(f"No source of the zoo '{zoo.name}' gave outputs:{reasons or ' it holds no source.'}")
    return outputs, errors


def extract_source(
    spec: SourceSpec,
    target: Target,
    image_ids: Sequence[str],
    *,
    cache_dir: Path,
    device: str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    offline: bool = False,
    progress: Progress = no_progress,
    reader: ImageReader | None = None,
) -> SourceOutputs:
    """Features and logits of one source for the images of the target, row i for `image_ids[i]`.

    Only files whose content has no row in the cache go through the model, identical files once; when there are none,
    the model is not even loaded. Rows are computed in float32 in the order of their sha256, `batch_size` at a time, and
    kept in shards of 4,096: an interruption loses the current shard only. The batch size of the first extraction is
    kept for the entry, because the last bits of a result depend on it. `workers` (threads that decode; 0 decodes
    between batches) and `reader` (shares decoded images between sources) change nothing but the time.

    Raises SourceError (source missing, failing, outputs not finite), DataError (unknown or unreadable image),
    CacheError (damaged cache), OutputError (cache cannot be written).
    """
    if batch_size < 1 or workers < 0:
        raise UsageError(f"batch_size must be at least 1 and workers at least 0, got {batch_size} and {workers}.")
    started = time.perf_counter()
    image_of = _images_by_digest(target, image_ids)
    fields = key_fields(source_identity(spec))
    store = OutputStore(cache_dir, cache_key(fields))
    computer = RowComputer(
        partial(open_source, spec, device=device, offline=offline),
        image_of,
        ImageReader(target.files) if reader is None else reader,
        workers=workers,
    )
    check_versions(store, computer)
    if store.missing(computer.digests):
        with store.writing():
            _fill(store, computer, fields, batch_size, progress)
    features, logits = store.read([target.digests[image_id] for image_id in image_ids])
    manifest: Mapping[str, Any] = store.manifest or {}
    return SourceOutputs(
        source=spec.name,
        image_ids=tuple(image_ids),
        features=features,
        logits=logits,
        label_space="clusters" if logits is None else "source",
        classes=spec.classes,
        cost=SourceCost(
            forwards=computer.forwards,
            seconds=time.perf_counter() - started,
            params=manifest["source"]["params"],
            depth=manifest["source"].get("depth"),  # not noted by version 0.1
        ),
        key=store.key,
    )


def _images_by_digest(target: Target, image_ids: Sequence[str]) -> dict[str, str]:
    """One image id for each distinct content."""
    if not image_ids:
        raise DataError("No images to extract: the list of image ids is empty.")
    unknown = [image_id for image_id in image_ids if image_id not in target.digests]
    if unknown:
        raise DataError(f"{len(unknown)} image ids are not readable images of '{target.name}', first: '{unknown[0]}'.")
    return {target.digests[image_id]: image_id for image_id in reversed(image_ids)}


def _fill(
    store: OutputStore,
    computer: RowComputer,
    fields: Mapping[str, Any],
    batch_size: int,
    progress: Progress,
) -> None:
    """Compute the rows that the store lacks, shard by shard. The caller holds the store's lock."""
    missing = store.missing(computer.digests)
    if not missing:  # another process was faster
        return
    if store.manifest is None:
        store.write_manifest(_first_manifest(computer, fields, batch_size))
    task, done = f"extract {computer.source.name}", 0
    progress(task, done, len(missing))

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(task, done, len(missing))

    for start in range(0, len(missing), SHARD_ROWS):
        digests = missing[start : start + SHARD_ROWS]
        features, logits = computer.compute(digests, batch_size=store.batch_size, on_batch=advance)
        store.append(encode_rows(features, logits, digests))
    store.refresh()


def _first_manifest(computer: RowComputer, fields: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    source = computer.source
    return {
        "fields": dict(fields),
        "source": {
            "name": source.name,
            "params": source.params,
            "depth": source.depth,
            "feature_dim": source.feature_dim,
            "num_classes": source.num_classes,
        },
        "choices": {"batch_size": batch_size, "dtype": "float32", "layout": "channels_last"},
        "versions": [library_versions()],
    }
