"""Images that are nearly the same: found by pixels, a perceptual hash and two unrelated backbones, kept on one side.

Groups keep known relatives together. This finds the unknown ones: a typeface under another name, a texture that two
games share, a tile that was mirrored into another file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Bits = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]
Pairs = npt.NDArray[np.int64]

HASH_SIDE, HASH_FREQUENCIES = 32, 8
BLOCK = 2048


@dataclass(frozen=True)
class Closeness:
    """When two images are near-duplicates.

    Their reduced grey pixels correlate, or their hashes differ in at most `bits` of 63 and both backbones are at least
    mildly alike, or both backbones say that they are the same.

    Attributes:
        pixels: least correlation of reduced grey pixels.
        bits: largest Hamming distance of perceptual hashes.
        alike: least cosine in each backbone beside close hashes.
        same: least cosine in each backbone by themselves.
    """

    pixels: float = 0.98
    bits: int = 4
    alike: float = 0.9
    same: float = 0.97


def perceptual_hash(images: npt.NDArray[np.uint8]) -> Bits:
    """63 bits of each image `(N, S, S, 3)`, packed in 8 bytes: signs of low frequencies about their median.

    The hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1: the
    8 x 8 lowest frequencies of the discrete cosine transform of a 32 x 32 grey image, without the mean.
    """
    grey = images.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    rows = _averaging(images.shape[1])
    small = rows @ grey @ rows.T
    low = dctn(small, axes=(1, 2), norm="ortho")[:, :HASH_FREQUENCIES, :HASH_FREQUENCIES].reshape(len(images), -1)[
        :, 1:
    ]
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(np.pad(bits, ((0, 0), (1, 0))), axis=1)


def _averaging(side: int) -> npt.NDArray[np.float32]:
    """Matrix `(32, side)` whose rows average the pixels of each of 32 equal stretches."""
    edges = np.linspace(0, side, HASH_SIDE + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, side + 1)) - np.maximum(edges[:-1, None], np.arange(side))
    return (overlap.clip(min=0) / (side / HASH_SIDE)).astype(np.float32)


def near_pairs(pixels: Features, hashes: Bits, backbones: Sequence[Features], closeness: Closeness) -> Pairs:
    """All pairs `(P, 2)`, the smaller row first, of near-duplicates.

    Args:
        pixels: `(N, D)` rows of length 1 whose scalar products are correlations (`neighbours.grey_pixels`).
        hashes: `(N, 8)` from `perceptual_hash`.
        backbones: features `(N, D)` of each; they are centred here, so that what all images share does not count.
        closeness: the limits.
    """
    normalised = [_directions(features) for features in backbones]
    return np.concatenate([np.empty((0, 2), dtype=np.int64), *_pairs_of_blocks(pixels, hashes, normalised, closeness)])


def _pairs_of_blocks(
    pixels: Features, hashes: Bits, features: Sequence[Features], closeness: Closeness
) -> Iterator[Pairs]:
    for start in range(0, len(hashes), BLOCK):
        rows = slice(start, start + BLOCK)
        least = np.min([block[rows] @ block[start:].T for block in features], axis=0)
        correlated = pixels[rows] @ pixels[start:].T >= closeness.pixels
        row, column = np.nonzero((least >= closeness.alike) | correlated)
        left, right = row + start, column + start
        differing = np.bitwise_count(hashes[left] ^ hashes[right]).sum(axis=1)
        close = (least[row, column] >= closeness.alike) & (differing <= closeness.bits)
        close |= (least[row, column] >= closeness.same) | correlated[row, column]
        chosen = close & (left < right)
        yield np.stack([left[chosen], right[chosen]], axis=1)


def _directions(features: Features) -> Features:
    centred = features - features.mean(axis=0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def clusters_of(pairs: Pairs, count: int) -> npt.NDArray[np.int64]:
    """Number of the cluster of each of `count` images: whoever is connected by near-duplicates.

    >>> clusters_of(np.array([[0, 2], [2, 3]]), 5).tolist()
    [0, 1, 0, 0, 2]
    """
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def kept_on_one_side(clusters: npt.NDArray[np.int64], sides: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """Which images stay: of each cluster those on the side where it has most; of equal ones the test side, then pool.

    The side of a group stays what its name says. So a cluster that straddles sides loses images and moves none.

    >>> kept_on_one_side(np.array([0, 0, 0, 1, 1]), np.array(["pool", "test", "pool", "source", "test"])).tolist()
    [True, False, True, False, True]
    """
    order = ("test", "pool", "source")
    counts = np.stack([np.bincount(clusters[sides == side], minlength=clusters.max() + 1) for side in order])
    winner = np.array(order)[counts.argmax(axis=0)]
    return np.asarray(sides == winner[clusters])
