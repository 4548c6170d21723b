"""NCE: does the source's most likely class determine the target label?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from potstill.similarity._checks import check_probs, finite_score

if TYPE_CHECKING:
    from potstill.similarity._checks import Array


def nce(probs: Array, labels: Array) -> float:
    """Negative conditional entropy -H(Y | Z) of the label Y given the source's most likely class Z.

    Args:
        probs: `(N, Z)` of the source's own classes, rows summing to 1. Only the most likely class counts; of equally
            likely ones the first.
        labels: `(N,)`, any integers; a class may have one image.

    Returns:
        In [-log C, 0], higher is better, in nats; 0 when the label is a function of the source class, which is also the
        case when the source gives every image a class of its own: with few images and many source classes prefer leep.

    Cost: O(N Z).

    Raises:
        SimilarityError: bad inputs, such as logits in place of probs.

    Reference: Tran, Nguyen, Hassner, "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019,
    section 4.

    >>> round(nce([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.1, 0.9]], [0, 0, 1, 1]), 4)
    -0.4774
    """
    theta, index, counts = check_probs(probs, labels, metric="nce")
    source_classes, source_index = np.unique(theta.argmax(axis=1), return_inverse=True)
    joint = np.zeros((len(counts), len(source_classes)))
    np.add.at(joint, (index, source_index), 1.0 / len(index))
    marginal = np.broadcast_to(joint.sum(axis=0), joint.shape)
    seen = joint > 0
    return finite_score(float((joint[seen] * np.log(joint[seen] / marginal[seen])).sum()), metric="nce")
