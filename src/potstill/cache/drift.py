"""Do cached rows still hold under other versions of the libraries? Compute some again and compare."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import numpy.typing as npt
import torch

from potstill.cache.rows import AskedSource
from potstill.cache.store import OutputStore
from potstill.errors import CacheError, OutputError
from potstill.types import DenseLogits, SourceLogits

COMPARED_ROWS = 32
# float16 rounds by 5e-4 and float32 sums differ by 1e-5 between versions; a changed model or decoder moves far more.
TOLERANCE = 5e-3


# The packages, by kind of source, whose versions may change outputs without changing the cache key.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "timm": ("timm", "torch"),
    "torchvision": ("torch", "torchvision"),
    "hf": ("torch", "transformers"),
    "onnx": ("onnxruntime",),
    "callable": ("torch",),
    "arrays": (),
}


def library_versions(kind: str) -> dict[str, str]:
    """The installed versions of what a kind of source computes with; a package that is absent is left out.

    >>> sorted(library_versions("timm")), library_versions("arrays")
    (['timm', 'torch'], {})
    """
    found = {}
    for package in LIBRARIES[kind]:
        with suppress(PackageNotFoundError):
            # torch's own string also tells which build it is (cpu, cu130).
            found[package] = str(torch.__version__) if package == "torch" else version(package)
    return found


def check_versions(store: OutputStore, asked: AskedSource, view: int) -> None:
    """Compare cached rows with recomputed ones if these libraries have not been compared with the entry before.

    Up to 32 of the asked's images that have rows are used, in the view of the entry. If they agree, the versions are
    noted in the manifest. Raises CacheError if the features of an image, or its probabilities, differ by more than
    0.5 %.
    """
    manifest = store.manifest
    if manifest is None:
        return
    versions = library_versions(manifest["fields"]["source"]["kind"])
    if versions in manifest["versions"]:
        return
    compared = sorted(set(asked.digests) - set(store.missing(asked.digests)))[:COMPARED_ROWS]
    if not compared:
        return
    features, logits = asked.compute(compared, view, store.choices)
    cached_features, cached_logits = store.read(compared)
    moved = 0.0
    if cached_features is not None and features is not None:
        old, new = np.asarray(cached_features, dtype=np.float64), features.numpy().astype(np.float64)
        moved = float((np.linalg.norm(new - old, axis=1) / np.maximum(np.linalg.norm(new, axis=1), 1e-12)).max())
    if logits is not None and cached_logits is not None:
        moved = max(moved, _moved_probs(cached_logits, torch.softmax(logits, dim=1).numpy()))
    if moved > TOLERANCE:
        raise CacheError(
            f"Source '{asked.source.name}': cached outputs differ by {moved:.2g} from those of {versions}. "
            f"They were computed with {manifest['versions']}. Delete {store.folder} to compute them again."
        )
    try:
        with store.writing():
            if store.manifest is not None and versions not in store.manifest["versions"]:
                store.write_manifest({**store.manifest, "versions": [*store.manifest["versions"], versions]})
    except OutputError:
        # The rows hold, which is what was asked; in a read-only cache they are compared again next time.
        return


def _moved_probs(cached: SourceLogits, probs: npt.NDArray[np.float32]) -> float:
    """The largest difference between cached probabilities and `probs` `(n, Z)`, over the classes that are kept."""
    rows = np.arange(len(probs))
    if isinstance(cached, DenseLogits):
        return float(np.abs(probs - cached.probs(rows)).max())
    indices, kept = cached.probs(rows)
    return float(np.abs(np.take_along_axis(probs, indices, axis=1) - kept).max())
