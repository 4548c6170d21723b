"""Principal components of the images: coordinates in which several metrics work, without a D x D matrix for N < D."""

from __future__ import annotations

import numpy as np

from potstill.similarity._checks import Float64s

TIE = 1e-9  # relative; eigenvalues closer than this have no order that a rotation or another image order would keep


def principal_components(matrix: Float64s) -> tuple[Float64s, Float64s]:
    """Coordinates `(N, R)` along all R directions in which features (usually centred) extend, and sums of squares
    `(R,)`, falling.

    Distances and products between images are kept. Decomposes the smaller of F F' and F' F. numpy's solver alone:
    beside it scipy's, with threads of its own, makes both several times slower.
    """
    wide = len(matrix) <= matrix.shape[1]
    squares, vectors = np.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    kept = squares > squares[-1] * max(matrix.shape) * np.finfo(np.float64).eps
    squares, vectors = squares[kept][::-1], vectors[:, kept][:, ::-1]
    return (vectors * np.sqrt(squares) if wide else matrix @ vectors), squares


def with_ties(squares: Float64s, count: int) -> int:
    """How many components to keep to keep `count`: those tied with the last one have no order, so all of them stay."""
    return int((squares >= squares[count - 1] * (1 - TIE)).sum())


def label_spectrum(matrix: Float64s, columns: Float64s) -> tuple[Float64s, Float64s]:
    """Sums of squares along the components `(R,)`, and squared coordinates of label columns along them `(R, C)`."""
    points, squares = principal_components(matrix)
    return squares, (points.T @ columns) ** 2 / squares[:, None]
