"""Features seen from the side of images: the decomposition that logme and hscore share."""

from __future__ import annotations

import numpy as np

from potstill.similarity._checks import Float64s


def label_spectrum(matrix: Float64s, columns: Float64s) -> tuple[Float64s, Float64s]:
    """Non-zero eigenvalues of F F' `(K,)`, and squared coordinates of label columns along its eigenvectors `(K, C)`.

    Decomposes the smaller of F F' and F' F. Eigenvalues at rounding level count as zero. numpy's solver alone: beside
    it scipy's, with threads of its own, makes both several times slower.
    """
    wide = len(matrix) <= matrix.shape[1]
    eigenvalues, vectors = np.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    kept = eigenvalues > eigenvalues[-1] * len(eigenvalues) * np.finfo(np.float64).eps
    eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
    # Eigenvectors of F F' are those of F' F, times F, over the singular value.
    energy = (vectors.T @ columns) ** 2 if wide else (vectors.T @ (matrix.T @ columns)) ** 2 / eigenvalues[:, None]
    return eigenvalues, energy
