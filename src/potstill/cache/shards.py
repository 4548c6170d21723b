"""Shards: safetensors files of fixed-width rows, written once, checked once a process and read through a memory map."""

from __future__ import annotations

import itertools
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from potstill.cache.encoding import Arrays
from potstill.cache.records import read_record, repair_hint, write_durably, write_record
from potstill.errors import CacheError
from potstill.types import Floats

DTYPES: Mapping[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
}
_SAFETENSORS = {dtype: name for name, dtype in DTYPES.items()}


class ShardedRows:
    """Rows that lie in several arrays, in an order of their own; satisfies `types.Rows`.

    Row i is row `offsets[i]` of `arrays[numbers[i]]`. The arrays may be memory maps: only rows asked for are read.
    Where shards differ in dtype (float16 and float32), rows come in the wider one.
    """

    def __init__(
        self,
        arrays: Sequence[Floats],
        numbers: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
    ) -> None:
        # Plain views: indexing the memmap class itself costs more per call.
        self._arrays = tuple(np.asarray(array) for array in arrays)
        self._numbers = numbers
        self._offsets = offsets
        self.dtype = np.result_type(*(array.dtype for array in arrays))
        self.shape: tuple[int, ...] = (len(numbers), *arrays[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: npt.NDArray[np.int64], /) -> Floats:
        """Copies of the rows of an int64 array of row numbers, in its order."""
        rows = np.asarray(indices)
        if rows.ndim != 1 or not (np.issubdtype(rows.dtype, np.integer) or rows.size == 0):
            raise TypeError(f"rows are taken by a one-dimensional integer array, got {rows.dtype} {rows.shape}")
        rows = rows.astype(np.int64, copy=False)
        numbers, offsets = self._numbers[rows], self._offsets[rows]
        if len(self._arrays) == 1:
            return self._arrays[0].take(offsets, axis=0, mode="clip")  # offsets are good, so it need not look
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        order = np.argsort(numbers, kind="stable")
        numbers, offsets = numbers[order], offsets[order]
        ends = (np.flatnonzero(np.diff(numbers)) + 1).tolist()
        for start, end in zip([0, *ends], [*ends, len(rows)], strict=True):
            if start < end:
                out[order[start:end]] = self._arrays[numbers[start]].take(offsets[start:end], axis=0)
        return out

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Floats:
        rows = self[np.arange(len(self))]
        return rows if dtype is None else rows.astype(dtype)


def write_shard(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a shard, then the record beside it (same name, .json). A shard without a record does not count.

    Raises OutputError if the folder cannot be written.
    """
    write_arrays(path, arrays, rows=len(arrays["digests"]))


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]], *, rows: int) -> None:
    """Write arrays as `open_shard` reads them: a safetensors file, then its record. Raises OutputError."""
    _write(
        path, {name: (array.dtype, array.shape) for name, array in arrays.items()}, lambda name: [arrays[name]], rows
    )


def join_shards(path: Path, parts: Sequence[Path]) -> None:
    """Write a shard of the rows of others, in order; one of them is open at a time.

    Where some have an array in float16 and others in float32, the shard has it in float32.

    Raises CacheError if a part is damaged, OutputError if the folder cannot be written.
    """
    joined: Arrays = {}  # without the rows, which only their number is wanted of
    rows = 0
    for part in parts:
        arrays = open_shard(part)
        rows += len(arrays["digests"])
        for name, array in arrays.items():
            joined[name] = np.empty((0, *array.shape[1:]), np.result_type(array, joined.get(name, array)))
    shapes = {name: (array.dtype, (rows, *array.shape[1:])) for name, array in joined.items()}
    _write(path, shapes, lambda name: (open_shard(part)[name] for part in parts), rows)


def _write(
    path: Path,
    shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]],
    pieces_of: Callable[[str], Iterable[npt.NDArray[Any]]],
    rows: int,
) -> None:
    """Write arrays of these dtypes and shapes, each of which comes in pieces along its first axis."""
    # The widest numbers first, so that all lie at multiples of their size; safetensors does so too.
    names = sorted(shapes, key=lambda name: (-shapes[name][0].itemsize, name))
    header, end = {}, 0
    for name in names:
        dtype, shape = shapes[name]
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _SAFETENSORS[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    checksum = 0

    def pieces() -> Iterator[bytes | memoryview]:
        nonlocal checksum
        numbers = (piece.astype(shapes[name][0], order="C", copy=False) for name in names for piece in pieces_of(name))
        parts: tuple[Iterable[bytes | memoryview], ...] = (
            [len(text).to_bytes(8, "little"), text],
            (each.data for each in numbers),
        )
        for piece in itertools.chain(*parts):
            checksum = zlib.crc32(piece, checksum)
            yield piece

    write_durably(path, pieces())
    record = {"bytes": 8 + len(text) + end, "crc32": checksum, "rows": rows}
    write_record(path.with_suffix(".json"), record)


def open_shard(path: Path) -> Arrays:
    """Memory maps of the arrays of a shard. Its checksum is verified when a process first opens it.

    Raises CacheError, with the file and what to do, if the shard or its record is absent, truncated or changed.
    """
    record = read_record(path.with_suffix(".json"))
    try:
        status = path.stat()
    except OSError as error:
        raise CacheError(f"The cache file {path} is missing though its record exists. {repair_hint(path)}") from error
    if status.st_size != record["bytes"]:
        expected = record["bytes"]
        raise CacheError(
            f"The cache file {path} is damaged: {status.st_size} bytes, expected {expected}. {repair_hint(path)}"
        )
    _verify(path, record["crc32"], status.st_size, status.st_mtime_ns, status.st_ino)
    try:
        content = np.memmap(path, dtype=np.uint8, mode="r")
    except OSError as error:  # of too many open files, say, which `ulimit -n` can raise
        raise CacheError(f"Cannot open the cache file {path}: {error.strerror or error}.") from error
    # The checksum holds, so the header is the one that was written: its length, its JSON, then the arrays.
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    arrays: Arrays = {}
    for name, entry in json.loads(content[8:start].tobytes()).items():
        begin, end = entry["data_offsets"]
        arrays[name] = content[start + begin : start + end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


@lru_cache(maxsize=65536)
def _verify(path: Path, crc32: int, size: int, modified: int, inode: int) -> None:
    """Check the checksum of a file; once a process, as long as the file system sees no change (errors are not kept)."""
    if zlib.crc32(np.memmap(path, dtype=np.uint8, mode="r").data) != crc32:
        raise CacheError(f"The cache file {path} is damaged: its checksum does not match. {repair_hint(path)}")
