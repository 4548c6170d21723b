"""Pseudo-classes for sources without a classifier: clusters of their features over the pool."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from potstill.distillation.softening import CHUNK, Indices
from potstill.errors import DataError
from potstill.types import DenseLogits, Floats, Rows

Real = TypeVar("Real", np.float32, np.float64)

SHORTEST = 1e-12
MOST_CLUSTERS = 256
MOST_IMAGES = 256 * MOST_CLUSTERS
"""Clusters are found on at most so many images; 256 for a cluster place its centre well."""

ALGORITHM = 1
"""Of `find_clusters`; to be raised with every change of its results."""


@dataclass(frozen=True)
class Clusters:
    """Clusters of the features of one source: `mean` `(D,)` and `centres` `(K, D)` of length 1, both float32.

    `sharpness` is the logit of a unit of cosine.
    """

    mean: npt.NDArray[np.float32]
    centres: npt.NDArray[np.float32]
    sharpness: float = 10.0

    def digest(self) -> str:
        """Of all values, 64 hex digits."""
        digest = hashlib.sha256(repr((self.sharpness, self.centres.shape)).encode())
        for values in (self.mean, self.centres):
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()

    def logits(self, features: Rows, rows: Indices | None = None) -> DenseLogits:
        """Logits over the clusters, `(M, K)`, of some rows of features `(N, D)` of the same source, by default of all.

        The features may be those of other images or of another view. They are read and judged in float32, 4,096 rows
        at a time, so that they need not fit into memory.
        """
        rows = np.arange(features.shape[0]) if rows is None else rows
        shifted = np.empty((len(rows), len(self.centres)), dtype=np.float16)
        maximum = np.empty(len(rows), dtype=np.float32)
        log_sum_exp = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            directions, _ = _directions(np.array(features[rows[part]], dtype=np.float32), self.mean)
            logits = np.float32(self.sharpness) * (directions @ self.centres.T)
            maximum[part] = logits.max(axis=1)
            logits -= maximum[part, None]
            shifted[part] = logits
            log_sum_exp[part] = maximum[part] + np.log(np.exp(logits).sum(axis=1))
        return DenseLogits(shifted, maximum, log_sum_exp)


def cluster_sample(digests: Sequence[str], *, most: int = MOST_IMAGES) -> Indices:
    """Positions of the images on which clusters are found: all, or the `most` with the smallest digests.

    A digest (sha256 of the image file) is as good as drawn at random, and the choice is the same wherever an image
    stands in the pool.

    Returns:
        int64, ascending.

    >>> cluster_sample(["c0", "a1", "b2"], most=2)
    array([1, 2])
    """
    order = sorted(range(len(digests)), key=digests.__getitem__)
    return np.array(sorted(order[:most]), dtype=np.int64)


def clusters_fingerprint(features: Floats) -> str:
    """A digest of all that the clusters of `find_clusters(features)` depend on, 64 hex digits."""
    values = np.ascontiguousarray(features, dtype="<f4")
    digest = hashlib.sha256(f"{ALGORITHM} {values.shape}".encode())
    digest.update(values.data)
    return digest.hexdigest()


def find_clusters(
    features: Floats, *, num_clusters: int | None = None, sharpness: float = 10.0, seed: int = 0, rounds: int = 100
) -> Clusters:
    """Clusters of the features of a source without classes, so that it can be distilled like any other.

    Deterministic spherical k-means (Dhillon and Modha 2001) on centred, length-normalised features in float64,
    started by k-means++ under `seed`. The logit of a cluster is `sharpness` times the cosine to its centre, the
    negative half squared distance up to a constant, so pseudo-classes are softened by distance. The cost is at most
    `rounds` * N * K * D multiplications, and the memory 8 N (2 D + K) bytes.

    Args:
        features: `(N, D)` of the pool, or of a sample of a large one (`cluster_sample`).
        num_clusters: K; by default the square root of N, at least 2 and at most 256.
        sharpness: logit per unit of cosine, > 0.
        seed: of the start.
        rounds: upper limit on k-means rounds; it stops when no image moves.

    Raises:
        DataError: fewer than two images, or features that do not differ.
    """
    values = np.array(features, dtype=np.float64)
    mean = values.mean(axis=0)
    directions, longest = _directions(values, mean)
    if len(directions) < 2 or longest <= SHORTEST:
        raise DataError(f"Pseudo-classes need features that differ between images; got {len(directions)} equal rows.")
    count = num_clusters or int(np.clip(np.sqrt(len(directions)), 2, MOST_CLUSTERS))
    centres = _spherical_kmeans(directions, min(count, len(directions)), seed, rounds)
    return Clusters(mean.astype(np.float32), centres.astype(np.float32), sharpness)


def _directions(values: npt.NDArray[Real], mean: npt.NDArray[Real]) -> tuple[npt.NDArray[Real], float]:
    """Centred rows of length 1, made of `values` in place, and the length of the longest before."""
    values -= mean
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.maximum(norms, SHORTEST)
    return values, float(norms.max(initial=0.0))


def _spherical_kmeans(
    directions: npt.NDArray[np.float64], count: int, seed: int, rounds: int
) -> npt.NDArray[np.float64]:
    centres = _plus_plus_start(directions, count, np.random.default_rng(seed))
    images = np.arange(len(directions))
    assigned = np.full(len(directions), -1)
    for _ in range(rounds):
        nearest = (directions @ centres.T).argmax(axis=1)
        if (nearest == assigned).all():
            break
        assigned = nearest
        members = csr_array((np.ones(len(images)), (assigned, images)), shape=(len(centres), len(images)))
        sums = members @ directions
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A cluster that lost all its images keeps its old centre.
        centres = np.where(lengths > SHORTEST, sums / np.maximum(lengths, SHORTEST), centres)
    return centres


def _plus_plus_start(
    directions: npt.NDArray[np.float64], count: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """k-means++ (Arthur and Vassilvitskii 2007): each next centre drawn by squared distance to the nearest so far."""
    chosen = [int(generator.integers(len(directions)))]
    distances = 2 - 2 * directions @ directions[chosen[0]]
    while len(chosen) < count:
        mass = np.maximum(distances, 0)
        if mass.sum() <= SHORTEST:
            break
        chosen.append(int(generator.choice(len(directions), p=mass / mass.sum())))
        distances = np.minimum(distances, 2 - 2 * directions @ directions[chosen[-1]])
    return directions[chosen].copy()
