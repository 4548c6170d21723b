"""Features seen from the side of images: the decomposition that logme and hscore share."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh_tridiagonal, lapack

from potstill.similarity._checks import Float64s

BLOCK = 64  # columns that the reduction treats at once; the default of the wrapper is one, which is slow


def label_spectrum(matrix: Float64s, columns: Float64s) -> tuple[Float64s, Float64s]:
    """Non-zero eigenvalues of F F' `(K,)`, and squared coordinates of label columns along its eigenvectors `(K, C)`.

    Decomposes the smaller of F F' and F' F. Eigenvalues at rounding level count as zero.
    """
    wide = len(matrix) <= matrix.shape[1]
    gram = matrix @ matrix.T if wide else matrix.T @ matrix
    eigenvalues, coordinates = _eigen_coordinates(gram, columns if wide else matrix.T @ columns)
    kept = eigenvalues > eigenvalues[-1] * len(eigenvalues) * np.finfo(np.float64).eps
    eigenvalues, energy = eigenvalues[kept], coordinates[kept] ** 2
    # Eigenvectors of F F' are those of F' F, times F, over the singular value.
    return eigenvalues, energy if wide else energy / eigenvalues[:, None]


def _eigen_coordinates(gram: Float64s, columns: Float64s) -> tuple[Float64s, Float64s]:
    """Eigenvalues of a symmetric matrix, rising, and V' columns, where V are its eigenvectors. Overwrites `gram`.

    The eigenvectors themselves are not needed, so the columns are taken into the basis in which the matrix is
    tridiagonal, instead of its eigenvectors out of it.
    """
    if len(gram) < 3:  # nothing to reduce
        eigenvalues, vectors = np.linalg.eigh(gram)
        return eigenvalues, vectors.T @ columns
    reflectors, diagonal, beside, factors, _ = lapack.dsytrd(
        gram.T, lower=1, lwork=BLOCK * len(gram), overwrite_a=1
    )  # gram = Q T Q'; transposed, it has the memory layout of LAPACK
    eigenvalues, vectors = eigh_tridiagonal(diagonal, beside, check_finite=False)
    turned = np.array(columns)
    # Q leaves the first row alone, and its reflectors stand below the diagonal.
    turned[1:], _, _ = lapack.dormqr("L", "T", reflectors[1:, :-1], factors, columns[1:], BLOCK * columns.shape[1])
    return eigenvalues, np.asarray(vectors.T @ turned, dtype=np.float64)
