"""Layout 3: a table of images, `.csv`, `.parquet` or `.jsonl`, with `path`, `label` and optional `split` and `group`.

Paths are relative to the manifest. An empty label means unlabeled. Labels are names: numbers are taken as text.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from potstill.data.layouts import PART_NAMES, FoundImage, Part, Scan, relative_id
from potstill.data.wording import count_of, name_some, near_name
from potstill.errors import DataError

MANIFEST_SUFFIXES = (".csv", ".parquet", ".jsonl")
_COLUMNS = ("path", "label", "split", "group")

Row = Mapping[str, Any]


def scan_manifest(file: Path) -> Scan:
    """Read a manifest. Rows without a split belong to train; those without a label, too, to the unlabeled part.

    Raises DataError, with the number of the row, for a column that is missing, a split or a value that is not
    understood, a path that is empty or comes twice, and a val or test row without a label.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_jsonl}
    columns, rows = readers[file.suffix.lower()](file)
    for name in ("path", "label"):
        if name not in columns:
            raise DataError(
                f"{file}: expected the columns path and label (and optional split, group), found "
                f"{name_some(columns, limit=12)}. Rename the column that holds the {name}."
            )
    images: dict[str, FoundImage] = {}
    first_row: dict[str, int] = {}
    unused_labels = 0
    for number, row in rows:
        image, unused = _found_image(file, number, row)
        if image.image_id in images:
            raise DataError(
                f"{file}: rows {first_row[image.image_id]} and {number} have the same path '{image.image_id}'. "
                "Keep one row for each image."
            )
        images[image.image_id] = image
        first_row[image.image_id] = number
        unused_labels += unused
    notes = [f"layout 'manifest': {count_of(len(images), 'row')}"]
    ignored = [name for name in columns if name not in _COLUMNS]
    if ignored:
        notes.append(f"columns of the manifest that are not used: {name_some(ignored)}")
    if unused_labels:
        notes.append(f"{count_of(unused_labels, 'row')} of the split 'unlabeled' with a label: the label is not used")
    return Scan(file.parent, "manifest", tuple(images.values()), tuple(notes))


def _found_image(file: Path, number: int, row: Row) -> tuple[FoundImage, bool]:
    """One row as an image, and whether it has a label that its split says not to use."""
    path, label, split, group = (_text(file, number, name, row.get(name)) for name in _COLUMNS)
    if not path:
        raise DataError(f"{file}: row {number} has no path. Every row needs the path of its image.")
    part = _part(file, number, split)
    if part in ("val", "test") and not label:
        raise DataError(
            f"{file}: row {number} ('{path}') is of the split '{split}' but has no label. Give one or drop the row."
        )
    if part == "train" and not label:
        part = "unlabeled"
    # A manifest written on Windows has backslashes.
    absolute = Path(os.path.normpath(file.parent / path.replace("\\", "/")))
    used = label if label and part != "unlabeled" else None
    image = FoundImage(relative_id(absolute, file.parent), absolute, part, used, group or None)
    return image, bool(label) and used is None


def _part(file: Path, number: int, split: str) -> Part:
    part = PART_NAMES.get(split or "train")
    if part is None:
        near = near_name(split, list(PART_NAMES))
        hint = f" Did you mean '{near}'?" if near else ""
        raise DataError(f"{file}: row {number} has the split '{split}'; expected train, val, test or unlabeled.{hint}")
    return part


def _text(file: Path, number: int, column: str, value: object) -> str:
    """A value as text, "" for a missing one. Whole numbers lose the .0 that missing neighbours give them."""
    if value is None or value != value:  # NaN is how pandas writes a missing value
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int | float):
        return str(value)
    raise DataError(f"{file}: row {number}, column {column}: expected text or a number, found {value!r}.")


def _read_csv(file: Path) -> tuple[list[str], list[tuple[int, Row]]]:
    """Header and numbered rows (the header is row 1). Comma, semicolon or tab, whichever separates the header."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: not UTF-8 text ({error.reason} at byte {error.start}). Save the CSV as UTF-8."
        ) from error
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter, restkey="\0", restval="")
    rows: list[tuple[int, Row]] = []
    try:
        for row in reader:
            if "\0" in row:
                raise DataError(
                    f"{file}: row {reader.line_num} has more fields than the header. "
                    f"Quote values that contain '{delimiter}'."
                )
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise DataError(f"{file}: row {reader.line_num} is not valid CSV ({error}).") from error
    return [name.strip() for name in reader.fieldnames or []], rows


def _read_parquet(file: Path) -> tuple[list[str], list[tuple[int, Row]]]:
    try:
        columns = pq.read_schema(file).names
        table = pq.read_table(file, columns=[name for name in _COLUMNS if name in columns])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: not a readable Parquet file ({error}).") from error
    return columns, list(enumerate(table.to_pylist(), start=1))


def _read_jsonl(file: Path) -> tuple[list[str], list[tuple[int, Row]]]:
    columns: dict[str, None] = {}
    rows: list[tuple[int, Row]] = []
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: not UTF-8 text ({error.reason} at byte {error.start}). Save the file as UTF-8."
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{file}: row {number} is not JSON ({error}). Every line must hold one JSON object."
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{file}: row {number} is not a JSON object. Every line must hold one, with path and label."
            )
        columns.update(dict.fromkeys(row))
        rows.append((number, row))
    return list(columns), rows
