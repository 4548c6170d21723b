"""Ridge regression of one-hot labels, for every penalty at once and with every image left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from potstill.errors import DataError
from potstill.probes._checks import Float64s, Int64s


@dataclass(frozen=True)
class Ridge:
    """Ridge regression for every penalty at once, on centred, scaled features `centred` `(N, D)`.

    `projected` `(N, K)` are their principal components: orthogonal columns with squared lengths `eigenvalues` `(K,)`.
    `shares` `(C,)` and `targets` `(N, C)` are the means of the one-hot labels and the rest; `moments` are P' targets.
    """

    centred: Float64s
    projected: Float64s
    eigenvalues: Float64s
    mean: Float64s
    scale: float
    shares: Float64s
    targets: Float64s
    moments: Float64s

    def solve(self, penalty: float) -> tuple[Float64s, Float64s]:
        """Coefficients `(D, C)` and intercept `(C,)` on raw features; needs no D x K matrix of directions."""
        duals = self.projected @ (self._inner(penalty) / self.eigenvalues[:, None])
        coefficients = self.centred.T @ duals / self.scale
        return coefficients, self.shares - self.mean @ coefficients

    def held_out_residuals(self, penalty: float, members: Int64s) -> Float64s:
        """One-hot label less the prediction by the ridge fitted without the image's group, `(N, C)`, in closed form.

        The hat matrix is H = 1/N + P (P'P + penalty)^-1 P', the 1/N being the intercept. Without the rows g, residuals
        become (I - H_gg)^-1 times those of the full fit; for a single row that is a division by 1 - h.
        """
        residuals = self.targets - self.projected @ self._inner(penalty)
        hat = 1 / len(residuals) + self.projected**2 @ (1 / (self.eigenvalues + penalty))
        left_out = residuals / (1 - hat)[:, None]
        for group in np.flatnonzero(np.bincount(members) > 1):
            rows = np.flatnonzero(members == group)
            if len(rows) < len(members):  # else nothing is left to fit, and such rows are never judged
                shrunk = self.projected[rows] / (self.eigenvalues + penalty)
                block = np.eye(len(rows)) - 1 / len(residuals) - shrunk @ self.projected[rows].T
                left_out[rows] = np.linalg.solve(block, residuals[rows])
        return np.asarray(left_out, dtype=np.float64)

    def _inner(self, penalty: float) -> Float64s:
        return np.asarray(self.moments / (self.eigenvalues + penalty)[:, None], dtype=np.float64)


def decompose(matrix: Float64s, index: Int64s, num_classes: int) -> Ridge:
    """Eigendecomposition of the smaller Gram matrix of the centred, scaled features."""
    centred = matrix - matrix[0]  # exact zeros for a constant column, and it takes out the bulk of a mean far from zero
    shift = centred.mean(axis=0)
    centred -= shift
    scale = float(
        linalg.norm(centred.ravel(), check_finite=False) / np.sqrt(len(centred))
    )  # of the smallest numbers, too
    if scale == 0:
        raise DataError(f"All {len(matrix)} rows of features are equal; a probe needs features that differ.")
    centred /= scale
    wide = len(centred) <= centred.shape[1]
    eigenvalues, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    kept = eigenvalues > eigenvalues[-1] * len(eigenvalues) * np.finfo(np.float64).eps
    eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
    projected = vectors * np.sqrt(eigenvalues) if wide else centred @ vectors
    shares = np.bincount(index, minlength=num_classes) / len(index)
    targets = np.eye(num_classes)[index] - shares
    return Ridge(centred, projected, eigenvalues, matrix[0] + shift, scale, shares, targets, projected.T @ targets)
