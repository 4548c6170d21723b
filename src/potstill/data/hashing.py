"""Randomness as a function of names: an image gets the same draw whatever the order, the batch or the machine.

`order_key` sorts images for splits. `uniforms` gives augmentation its numbers: a counter-based generator on arrays, so
that a batch needs no loop and no global random state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def order_key(purpose: str, seed: int, image_id: str) -> int:
    """64 uniform bits that depend on the purpose, the seed and the image id only.

    >>> order_key("test", 0, "a.png") == order_key("test", 0, "a.png") != order_key("test", 1, "a.png")
    True
    """
    # The purpose and the seed cannot run into the image id: neither contains the separator.
    text = f"{purpose}\x1f{seed}\x1f{image_id}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def hash_ids(image_ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """64 bits for each image id, uint64 `(N,)`."""
    return np.array([order_key("id", 0, image_id) for image_id in image_ids], dtype=np.uint64)


def uniforms(
    keys: npt.NDArray[np.uint64], stream: Sequence[int | npt.NDArray[np.int64]], columns: int
) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1), float64 `(B, columns)`; row i depends on `keys[i]`, `stream` and nothing else.

    keys: uint64 `(B,)`, for example of `hash_ids`. stream: whole numbers that name the draw (seed, epoch, ...), each
    the same for all rows or int64 `(B,)`.
    The generator is splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
    figure 17): the mixing function of an arithmetic sequence.

    >>> keys = hash_ids(["a", "b", "c"])
    >>> bool((uniforms(keys, (0, 1), 4)[1] == uniforms(keys[1:2], (0, 1), 4)[0]).all())
    True
    """
    state = np.asarray(keys, dtype=np.uint64)
    for number in stream:
        if isinstance(number, np.ndarray):
            names = number.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(1)
        else:  # Python's numbers do not wrap around by themselves
            names = np.array([(int(number) * _GOLDEN + 1) & _MASK], dtype=np.uint64)
        state = _mix(state ^ _mix(names))
    counter = np.array([(_GOLDEN * (column + 1)) & _MASK for column in range(columns)], dtype=np.uint64)
    bits = _mix(state[:, None] + counter[None, :])
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The output function of splitmix64: a bijection of 64 bits. Arrays wrap around silently, as wanted here."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
