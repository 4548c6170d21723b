"""One pass of each source over the images that have no cached row yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from potstill.cache.drift import check_versions, library_versions
from potstill.cache.images import ImageReader, batches_of
from potstill.cache.key import cache_key, key_fields
from potstill.cache.shards import encode_rows
from potstill.cache.store import OutputStore
from potstill.data.preprocessing import normalise
from potstill.errors import DataError, SourceError, UnknownNameError
from potstill.sources import FrozenSource, open_source, source_identity
from potstill.types import Progress, SourceCost, SourceOutputs, SourceSpec, Target, Zoo, no_progress

SHARD_ROWS = 4096


def extract_outputs(
    target: Target,
    zoo: Zoo,
    *,
    image_ids: Sequence[str],
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
            outputs[spec.name] = _extract(
                spec,
                target,
                image_ids,
                reader,
                cache_dir=cache_dir,
                device=device,
                batch_size=batch_size,
                workers=workers,
                offline=offline,
                progress=progress,
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
    *,
    image_ids: Sequence[str],
    cache_dir: Path,
    device: str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    offline: bool = False,
    progress: Progress = no_progress,
) -> SourceOutputs:
    """Features and logits of one source for the images of the target, row i for `image_ids[i]`.

    Only files whose content has no row in the cache go through the model, identical files once; without any, the model
    is not even loaded. Rows are computed in float32 in the order of their sha256, `batch_size` at a time, and
    kept in shards of 4,096: an interruption loses the current shard only. The batch size of the first extraction is
    kept for the entry, because the last bits of a result depend on it; `workers` (threads that decode) change nothing.

    Raises SourceError (source missing, failing, outputs not finite), DataError (unknown or unreadable image),
    CacheError (damaged cache), OutputError (cache cannot be written).
    """
    return _extract(
        spec,
        target,
        image_ids,
        ImageReader(target.files),
        cache_dir=cache_dir,
        device=device,
        batch_size=batch_size,
        workers=workers,
        offline=offline,
        progress=progress,
    )


def _extract(
    spec: SourceSpec,
    target: Target,
    image_ids: Sequence[str],
    reader: ImageReader,
    *,
    cache_dir: Path,
    device: str,
    batch_size: int,
    workers: int,
    offline: bool,
    progress: Progress,
) -> SourceOutputs:
    started = time.perf_counter()
    digests = _digests_of(target, image_ids)
    image_of = dict(zip(digests, image_ids, strict=True))
    fields = key_fields(source_identity(spec))
    store = OutputStore(cache_dir, cache_key(fields))
    model = _LazyModel(spec, device, offline, reader, image_of, workers)
    if store.manifest is not None:
        model.batch_size = store.manifest["choices"]["batch_size"]
        check_versions(store, [digest for digest in image_of if digest not in store], model.rows)
    return None
