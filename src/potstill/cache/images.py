"""Images as sources see them: decoded once for all that look at them, in order, ahead of the models."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from potstill.data.images import read_image
from potstill.data.preprocessing import fit_square
from potstill.types import Preprocessing

Pixels = npt.NDArray[np.uint8]
AHEAD = 2  # batches decoded beyond the one that the models work on, or two images a worker where that is more
IN_A_TURN = 64  # images, for which a few threads are busy alike


class ImageReader:
    """Reads image files as uint8 squares; `decoded` counts files. Nothing is kept: memory does not grow with images."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files
        self.decoded = 0

    def read(self, image_id: str, wanted: Sequence[Preprocessing]) -> tuple[Pixels, ...]:
        """A square uint8 `(image_size, image_size, 3)` for each preprocessing; the file is decoded once, or not at all.

        Raises DataError, with the path, for a file that cannot be read.
        """
        if not wanted:
            return ()
        image = read_image(self.files[image_id])
        self.decoded += 1
        squares: dict[tuple[int, str, float], Pixels] = {}
        for one in wanted:
            if _geometry(one) not in squares:  # several sources may differ in their normalisation alone
                squares[_geometry(one)] = fit_square(
                    image, one.image_size, interpolation=one.interpolation, crop=one.crop
                )
        return tuple(squares[_geometry(one)] for one in wanted)

    def batch(self, image_ids: Sequence[str], wanted: Sequence[Preprocessing]) -> tuple[Pixels, ...]:
        """For each preprocessing uint8 `(B, H, W, 3)`, row i for `image_ids[i]`. Raises as `read` does."""
        return _stacked([self.read(image_id, wanted) for image_id in image_ids])

    def batches(
        self,
        image_ids: Sequence[str],
        wanted: Sequence[Preprocessing],
        *,
        batch_size: int,
        workers: int,
        in_turns: bool = False,
    ) -> Iterator[tuple[Pixels, ...]]:
        """What `batch` gives for every `batch_size` images in turn, whatever `workers` is; the last may be smaller.

        0 workers decode when a batch is asked for; more decode that many images at a time, ahead of what is asked for,
        or `in_turns`: they rest while what they decoded is used. That is faster where models compute on the same cores.
        """
        groups = [image_ids[start : start + batch_size] for start in range(0, len(image_ids), batch_size)]
        if workers == 0 or not wanted:
            for group in groups:
                yield self.batch(group, wanted)
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        turn = math.ceil(IN_A_TURN / batch_size) if in_turns else 1
        ahead = 0 if in_turns else max(AHEAD, math.ceil(2 * workers / batch_size))
        try:
            waiting: deque[list[list[Future[tuple[Pixels, ...]]]]] = deque()
            for start in range(0, len(groups), turn):
                waiting.append(
                    [[pool.submit(self.read, one, wanted) for one in group] for group in groups[start : start + turn]]
                )
                if len(waiting) > ahead:
                    yield from _finished(waiting.popleft())
            while waiting:
                yield from _finished(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _finished(batches: list[list[Future[tuple[Pixels, ...]]]]) -> list[tuple[Pixels, ...]]:
    return [_stacked([future.result() for future in batch]) for batch in batches]


def _geometry(one: Preprocessing) -> tuple[int, str, float]:
    return one.image_size, one.interpolation, one.crop


def _stacked(images: Sequence[tuple[Pixels, ...]]) -> tuple[Pixels, ...]:
    return tuple(np.stack(squares) for squares in zip(*images, strict=True))
