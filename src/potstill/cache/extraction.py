"""One pass of each source over the images, in every wanted view, that have no cached row yet."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from potstill.cache.drift import check_versions, library_versions
from potstill.cache.encoding import ShardDraft, kept_classes
from potstill.cache.images import ImageReader
from potstill.cache.key import cache_key, key_fields
from potstill.cache.known_files import KnownFiles
from potstill.cache.rows import RowComputer
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
    views: int = 0,
    flip: bool = False,
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
                views=views,
                flip=flip,
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
    views: int = 0,
    flip: bool = False,
    progress: Progress = no_progress,
    reader: ImageReader | None = None,
) -> SourceOutputs:
    """Features and logits of one source for the images of the target, row i for `image_ids[i]`.

    Only files whose content has no row in the cache go through the model, identical files once; when there are none,
    the model is not even loaded. Rows are computed in float32 in the order of their sha256, `batch_size` at a time, and
    kept in shards of 4,096: an interruption loses the current shard only. The batch size of the first extraction is
    kept for the entry, because the last bits of a result depend on it. `workers` (threads that decode; 0 decodes
    between batches) and `reader` (shares decoded images between sources) change nothing but the time.

    views: how many stored views to extract besides the plain one: view v = 1, 2, ... is the picture that
    `stored_views.render_view` makes of the file, mirrored in half of the cases if `flip`. Each view is an entry of its
    own, so more views later cost only the new ones, and a file is decoded once for all views that lack it. Of stored
    views only the logits are kept; of a source without a classifier the features, as it has nothing else to say.

    Raises SourceError (source missing, failing, outputs not finite), DataError (unknown or unreadable image),
    CacheError (damaged cache), OutputError (cache cannot be written).
    """
    if batch_size < 1 or workers < 0 or views < 0:
        raise UsageError(
            f"batch_size must be at least 1, workers and views at least 0, got {batch_size}, {workers} and {views}."
        )
    started = time.perf_counter()
    identity = source_identity(spec, KnownFiles(cache_dir))
    entries = [_open_entry(cache_dir, identity, view, flip) for view in range(views + 1)]
    computer = RowComputer(
        partial(open_source, spec, device=device, offline=offline),
        _images_by_digest(target, image_ids),
        ImageReader(target.files) if reader is None else reader,
        workers=workers,
        flip=flip,
    )
    for entry in entries:
        check_versions(entry.store, computer, entry.view)
    incomplete = [entry for entry in entries if entry.store.missing(computer.digests)]
    if incomplete:
        with ExitStack() as locks:  # all processes take the locks in the order of the views
            for entry in incomplete:
                locks.enter_context(entry.store.writing())
            _fill(incomplete, computer, batch_size, progress)
    digests = [target.digests[image_id] for image_id in image_ids]
    (features, logits), *stored = [entry.store.read(digests) for entry in entries]
    for entry in entries:
        entry.store.note_use()
    described: Mapping[str, Any] = (entries[0].store.manifest or {})["source"]
    return SourceOutputs(
        source=spec.name,
        image_ids=tuple(image_ids),
        features=features,
        logits=logits,
        label_space="clusters" if logits is None else "source",
        classes=_classes(spec, described),
        cost=SourceCost(
            forwards=computer.forwards,
            seconds=time.perf_counter() - started,
            params=described["params"],
            depth=described.get("depth"),  # not noted by version 0.1
        ),
        key=entries[0].store.key,
        views=tuple(view_logits for _, view_logits in stored if view_logits is not None),
        view_features=tuple(view_features for view_features, _ in stored if view_features is not None),
    )


def _classes(spec: SourceSpec, described: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the source's classes: those of the zoo file, or else those that the model itself knows."""
    known = described.get("classes")
    return spec.classes if spec.classes is not None or known is None else tuple(known)


@dataclass(frozen=True)
class _Entry:
    """One view of one source in the cache."""

    view: int
    fields: Mapping[str, Any]
    store: OutputStore


def _open_entry(cache_dir: Path, identity: Mapping[str, Any], view: int, flip: bool) -> _Entry:
    fields = key_fields(identity, view=view, flip=flip)
    return _Entry(view, fields, OutputStore(cache_dir, cache_key(fields)))


def _images_by_digest(target: Target, image_ids: Sequence[str]) -> dict[str, str]:
    """One image id for each distinct content."""
    if not image_ids:
        raise DataError("No images to extract: the list of image ids is empty.")
    unknown = [image_id for image_id in image_ids if image_id not in target.digests]
    if unknown:
        raise DataError(f"{len(unknown)} image ids are not readable images of '{target.name}', first: '{unknown[0]}'.")
    return {target.digests[image_id]: image_id for image_id in reversed(image_ids)}


def _fill(entries: Sequence[_Entry], computer: RowComputer, batch_size: int, progress: Progress) -> None:
    """Compute the rows that the entries lack. The caller holds their locks."""
    # Entries that lack the same images are filled together, from one decoding of each.
    together: defaultdict[tuple[tuple[str, ...], int], list[_Entry]] = defaultdict(list)
    for entry in entries:
        missing = tuple(entry.store.missing(computer.digests))
        if missing:  # else another process was faster
            if entry.store.manifest is None:
                entry.store.write_manifest(_first_manifest(computer, entry.fields, batch_size))
            together[missing, entry.store.batch_size].append(entry)
    total = sum(len(missing) * len(group) for (missing, _), group in together.items())
    if not total:
        return
    task, before = f"extract {computer.source.name}", computer.forwards
    progress(task, 0, total)
    for (missing, _), group in together.items():
        for start in range(0, len(missing), SHARD_ROWS):
            _add_shard(
                group,
                computer,
                missing[start : start + SHARD_ROWS],
                lambda: progress(task, computer.forwards - before, total),
            )
        for entry in group:
            entry.store.refresh()


def _add_shard(
    entries: Sequence[_Entry], computer: RowComputer, digests: Sequence[str], on_batch: Callable[[], None]
) -> None:
    """Compute and write one shard of the same images for each of the entries, which have the same batch size."""
    views = [entry.view for entry in entries]
    drafts = [ShardDraft(entry.store.kept_classes, with_features=entry.view == 0) for entry in entries]
    for batch in computer.batches(digests, views, batch_size=entries[0].store.batch_size):
        for draft, (features, logits) in zip(drafts, batch, strict=True):
            draft.add(features, logits)
        on_batch()
    for entry, draft in zip(entries, drafts, strict=True):
        entry.store.append(draft.arrays(digests))


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
            **({"classes": list(source.classes)} if source.classes else {}),
        },
        "choices": {
            "batch_size": batch_size,
            "dtype": "float32",
            "layout": "channels_last",
            "kept_classes": kept_classes(source.num_classes),
        },
        "versions": [library_versions()],
    }
