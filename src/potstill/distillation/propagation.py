"""Propagation: neighbours in feature space should have the same class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float32]

NEIGHBOURS = 5
SHARPNESS = 3
"""Power of the cosine in the weight of a neighbour (Iscen et al., CVPR 2019, arXiv 1904.04717, section 3.2)."""
STEPS = 50
BLOCK = 1024


def neighbour_graph(directions: Floats) -> sparse.csr_array:
    """Symmetric, normalised weights `(N, N)` between each image and its nearest ones by cosine; the diagonal is empty.

    `D^-1/2 W D^-1/2` with `W_ij = max(cos_ij, 0)^3` where j is among the 5 nearest images of i, or i among those of j.

    Args:
        directions: `(N, D)` float32, rows of length 1.

    Cost: N^2 D operations, in blocks of rows; N x 5 numbers are kept.
    """
    count = len(directions)
    kept = min(NEIGHBOURS, count - 1)
    columns = np.empty((count, kept), dtype=np.int64)
    cosines = np.empty((count, kept), dtype=np.float32)
    for start in range(0, count, BLOCK):
        rows = np.arange(start, min(start + BLOCK, count))
        block = directions[rows] @ directions.T
        block[np.arange(len(rows)), rows] = -np.inf  # an image is no neighbour of itself
        nearest = np.argpartition(-block, kept - 1, axis=1)[:, :kept]
        columns[rows] = nearest
        cosines[rows] = np.take_along_axis(block, nearest, axis=1)
    weights = np.maximum(cosines, 0) ** SHARPNESS
    one_way = sparse.csr_array((weights.ravel(), columns.ravel(), np.arange(count + 1) * kept), shape=(count, count))
    both_ways = one_way.maximum(one_way.T)
    scale = 1 / np.sqrt(np.maximum(np.asarray(both_ways.sum(axis=1)).ravel(), 1e-12))
    scaling = sparse.diags_array(scale)
    return sparse.csr_array(scaling @ both_ways @ scaling)


def propagate(probs: Floats, graph: sparse.csr_array, *, share: float) -> Floats:
    """Probabilities `(N, C)` that agree with those of neighbours, rows summing to 1.

    The fixed point of `Z = share * S Z + (1 - share) * Y`, found by iteration, where S is the graph and Y are the
    probabilities (Zhou et al., "Learning with Local and Global Consistency", NeurIPS 2003, section 2).

    Args:
        probs: `(N, C)`, Y.
        graph: from `neighbour_graph`.
        share: in [0, 1): how much neighbours count; 0 returns what was given.
    """
    if not 0 <= share < 1:
        raise ValueError(f"expected a share in [0, 1), got {share}")
    spread = probs.astype(np.float32)
    for _ in range(STEPS if share else 0):
        spread = share * (graph @ spread) + (1 - share) * probs
    return np.asarray(spread / spread.sum(axis=1, keepdims=True), dtype=np.float32)
