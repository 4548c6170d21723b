"""Arrays, in memory or not."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


class Rows(Protocol):
    """Rows of an array that need not lie in memory: a numpy array, or rows of memory-mapped shards."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, indices: npt.NDArray[np.int64], /) -> npt.NDArray[np.floating]: ...
