"""Reading and writing the files of a run directory.

Every file is written beside its final place and then moved there in one step, so that a reader, or a crash, never sees
half a file. Nothing here writes a host name, a user name or an absolute path.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from potstill import __version__
from potstill.errors import DataError
from potstill.files import replacing
from potstill.machine import cpu_model
from potstill.types import Floats, Ints

SCHEMA = 1
UNKNOWN_LABEL = -1


@dataclass(frozen=True)
class Predictions:
    """Content of a `predictions.parquet`; row i belongs to `image_ids[i]`.

    `labels` `(N,)` int64 class ids, -1 where the label is unknown; `probs` `(N, C)` float32 in the order of `classes`.
    """

    image_ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    probs: npt.NDArray[np.float32]
    classes: tuple[str, ...]


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file in one step. Raises OutputError when that is not possible."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON in one step. numpy numbers and arrays are written as numbers and lists.

    Raises:
        ValueError: a number is NaN or infinite (JSON has none); the message names its place. Nothing is written.
        TypeError: a value that JSON cannot hold.
        OutputError: the file cannot be written.
    """
    plain = _plain(value, "$")
    write_text(path, json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line (`metrics.jsonl`) in one step. Errors as in `write_json`."""
    lines = [json.dumps(_plain(row, f"$[{number}]"), ensure_ascii=False) + "\n" for number, row in enumerate(rows)]
    write_text(path, "".join(lines))


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    """Write plain data as YAML, keys in the given order, in one step. Errors as in `write_json`."""
    write_text(path, yaml.safe_dump(_plain(value, "$"), sort_keys=False, allow_unicode=True))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file with a header in one step; None becomes an empty cell. Raises OutputError."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"Expected {len(columns)} cells for the columns {list(columns)}, got {list(row)}.")
            writer.writerow(row)


def write_predictions(
    path: Path, image_ids: Sequence[str], labels: Ints | None, probs: Floats, classes: Sequence[str]
) -> None:
    """Write `predictions.parquet`: image_id string, label string or null, probs list of float32.

    The class names, in the order of the columns of `probs`, are JSON under the key `classes` of the file's metadata.

    Args:
        image_ids: N ids.
        labels: `(N,)` class ids, negative where unknown; None when no label is known.
        probs: `(N, C)`, finite.
        classes: C names.

    Raises:
        DataError: lengths do not fit, a class id has no name, or a probability is not finite.
        OutputError: the file cannot be written.
    """
    values = np.asarray(probs, dtype=np.float32)
    known = np.full(len(image_ids), UNKNOWN_LABEL) if labels is None else np.asarray(labels)
    if values.shape != (len(image_ids), len(classes)) or known.shape != (len(image_ids),):
        raise DataError(
            f"Expected probs of shape ({len(image_ids)}, {len(classes)}) and as many labels as images, got "
            f"{values.shape} and {known.shape}."
        )
    if len(known) and known.max() >= len(classes):
        raise DataError(f"Expected class ids below {len(classes)}, got {known.max()}.")
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise DataError(
            f"The probabilities of {image_ids[row]} are not finite; the student's weights may have diverged."
        )
    table = pa.table(
        {
            "image_id": pa.array(list(image_ids), pa.string()),
            "label": pa.array([classes[label] if label >= 0 else None for label in known], pa.string()),
            "probs": pa.array(list(values), pa.list_(pa.float32())),
        }
    ).replace_schema_metadata({"classes": json.dumps(list(classes)), "schema": str(SCHEMA)})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote. Raises DataError when the file is missing or is something else."""
    try:
        table = pq.read_table(path)
        classes = tuple(json.loads((table.schema.metadata or {})[b"classes"]))
        position: dict[str | None, int] = {name: index for index, name in enumerate(classes)}
        position[None] = UNKNOWN_LABEL
        labels = [position[name] for name in table["label"].to_pylist()]
        flat = table["probs"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        probs = np.asarray(flat, dtype=np.float32).reshape(table.num_rows, len(classes))
        image_ids = tuple(table["image_id"].to_pylist())
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path.name} could not be read as predictions ({_reason(error, path)}). "
            "Expected a file that Potstill wrote; run the evaluation again."
        ) from error
    return Predictions(image_ids, np.array(labels, dtype=np.int64), probs, classes)


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DataError when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path.name} could not be read as JSON ({_reason(error, path)}). Run the step that writes it again."
        ) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping of plain data. Raises DataError when it is missing, damaged or no mapping."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(
            f"{path.name} could not be read as YAML ({_reason(error, path)}). Run the step that writes it again."
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"Expected a mapping of names to values in {path.name}, got {type(content).__name__}.")
    return content


def read_results(path: Path) -> dict[str, Any]:
    """Read `results.json` of a comparison, or of a single run, which is returned as a comparison with one run.

    `path` is the file or its directory. Raises DataError when it is missing, damaged or of another schema.
    """
    file = path / "results.json" if path.is_dir() else path
    content = read_json(file)
    if not isinstance(content, dict) or not ("runs" in content or "method" in content):
        raise DataError(f"{file.name} holds no results. Expected a file that `potstill compare` or `distill` wrote.")
    if content.get("schema", SCHEMA) != SCHEMA:
        raise DataError(
            f"{file.name} has schema {content['schema']}, this version reads {SCHEMA}. Use the Potstill that wrote it."
        )
    if "runs" in content:
        return {"target": "", "classes": [], "summary": {}, "references": [], **content}
    own = {name: content[name] for name in ("target", "classes", "split_sha256") if name in content}
    return {"schema": SCHEMA, "target": "", "classes": [], "summary": {}, "references": [], **own, "runs": [content]}


def environment_record() -> dict[str, Any]:
    """Versions and hardware that the figures depend on. Holds no host name, user name, path or package index."""
    import torch

    packages = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow")
    return {
        "potstill": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"Expected finite numbers, got {value} at {place}. Write null and the reason instead.")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"Expected names as keys, got {key!r} at {place}.")
        return {key: _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"Expected text, numbers, lists or mappings, got {type(value).__name__} at {place}.")


def _reason(error: Exception, path: Path) -> str:
    # Messages end up in pages that people share, so the folder is taken out of them.
    return f"{type(error).__name__}: {str(error).replace(str(path), path.name)}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
