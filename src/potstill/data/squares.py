"""Where views get their images: squares of pixels that are all packed in one array, or decoded when they are wanted."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from potstill.data.images import Pixels
from potstill.data.preprocessing import read_square
from potstill.errors import UsageError

Rows = npt.NDArray[np.int64]


class Squares(Protocol):
    """N images fitted into squares of `side` pixels."""

    @property
    def side(self) -> int: ...

    def __len__(self) -> int: ...

    def take(self, rows: Rows) -> Pixels:
        """The squares of rows `(B,)`, a new uint8 array `(B, side, side, 3)`."""
        ...


class PackedSquares:
    """Squares in one array uint8 `(N, side, side, 3)`, as from `pack_pixels`.

    A pickled memory map is its path: a worker process maps the file again and shares the pages. An array in memory, or
    a part of a map, is pickled with its values. Raises UsageError for another shape or type.
    """

    def __init__(self, pixels: Pixels) -> None:
        side = pixels.shape[1] if pixels.ndim == 4 else 0
        if pixels.dtype != np.uint8 or pixels.shape != (len(pixels), side, side, 3):
            raise UsageError(f"Expected pixels uint8 (N, S, S, 3), got {pixels.dtype} {pixels.shape}.")
        self.side: int = side
        self._given = pixels
        self._pixels = np.asarray(pixels)  # indexing the memmap class itself costs more per call

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, rows: Rows) -> Pixels:
        """The squares of rows `(B,)`, a new uint8 array `(B, side, side, 3)`."""
        return self._pixels[rows]

    def __reduce__(self) -> tuple[Any, ...]:
        given = self._given
        # A slice of a map keeps the path and the offset of the whole; only the whole lies directly on the mmap.
        if isinstance(given, np.memmap) and given.filename is not None and isinstance(given.base, mmap.mmap):
            return _map_again, (str(given.filename), given.shape, given.offset)
        return PackedSquares, (np.asarray(given),)


def _map_again(path: str, shape: tuple[int, ...], offset: int) -> PackedSquares:
    return PackedSquares(np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=shape))


class FileSquares:
    """Squares decoded from image files whenever they are wanted; nothing is kept but the last batch of each thread.

    Every call of `take` reuses what it shares with the call before it in the same thread, so the views of one batch
    (labeled, weak, strong) cost one decode an image. Pixels are bit for bit those of `pack_pixels`.

    files: N paths. side: of the squares. interpolation: as for `fit_square`. reduced: let the JPEG decoder shrink
    large images by 2, 4 or 8 while it decodes: faster, with slightly other pixels, hence not the default.
    """

    def __init__(
        self,
        files: Sequence[str | os.PathLike[str]],
        *,
        side: int,
        interpolation: str = "bicubic",
        reduced: bool = False,
    ) -> None:
        # Python strings would be copied page by page into every forked worker, since reading them counts references.
        paths = [os.fsencode(file) for file in files]
        self._ends = np.cumsum([len(path) for path in paths], dtype=np.int64)
        self._paths = np.frombuffer(b"".join(paths), dtype=np.uint8)
        self.side = side
        self._interpolation = interpolation
        self._reduced = reduced
        self._prepare()

    def _prepare(self) -> None:
        self.decoded = 0
        self._count = threading.Lock()
        self._last = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("decoded", "_count", "_last")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._prepare()

    def __len__(self) -> int:
        return len(self._ends)

    def take(self, rows: Rows) -> Pixels:
        """The squares of rows `(B,)`, a new uint8 array `(B, side, side, 3)`. Raises DataError, with the path, for a
        file that cannot be read."""
        known: dict[int, Pixels] = getattr(self._last, "squares", {})
        wanted: dict[int, Pixels] = {}
        for row in rows.tolist():
            if row not in wanted:
                wanted[row] = known[row] if row in known else self._decode(row)
        self._last.squares = wanted
        squares = np.empty((len(rows), self.side, self.side, 3), dtype=np.uint8)
        for position, row in enumerate(rows.tolist()):
            squares[position] = wanted[row]
        return squares

    def _decode(self, row: int) -> Pixels:
        with self._count:
            self.decoded += 1
        start = int(self._ends[row - 1]) if row else 0
        path = Path(os.fsdecode(self._paths[start : int(self._ends[row])].tobytes()))
        return read_square(path, size=self.side, interpolation=self._interpolation, crop=1.0, reduced=self._reduced)
