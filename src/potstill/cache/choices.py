"""How a source is asked: images in a pass, their memory order, and whether batch norm is fused; written down.

The first two are measured where that pays. The last bits of an answer depend on all of them, so an entry keeps what its
first rows were computed with, whatever is faster on another machine. The dtype is float32 everywhere: a narrower one
moves answers more than another library version may.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from potstill.errors import SourceError
from potstill.machine import device_model
from potstill.sources import FrozenSource, Source

CPU_FROM, GPU_FROM = 10_000, 40_000
"""Rows; for fewer, measuring takes more than a thirtieth of the time."""
CPU_BATCH, GPU_BATCH = 16, 64
"""Where nothing is measured. What passes between layers should stay in a processor's own memory."""
CPU_BATCHES, GPU_BATCHES = (4, 16, 64), (16, 64, 128)
"""What is measured; each divides the rows of a part."""
TRIALS = 2


@dataclass(frozen=True)
class Choices:
    """Images in a forward pass, "channels_last" or "contiguous", and whether batch norm is fused where it may be.

    `measured` has the seconds an image that each of the compared ones took, and where; None if none was.
    """

    batch_size: int
    layout: str = "channels_last"
    fused: bool = False
    measured: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Choices:
        """Those of an entry."""
        noted = manifest["choices"]
        layout, fused = noted.get("layout", "channels_last"), noted.get("fused", False)  # not noted by older versions
        return cls(int(noted["batch_size"]), layout, fused, noted.get("measured"))

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        noted = {"batch_size": self.batch_size, "dtype": "float32", "layout": self.layout, "fused": self.fused}
        return noted if self.measured is None else {**noted, "measured": dict(self.measured)}


def choose(source: Source, rows: int, batch_size: int | None = None) -> Choices:
    """How to ask a source for so many rows: as asked for, as is fastest here, or as is usual where rows are few.

    A source that was measured is changed (see `FrozenSource.fused`): open it again.
    """
    on_cpu = not isinstance(source, FrozenSource) or source.device == "cpu"
    fused = isinstance(source, FrozenSource) and source.ours
    if batch_size is not None or not isinstance(source, FrozenSource):
        return Choices(CPU_BATCH if batch_size is None else batch_size, fused=fused)
    usual = Choices(CPU_BATCH if on_cpu else _largest_fitting(source, GPU_BATCH), fused=fused)
    if rows < (CPU_FROM if on_cpu else GPU_FROM):
        return usual
    return _fastest(source.fused(), usual, CPU_BATCHES if on_cpu else GPU_BATCHES)


def _largest_fitting(source: FrozenSource, batch_size: int) -> int:
    """The batch size, halved until a pass fits into the memory of the device; 1 if none does."""
    while batch_size > 1:
        try:
            source.outputs(_images(source, batch_size))
        except torch.OutOfMemoryError:
            batch_size //= 2
        except SourceError:  # not of the size; what is asked for real says why
            return batch_size
        else:
            return batch_size
    return batch_size


def _fastest(source: FrozenSource, usual: Choices, batch_sizes: Sequence[int]) -> Choices:
    """The memory order that is faster in the usual batch size, in the batch size that is fastest in this order."""
    seconds: dict[tuple[str, int], float] = {}

    def measure(layout: str, batch_size: int) -> None:
        # A model that fails, or a batch that does not fit, is left out here; what is asked for real says why.
        with suppress(SourceError, torch.OutOfMemoryError):
            seconds[layout, batch_size] = _seconds_an_image(source.arranged(layout), batch_size)

    for layout in ("channels_last", "contiguous"):
        measure(layout, usual.batch_size)
    if not seconds:
        return usual
    layout = min(seconds, key=lambda tried: seconds[tried])[0]
    for batch_size in batch_sizes:
        if batch_size != usual.batch_size:
            measure(layout, batch_size)
    best = min(seconds, key=lambda tried: seconds[tried])
    measured = {
        "on": device_model(source.device),
        "threads": torch.get_num_threads(),
        "seconds_an_image": {f"{order} {size}": round(value, 7) for (order, size), value in seconds.items()},
    }
    return Choices(best[1], best[0], usual.fused, measured)


def _seconds_an_image(source: FrozenSource, batch_size: int) -> float:
    images = _images(source, batch_size)
    source.outputs(images)  # the first pass also allocates
    seconds = []
    for _ in range(TRIALS):
        started = time.perf_counter()
        source.outputs(images)  # it is looked at for values that are not finite, so it is finished
        seconds.append(time.perf_counter() - started)
    return min(seconds) / batch_size


def _images(source: FrozenSource, batch_size: int) -> torch.Tensor:
    size = source.preprocessing.image_size
    return torch.rand(batch_size, 3, size, size, generator=torch.Generator().manual_seed(0)).to(source.device)
