"""Pseudo-classes for sources without a classifier: clusters of their features over the pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from potstill.errors import DataError
from potstill.types import DenseLogits

Features = npt.NDArray[np.floating]

SHORTEST = 1e-12


@dataclass(frozen=True)
class Clusters:
    """Clusters of the features of one source: `mean` `(D,)` of the pool and `centres` `(K, D)` of length 1.

    `sharpness` is the logit of a unit of cosine.
    """

    mean: npt.NDArray[np.float64]
    centres: npt.NDArray[np.float64]
    sharpness: float

    def logits(self, features: Features) -> DenseLogits:
        """Logits over the clusters, `(N, K)`, of features `(N, D)` of the same source: of the pool or another view."""
        directions, _ = _directions(np.asarray(features, dtype=np.float64), self.mean)
        logits = (self.sharpness * directions @ self.centres.T).astype(np.float32)
        maximum = logits.max(axis=1)
        shifted = logits - maximum[:, None]
        log_sum_exp = (maximum + np.log(np.exp(shifted).sum(axis=1))).astype(np.float32)
        return DenseLogits(shifted=shifted.astype(np.float16), maximum=maximum, log_sum_exp=log_sum_exp)


def find_clusters(
    features: Features, *, num_clusters: int | None = None, sharpness: float = 10.0, seed: int = 0, rounds: int = 100
) -> Clusters:
    """Clusters of the features of a source without classes, so that it can be distilled like any other.

    Deterministic spherical k-means (Dhillon and Modha 2001) on centred, length-normalised features, started by
    k-means++ under `seed`. The logit of a cluster is `sharpness` times the cosine to its centre, the negative half
    squared distance up to a constant, so pseudo-classes are softened by distance.

    Args:
        features: `(N, D)` of the pool.
        num_clusters: K; by default the square root of N, at least 2 and at most 256.
        sharpness: logit per unit of cosine, > 0.
        seed: of the start.
        rounds: upper limit on k-means rounds; it stops when no image moves.

    Raises:
        DataError: fewer than two images, or features that do not differ.
    """
    values = np.asarray(features, dtype=np.float64)
    mean = values.mean(axis=0)
    directions, longest = _directions(values, mean)
    if len(values) < 2 or longest <= SHORTEST:
        raise DataError(f"Pseudo-classes need features that differ between images; got {len(values)} equal rows.")
    count = num_clusters or int(np.clip(np.sqrt(len(values)), 2, 256))
    return Clusters(mean, _spherical_kmeans(directions, min(count, len(values)), seed, rounds), sharpness)


def _directions(
    values: npt.NDArray[np.float64], mean: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], float]:
    """Centred rows of length 1, and the length of the longest before."""
    centred = values - mean
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.maximum(norms, SHORTEST), float(norms.max(initial=0.0))


def _spherical_kmeans(
    directions: npt.NDArray[np.float64], count: int, seed: int, rounds: int
) -> npt.NDArray[np.float64]:
    centres = _plus_plus_start(directions, count, np.random.default_rng(seed))
    assigned = np.full(len(directions), -1)
    for _ in range(rounds):
        nearest = (directions @ centres.T).argmax(axis=1)
        if (nearest == assigned).all():
            break
        assigned = nearest
        sums = np.zeros_like(centres)
        np.add.at(sums, assigned, directions)
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
