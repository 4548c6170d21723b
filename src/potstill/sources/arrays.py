"""Sources `arrays`: answers that somebody has already, a black box's or another team's.

`features: f.npy` `(N, D)` and `logits: z.npy` `(N, Z)`, one of which may be absent, hold a row for each line of
`paths: images.txt`: a path relative to the data folder, or absolute. As a table (`images.csv` with the columns `path`
and `sha256`) it says which content the row is about, so that an image that was changed since is noticed.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from potstill.errors import SourceError
from potstill.sources.fingerprints import Fingerprint, checked_fingerprint
from potstill.sources.frozen import check_values
from potstill.types import SourceSpec

Matrix = npt.NDArray[np.floating[Any]]
LISTED = 3


@dataclass(frozen=True)
class GivenAnswers:
    """A source without a model. `num_classes` is Z, or 0; `feature_dim` is D, or 0; nothing is known of its size."""

    name: str
    num_classes: int
    feature_dim: int
    classes: tuple[str, ...] | None
    row_of: Mapping[str, int] = field(repr=False)
    sha256_of: Mapping[str, str] = field(repr=False)
    features: Matrix | None = field(repr=False)
    logits: Matrix | None = field(repr=False)
    params: None = None
    depth: None = None

    def outputs(
        self, image_ids: Sequence[str], files: Mapping[str, Path], digests: Sequence[str]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Features `(B, D)` and logits `(B, Z)` of images, float32, or None for what there is not.

        Raises SourceError for images that have no row or another content than their row is about, and for values that
        are not finite or are probabilities where logits are wanted.
        """
        names = [each if each in self.row_of else files[each].absolute().as_posix() for each in image_ids]
        absent = [image_id for image_id, name in zip(image_ids, names, strict=True) if name not in self.row_of]
        if absent:
            raise SourceError(
                f"Source '{self.name}' has no row for {len(absent)} of {len(names)} images: {_listed(absent)}. Its "
                "`paths` must name each of them, relative to the data folder or absolute."
            )
        changed = [
            image_id
            for image_id, name, digest in zip(image_ids, names, digests, strict=True)
            if self.sha256_of.get(name, digest) != digest
        ]
        if changed:
            raise SourceError(
                f"Source '{self.name}': {len(changed)} images are not those that its rows are about (another sha256): "
                f"{_listed(changed)}. Ask the source about them again."
            )
        rows = np.array([self.row_of[name] for name in names], dtype=np.int64)
        features, logits = (
            None if matrix is None else torch.from_numpy(np.asarray(matrix[rows], dtype=np.float32))
            for matrix in (self.features, self.logits)
        )
        check_values(self.name, features, logits)
        return features, logits


def open_arrays(spec: SourceSpec, device: str, offline: bool) -> GivenAnswers:
    """Raises SourceError for files that are absent, no matrices, or of different lengths."""
    for key in ("paths", "features", "logits"):
        path: Path | None = getattr(spec, key)
        if path is not None and not path.is_file():
            raise SourceError(f"Source '{spec.name}': `{key}`: file not found: {path}. Check the zoo file.")
    if spec.paths is None or (spec.features is None and spec.logits is None):
        raise SourceError(f"Source '{spec.name}': arrays need `paths`, and `features`, `logits` or both.")
    names, digests = _read_paths(spec.name, spec.paths)
    features, logits = (_read_matrix(spec.name, key, getattr(spec, key), len(names)) for key in ("features", "logits"))
    classes = 0 if logits is None or spec.num_classes == 0 else logits.shape[1]
    if spec.num_classes not in (None, classes):
        raise SourceError(f"Source '{spec.name}': expected logits of {spec.num_classes} classes, got {classes}.")
    if spec.classes is not None and classes and len(spec.classes) != classes:
        raise SourceError(f"Source '{spec.name}': `classes` has {len(spec.classes)} names for {classes} classes.")
    return GivenAnswers(
        name=spec.name,
        num_classes=classes,
        feature_dim=0 if features is None else features.shape[1],
        classes=spec.classes if classes else None,
        row_of={name: row for row, name in enumerate(names)},
        sha256_of=digests,
        features=features,
        logits=logits if classes else None,
    )


def arrays_identity(spec: SourceSpec, fingerprint: Fingerprint) -> dict[str, Any]:
    """The three files."""
    keys = [key for key in ("features", "logits", "paths") if getattr(spec, key) is not None or key == "paths"]
    files = {key: checked_fingerprint(spec, key, fingerprint) for key in keys}
    return {"kind": "arrays", "num_classes": spec.num_classes, **files}


def _read_paths(source: str, file: Path) -> tuple[list[str], dict[str, str]]:
    """The images of the rows, in order, and the sha256 of those that have one."""
    text = file.read_text(encoding="utf-8")
    digests: dict[str, str] = {}
    if file.suffix.lower() == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        if not rows or "path" not in rows[0]:
            raise SourceError(f"Source '{source}': {file} needs a column `path`, and may have `sha256`.")
        names = [row["path"] for row in rows]
        digests = {row["path"]: row["sha256"].lower() for row in rows if row.get("sha256")}
    else:
        names = [line for line in text.splitlines() if line.strip()]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise SourceError(f"Source '{source}': {file} names {len(twice)} images more than once: {_listed(twice)}.")
    return names, digests


def _read_matrix(source: str, key: str, file: Path | None, rows: int) -> Matrix | None:
    if file is None:
        return None
    try:
        matrix = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(f"Source '{source}': `{key}`: {file} is no readable .npy file: {error}") from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or len(matrix) != rows or not matrix.shape[1]:
        raise SourceError(
            f"Source '{source}': `{key}`: expected floating-point values of shape ({rows}, "
            f"{'D' if key == 'features' else 'Z'}), a row for each line of `paths`, got {matrix.dtype} {matrix.shape}."
        )
    found: Matrix = matrix
    return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
