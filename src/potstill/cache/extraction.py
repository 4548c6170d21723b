"""What sources say about the images of a target: from the cache, and computed where it has no row yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from potstill.cache.drift import check_versions
from potstill.cache.filling import Filling, Part, fill
from potstill.cache.images import ImageReader
from potstill.cache.jobs import Entry, Job
from potstill.cache.key import cache_key, key_fields
from potstill.cache.known_files import KnownFiles
from potstill.cache.plan import has_plan, rows_left
from potstill.cache.rows import AskedSource
from potstill.cache.store import OutputStore
from potstill.errors import DataError, SourceError, UnknownNameError, UsageError
from potstill.sources import open_source, source_identity
from potstill.types import Progress, SourceCost, SourceOutputs, SourceSpec, Target, Zoo, no_progress


def extract_outputs(
    target: Target,
    zoo: Zoo,
    image_ids: Sequence[str],
    *,
    cache_dir: Path,
    device: str = "cpu",
    batch_size: int | None = None,
    workers: int = 0,
    offline: bool = False,
    views: int = 0,
    flip: bool = False,
    progress: Progress = no_progress,
    reader: ImageReader | None = None,
) -> tuple[dict[str, SourceOutputs], dict[str, str]]:
    """What every source of the zoo says about the images, and why the sources that failed did: two mappings by name.

    Only files whose content has no row in the cache go through the models, identical files once; a source for which
    there are none is not even opened. An image is decoded once for all sources. Rows are computed in float32 in the
    order of their sha256, some at a time, and written 256 at a time: an interruption loses no more of each source. How
    many at a time, and in which memory order, is kept from the first extraction of a source, because the last bits of a
    result depend on it.

    Args:
        target: names the files of the images.
        zoo: the sources.
        image_ids: row i of all outputs is `image_ids[i]`.
        cache_dir: the cache.
        device: where models run.
        batch_size: images in a forward pass; None: what is fastest here, measured where there are enough
            rows to compute (see `choices`), and 16 on a processor or up to 64 on a graphics card otherwise.
        workers: threads that decode; 0 decodes between batches. They change nothing but the time.
        offline: never touch a network.
        views: how many stored views to extract besides the plain one: view v = 1, 2, ... is the picture that
            `stored_views.render_view` makes of the file. Each view is an entry of its own, so more views later cost
            only the new ones. Of stored views only the logits are kept; of a source without a classifier the features.
        flip: whether half of the stored views are mirrored.
        progress: told of all sources together, and so of the time that is left.
        reader: decodes the files.

    Raises SourceError, listing the reasons, only if every source failed; a damaged cache (CacheError), one that cannot
    be written (OutputError), and unknown or unreadable images (DataError) are errors at once, as they are not the
    source's fault.
    """
    if (batch_size is not None and batch_size < 1) or workers < 0 or views < 0:
        raise UsageError(
            f"batch_size must be at least 1, workers and views at least 0, got {batch_size}, {workers} and {views}."
        )
    reader = ImageReader(target.files) if reader is None else reader
    jobs, errors = open_jobs(
        target, zoo, image_ids, reader, cache_dir=cache_dir, device=device, offline=offline, views=views, flip=flip
    )
    errors |= fill(jobs, reader, Filling(batch_size, workers, None, progress))
    digests = [target.digests[image_id] for image_id in image_ids]
    outputs = {
        job.name: _outputs(job, zoo.sources[job.name], image_ids, digests) for job in jobs if job.name not in errors
    }
    if not outputs:
        reasons = "".join(f"\n  - {name}: {errors[name]}" for name in zoo.sources if name in errors)
        raise SourceError(f"No source of the zoo '{zoo.name}' gave outputs:{reasons or ' it holds no source.'}")
    return outputs, {name: errors[name] for name in zoo.sources if name in errors}


def extract_source(spec: SourceSpec, target: Target, image_ids: Sequence[str], **settings: Any) -> SourceOutputs:
    """`extract_outputs` for one source; its failure is an error."""
    outputs, _ = extract_outputs(target, Zoo(spec.name, {spec.name: spec}), image_ids, **settings)
    return outputs[spec.name]


def open_jobs(
    target: Target,
    zoo: Zoo,
    image_ids: Sequence[str],
    reader: ImageReader,
    *,
    cache_dir: Path,
    device: str,
    offline: bool,
    views: int = 0,
    flip: bool = False,
) -> tuple[list[Job], dict[str, str]]:
    """The sources that can be identified, with their entries, and why the others cannot: by name.

    No model is loaded, unless rows of other library versions must be compared. Raises DataError for unknown images,
    CacheError for damaged entries.
    """
    image_of = _images_by_digest(target, image_ids)
    fingerprint = KnownFiles(cache_dir)
    jobs: list[Job] = []
    errors: dict[str, str] = {}
    for spec in zoo:
        asked = AskedSource(partial(open_source, spec, device=device, offline=offline), image_of, reader, flip=flip)
        try:
            identity = source_identity(spec, fingerprint)
            entries = tuple(_open_entry(cache_dir, identity, view, flip) for view in range(views + 1))
            for entry in entries:
                check_versions(entry.store, asked, entry.view)
        except (SourceError, UnknownNameError) as error:
            errors[spec.name] = str(error)
            continue
        finally:
            asked.close()
        jobs.append(Job(spec.name, asked, entries))
    return jobs, errors


def fill_cache(
    target: Target,
    zoo: Zoo,
    image_ids: Sequence[str],
    *,
    cache_dir: Path,
    part: Part | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
    workers: int = 0,
    offline: bool = False,
    views: int = 0,
    flip: bool = False,
    progress: Progress = no_progress,
) -> tuple[dict[str, int], dict[str, int], dict[str, str]]:
    """Compute rows for later commands, by one process or by `n` that share the cache and nothing else.

    Args:
        part: (i, n), 0 <= i < n: this process computes every n-th part of 256 rows. Which rows these are is decided
            once, so the cache is the same for every n, and a job that was cut off goes on with another one.
        target, zoo, image_ids, and the others: as `extract_outputs` has them.

    Returns:
        By name of the source: image passes that were made, images that still lack a row (those of other parts), and
        why a source failed.
    """
    if part is not None and not 0 <= part[0] < part[1]:
        raise UsageError(f"part must be i/n with 0 <= i < n, got {part[0]}/{part[1]}.")
    reader = ImageReader(target.files)
    jobs, errors = open_jobs(
        target, zoo, image_ids, reader, cache_dir=cache_dir, device=device, offline=offline, views=views, flip=flip
    )
    errors |= fill(jobs, reader, Filling(batch_size, workers, part, progress))
    forwards = {job.name: job.asked.forwards for job in jobs}
    missing = {job.name: _missing(job) for job in jobs}
    return forwards, missing, errors


def _missing(job: Job) -> int:
    """Rows of the entries of a job that nobody has computed yet."""
    missing = 0
    for entry in job.entries:
        # Another process may join parts while they are counted.
        with entry.store.writing() if has_plan(entry.store) else nullcontext():
            entry.store.refresh()
            missing += len(rows_left(entry.store, job.asked.digests))
    return missing


def _open_entry(cache_dir: Path, identity: Mapping[str, Any], view: int, flip: bool) -> Entry:
    fields = key_fields(identity, view=view, flip=flip)
    return Entry(view, fields, OutputStore(cache_dir, cache_key(fields)))


def _images_by_digest(target: Target, image_ids: Sequence[str]) -> dict[str, str]:
    """One image id for each distinct content."""
    if not image_ids:
        raise DataError("No images to extract: the list of image ids is empty.")
    unknown = [image_id for image_id in image_ids if image_id not in target.digests]
    if unknown:
        raise DataError(f"{len(unknown)} image ids are not readable images of '{target.name}', first: '{unknown[0]}'.")
    return {target.digests[image_id]: image_id for image_id in reversed(image_ids)}


def _outputs(job: Job, spec: SourceSpec, image_ids: Sequence[str], digests: Sequence[str]) -> SourceOutputs:
    """What the entries of a job hold, in the order of the images."""
    (features, logits), *stored = [entry.store.read(digests) for entry in job.entries]
    for entry in job.entries:
        entry.store.note_use()
    described: Mapping[str, Any] = (job.entries[0].store.manifest or {})["source"]
    classes = described.get("classes")
    return SourceOutputs(
        source=spec.name,
        image_ids=tuple(image_ids),
        features=features,
        logits=logits,
        label_space="clusters" if logits is None else "source",
        # The names of the zoo file, or else those that the model itself knows.
        classes=spec.classes if spec.classes is not None or classes is None else tuple(classes),
        cost=SourceCost(
            forwards=job.asked.forwards,
            seconds=job.asked.seconds,
            params=described["params"],
            depth=described.get("depth"),  # not noted by version 0.1
        ),
        key=job.entries[0].store.key,
        views=tuple(view_logits for _, view_logits in stored if view_logits is not None),
        view_features=tuple(view_features for view_features, _ in stored if view_features is not None),
    )
