"""Linear CKA in its usual, biased form, from centred kernel matrices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def biased_cka(features: Floats, other: Floats) -> float:
    """Of two sets of features `(N, D)` and `(N, E)` of the same images (Kornblith et al. 2019, section 3)."""
    first, second = _centred(features @ features.T), _centred(other @ other.T)
    return float((first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second))


def _centred(kernel: Floats) -> Floats:
    means = kernel.mean(axis=0)
    return np.asarray(kernel - means - means[:, None] + means.mean())
