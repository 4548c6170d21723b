"""Images as sources see them: decoded and fitted, in order, ahead of the model and at most once where memory allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from potstill.data.images import read_image
from potstill.data.preprocessing import fit_square
from potstill.types import Preprocessing

Pixels = npt.NDArray[np.uint8]
AHEAD = 2  # batches decoded beyond the one that the model works on


class ImageReader:
    """Reads image files as uint8 squares and keeps up to `memory_bytes` of them for the next source that wants them.

    When memory is full nothing is dropped: sources read in the same order, and the first images stay useful to all.
    """

    def __init__(self, files: Mapping[str, Path], *, memory_bytes: int = 512 * 2**20) -> None:
        self.files = files
        self._free = memory_bytes
        self._kept: dict[tuple[str, int, str, float], Pixels] = {}
        self.decoded = 0

    def read(self, image_id: str, wanted: Sequence[Preprocessing]) -> tuple[Pixels, ...]:
        """A square uint8 `(image_size, image_size, 3)` for each preprocessing; the file is decoded once at most.

        Raises DataError, with the path, for a file that cannot be read.
        """
        names = [(image_id, one.image_size, one.interpolation, one.crop) for one in wanted]
        squares = {name: self._kept[name] for name in names if name in self._kept}
        if len(squares) == len(set(names)):
            return tuple(squares[name] for name in names)
        image = read_image(self.files[image_id])
        # Two threads may both pass the test with one image's room left; the bound need not be exact.
        self.decoded += 1
        for name in names:
            if name not in squares:
                _, size, interpolation, crop = name
                squares[name] = fit_square(image, size, interpolation=interpolation, crop=crop)
                self._keep(name, squares[name])
        return tuple(squares[name] for name in names)

    def _keep(self, name: tuple[str, int, str, float], square: Pixels) -> None:
        if square.nbytes <= self._free:
            self._free -= square.nbytes
            self._kept[name] = square


def batches_of(
    image_ids: Sequence[str], *, read: Callable[[str], tuple[Pixels, ...]], batch_size: int, workers: int
) -> Iterator[tuple[Pixels, ...]]:
    """Batches in the order of the ids, whatever `workers` is: for each square that `read` gives, uint8 `(B, H, W, 3)`.

    The last batch may be smaller. 0 workers decode when a batch is asked for; more decode that many images at a time,
    two batches ahead.
    """
    groups = [image_ids[start : start + batch_size] for start in range(0, len(image_ids), batch_size)]
    if workers == 0:
        for group in groups:
            yield _stacked([read(image_id) for image_id in group])
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        waiting: deque[list[Future[tuple[Pixels, ...]]]] = deque()
        for group in groups:
            waiting.append([pool.submit(read, image_id) for image_id in group])
            if len(waiting) > AHEAD:
                yield _stacked([future.result() for future in waiting.popleft()])
        while waiting:
            yield _stacked([future.result() for future in waiting.popleft()])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _stacked(images: Sequence[tuple[Pixels, ...]]) -> tuple[Pixels, ...]:
    return tuple(np.stack(squares) for squares in zip(*images, strict=True))
