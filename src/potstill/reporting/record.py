"""Reading and writing the files of a run directory.

Every file is written beside its final place and then moved there in one step, so that a reader, or a crash, never sees
half a file. Nothing here writes a host name, a user name or an absolute path.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
    with _replacing(path) as temporary:
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
