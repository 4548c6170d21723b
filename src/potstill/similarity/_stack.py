"""Stack: how much does each source contribute when the probes of all sources are mixed?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax

from potstill.errors import SimilarityError
from potstill.probes import held_out_logits
from potstill.similarity._checks import Float64s, Int64s, check_features, check_labels, finite_score

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

PRIOR_IMAGES = 1.0  # that each source is taken to have explained beforehand; makes the optimum unique
MOST_STEPS = 10_000  # some 20 are enough


def stack(features: Mapping[str, Array], labels: Array) -> dict[str, float]:
    """Weight of each source in the mixture of probes that explains held-out labels best.

    For each source a calibrated ridge probe predicts every image by leave-one-out. The mixture weights w maximise
    `sum_i log sum_s w_s p_s(y_i | x_i) + sum_s log w_s`: the log-likelihood of the labels, with a prior that is worth
    one image for each source. The objective is strictly concave, so the weights are unique, and sources that say the
    same share their credit: two copies of a source get exactly equal weights. A source that adds nothing keeps a small
    weight by the prior. Images whose class has no other image say nothing about held-out labels and are left out.

    Args:
        features: source -> `(N, D)`, real, N >= 3; D may differ.
        labels: `(N,)`, any integers; a class may have one image, but not all classes.

    Returns:
        source -> weight > 0, higher is better; they sum to one, so a score depends on the other sources.

    Cost: that of `probe` for each source, then some 20 steps of O(N S^2).

    Raises:
        SimilarityError: bad inputs (`source` names the one), no source, or all classes with one image.

    Reference: Wolpert, "Stacked generalization", Neural Networks 1992; mixture weights by expectation-maximisation as
    in Smyth, Wolpert, "Linearly combining density estimators via stacking", Machine Learning 1999. The prior is ours.

    >>> near, far = [[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.2]], [[0.3, 0.2], [0.1, 0.4], [0.2, 0.3], [0.2, 0.1]]
    >>> {name: round(weight, 3) for name, weight in stack({"near": near, "far": far}, [0, 0, 1, 1]).items()}
    {'near': 0.794, 'far': 0.206}
    """
    if not features:
        raise SimilarityError("stack: needs at least one source.")
    index, counts = check_labels(labels, metric="stack", min_images=3)
    judged = counts[index] > 1
    if not judged.any():
        raise SimilarityError("stack: needs at least one class with 2 images; every class has one.")
    logs = np.stack([_held_out_log_probs(name, each, index)[judged] for name, each in features.items()])
    weights = _mixture_weights(np.exp(logs - logs.max(axis=0)))
    return {name: finite_score(weight, metric="stack") for name, weight in zip(features, weights, strict=True)}


def _held_out_log_probs(name: str, features: Array, index: Int64s) -> Float64s:
    """Log-probability of the true class of each image by the probe fitted without it, `(N,)`."""
    try:
        matrix, _, counts = check_features(features, index, metric="stack")
    except SimilarityError as error:
        raise SimilarityError(f"stack: source '{name}': {str(error).removeprefix('stack: ')}", source=name) from error
    logits = held_out_logits(matrix, index, len(counts))
    return np.asarray(log_softmax(logits, axis=1)[np.arange(len(index)), index], dtype=np.float64)


def _mixture_weights(likelihoods: Float64s) -> Float64s:
    """Weights on the simplex `(S,)` from likelihoods `(S, N)`, each image's up to a factor; starts with equal ones.

    Expectation-maximisation, then Newton steps from where they converge quadratically: the former alone crawls along
    the flat direction between sources that say nearly the same. The sum of the weights is held at one by adding
    `-total sum_s w_s` to the objective, whose maximum over all w > 0 is then the one on the simplex.
    """
    sources, images = likelihoods.shape
    weights, total = np.full(sources, 1 / sources), images + sources * PRIOR_IMAGES
    for _ in range(MOST_STEPS):
        relative = likelihoods / (weights @ likelihoods)
        explained = relative.sum(axis=1) + PRIOR_IMAGES / weights
        curvature = relative @ relative.T + np.diag(PRIOR_IMAGES / weights**2)
        step = np.linalg.solve(curvature, explained - total)
        decrement = float(step @ (explained - total))  # twice the gain that a Newton step promises
        # The objective is a sum of logarithms (self-concordant): below 1/16 the full step is safe and keeps w > 0.
        weights = weights + step if decrement < 1 / 16 else weights * explained / total
        if decrement < 1e-14:  # before the step: after it, the square of that
            return np.asarray(weights / weights.sum(), dtype=np.float64)
    raise SimilarityError(f"stack: weights did not settle in {MOST_STEPS} steps; give fewer sources.")
