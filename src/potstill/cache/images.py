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
        self._files = files
        self._free = memory_bytes
        self._kept: dict[tuple[str, int, str, float], Pixels] = {}
        self.decoded = 0

    def read(self, image_id: str, preprocessing: Preprocessing) -> Pixels:
        """uint8 `(image_size, image_size, 3)`. Raises DataError, with the path, for a file that cannot be read."""
        name = (image_id, preprocessing.image_size, preprocessing.interpolation, preprocessing.crop)
        kept = self._kept.get(name)
        if kept is not None:
            return kept
        image = fit_square(
            read_image(self._files[image_id]),
            preprocessing.image_size,
            interpolation=preprocessing.interpolation,
            crop=preprocessing.crop,
        )
        # Two threads may both pass the test with one image's room left; the bound need not be exact.
        self.decoded += 1
        if image.nbytes <= self._free:
            self._free -= image.nbytes
            self._kept[name] = image
        return image


def batches_of(
    image_ids: Sequence[str], *, read: Callable[[str], Pixels], batch_size: int, workers: int
) -> Iterator[Pixels]:
    """Batches uint8 `(B, H, W, 3)` in the order of the ids, whatever `workers` is; the last may be smaller.

    0 workers decode when a batch is asked for; more decode that many images at a time, two batches ahead.
    """
    groups = [image_ids[start : start + batch_size] for start in range(0, len(image_ids), batch_size)]
    if workers == 0:
        for group in groups:
            yield np.stack([read(image_id) for image_id in group])
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        waiting: deque[list[Future[Pixels]]] = deque()
        for group in groups:
            waiting.append([pool.submit(read, image_id) for image_id in group])
            if len(waiting) > AHEAD:
                yield np.stack([future.result() for future in waiting.popleft()])
        while waiting:
            yield np.stack([future.result() for future in waiting.popleft()])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
