"""How sharp a source's answers are, and how much each of them counts."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.nn import functional

from potstill.errors import UsageError
from potstill.types import TAIL_TEMPERATURES, DenseTargets, SoftTargets, SourceLogits, TopKLogits, TopKTargets

Indices = npt.NDArray[np.int64]
ConfidenceKind = Literal["none", "entropy", "maximum"]

VARIANCE_FLOOR = 1e-6
"""Added to the variance of a row of logits, so that a row of equal logits becomes zeros and its gradient is finite."""

CHUNK = 4096
"""Images softened at a time where the whole pool is walked."""


def soft_targets(logits: SourceLogits, rows: Indices, *, temperature: float, standardise: bool = False) -> SoftTargets:
    """Pseudo-labels softmax(z / T) of some images, or softmax(standardised(z) / T).

    Args:
        logits: of one source, Z classes.
        rows: `(M,)` rows of `logits`, 0 .. N-1.
        temperature: T > 0; one of TAIL_TEMPERATURES where only the likeliest classes were kept.
        standardise: whether each row of logits is standardised first, see `standardised`.

    Returns:
        DenseTargets `(M, Z)` or TopKTargets `(M, K)`, float32 on the CPU.

    Raises:
        UsageError: T is not positive and finite, or the likeliest classes alone do not allow what is asked.

    >>> from potstill.types import DenseLogits
    >>> half = DenseLogits(np.array([[0, -2]], dtype=np.float16), np.zeros(1), np.zeros(1))
    >>> soft_targets(half, np.array([0]), temperature=2.0).probs  # 1 / (1 + e^-1)
    tensor([[0.7311, 0.2689]])
    """
    require_softening(logits, temperature=temperature, standardise=standardise)
    if isinstance(logits, TopKLogits):
        indices, probs = logits.probs(rows, temperature)
        return TopKTargets(torch.from_numpy(indices), torch.from_numpy(probs), logits.num_classes)
    values = torch.from_numpy(logits.shifted[rows]).float()
    if standardise:
        values = standardised(values)
    return DenseTargets(torch.softmax(values / temperature, dim=1))


def require_softening(logits: SourceLogits, *, temperature: float, standardise: bool) -> None:
    """Raise UsageError where answers cannot be softened so; the reasons are those of `soft_targets`."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise UsageError(f"A temperature must be a positive number, got {temperature}.")
    if not isinstance(logits, TopKLogits):
        return
    if standardise:
        raise UsageError(
            f"Logits can be standardised where all of them were kept; of these {logits.num_classes} classes only the "
            f"{logits.indices.shape[1]} likeliest were. Leave this source out or do not standardise."
        )
    if temperature not in TAIL_TEMPERATURES:
        raise UsageError(
            f"Sources of so many classes ({logits.num_classes}) can be softened at temperature "
            f"{', '.join(f'{each:g}' for each in TAIL_TEMPERATURES)}, not {temperature:g}. Use one of these."
        )


def standardised(logits: Tensor) -> Tensor:
    """Logits of each image with mean 0 and standard deviation 1 over the classes; differentiable.

    Applied to source and student alike, it lets the student learn how a source orders and spaces its classes without
    copying the size of its logits (Sun et al., CVPR 2024, arXiv 2403.01427, section 4; deviation with divisor Z). Of
    two classes only the likelier one is left.

    Args:
        logits: `(M, Z)`, any floating dtype; cast to float32.

    Returns:
        `(M, Z)` float32; zeros for a row of equal logits.

    >>> standardised(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[-1.2247,  0.0000,  1.2247]])
    """
    values: Tensor = functional.layer_norm(logits.float(), logits.shape[1:], eps=VARIANCE_FLOOR)
    return values


def entropy_shares(targets: SoftTargets) -> Tensor:
    """Entropy of each pseudo-label as a share of the largest possible one, H(p) / log Z.

    Args:
        targets: of M images; where only the likeliest classes were kept, the rest counts as spread evenly.

    Returns:
        `(M,)` float32 in [0, 1]: 0 is certain, 1 is uniform.

    Raises:
        UsageError: Z = 1, an entropy that says nothing.

    >>> entropy_shares(DenseTargets(torch.tensor([[0.5, 0.5, 0.0, 0.0]])))
    tensor([0.5000])
    """
    if targets.num_classes < 2:
        raise UsageError("A source with one class says the same about every image. Leave it out.")
    entropy: Tensor = torch.special.entr(targets.probs).sum(dim=1)
    if isinstance(targets, TopKTargets):
        others = targets.num_classes - targets.probs.shape[1]
        rest = (1 - targets.probs.sum(dim=1)).clamp(min=0)
        if others > 0:
            entropy = entropy + torch.special.entr(rest) + rest * math.log(others)
    return entropy.div(math.log(targets.num_classes)).clamp(0, 1)


def mean_entropy_share(logits: SourceLogits, rows: Indices, *, temperature: float, standardise: bool = False) -> float:
    """Mean of `entropy_shares` over images, at a temperature; it never falls as the temperature rises.

    Args, errors: as in `soft_targets` and `entropy_shares`; at least one row.
    """
    if len(rows) == 0:
        raise UsageError("The mean entropy of no images is not defined; pass at least one row.")
    total = 0.0
    for start in range(0, len(rows), CHUNK):
        chosen = rows[start : start + CHUNK]
        targets = soft_targets(logits, chosen, temperature=temperature, standardise=standardise)
        total += float(entropy_shares(targets).sum(dtype=torch.float64))
    return total / len(rows)


def entropy_temperature(
    logits: SourceLogits,
    rows: Indices,
    *,
    target_share: float,
    standardise: bool = False,
    lowest: float = 0.25,
    highest: float = 16.0,
    sample: int = 2048,
) -> float:
    """The temperature at which a source's mean entropy share over the pool is `target_share`.

    Sources differ in how large their logits are, so one temperature for all leaves some answers almost certain and
    others almost uniform. That the information in a soft label is governed by its entropy, and the temperature
    should follow, is the observation of arXiv 2605.20357, which does so per image; here one temperature serves all
    images of a source, so that its certain answers stay more certain than its doubtful ones. The share is monotone in
    the temperature, so a bracketing root search (Brent) finds it.

    Args:
        logits: of one source.
        rows: `(N,)` the pool's rows of `logits`.
        target_share: wanted mean of H(p) / log Z, in (0, 1).
        standardise: as in `soft_targets`.
        lowest, highest: limits of the search; the nearer one is returned where the share lies beyond both.
        sample: at most so many images, evenly spaced, are looked at.

    Returns:
        The temperature, to about one part in 10,000. Where only the likeliest classes were kept: the one of
        TAIL_TEMPERATURES whose share is nearest.

    Raises:
        UsageError: `target_share` or the limits are out of range, or as in `mean_entropy_share`.

    >>> from potstill.types import DenseLogits
    >>> two = DenseLogits(np.array([[0, -2]], dtype=np.float16), np.zeros(1), np.zeros(1))
    >>> share = mean_entropy_share(two, np.array([0]), temperature=3.0)
    >>> round(entropy_temperature(two, np.array([0]), target_share=share), 2)
    3.0
    """
    if not 0 < target_share < 1:
        raise UsageError(f"The wanted entropy share must lie between 0 and 1, got {target_share}.")
    if not 0 < lowest < highest:
        raise UsageError(f"Temperatures are searched between two positive limits, got {lowest} and {highest}.")
    if len(rows) > sample:
        rows = rows[np.linspace(0, len(rows) - 1, sample).round().astype(np.int64)]

    def excess(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        share = mean_entropy_share(logits, rows, temperature=temperature, standardise=standardise)
        return share - target_share

    if isinstance(logits, TopKLogits):
        shares = [
            mean_entropy_share(logits, rows, temperature=each, standardise=standardise) for each in TAIL_TEMPERATURES
        ]
        return TAIL_TEMPERATURES[int(np.argmin([abs(share - target_share) for share in shares]))]
    if excess(math.log(lowest)) >= 0:
        return lowest
    if excess(math.log(highest)) <= 0:
        return highest
    return math.exp(brentq(excess, math.log(lowest), math.log(highest), xtol=1e-4))


def confidence_weights(
    logits: SourceLogits,
    rows: Indices,
    *,
    kind: ConfidenceKind,
    temperature: float = 1.0,
    standardise: bool = False,
) -> npt.NDArray[np.float32] | None:
    """How much each image counts for a source: more where the source is certain. The mean over the pool is 1.

    Mean 1 keeps what the source weights say about sources apart from what this says about images. CA-MKD (arXiv
    2201.00007) reads confidence from the labels; most pool images have none, and a source's classes are not the
    target's, so it is read from the source's answer alone. A source that is certain and wrong is not found out.

    Args:
        logits: of one source.
        rows: `(N,)` the pool's rows of `logits`.
        kind: "entropy": 1 - H(p) / log Z; "maximum": max p; "none": every image counts alike.
        temperature, standardise: how p is softened, as in `soft_targets`.

    Returns:
        `(N,)` float32 >= 0 with mean 1; ones where the source is equally uncertain about everything. None for "none".

    Raises:
        UsageError: an unknown kind, no rows, or as in `soft_targets` and `entropy_shares`.
    """
    if kind == "none":
        return None
    if kind not in ("entropy", "maximum"):
        raise UsageError(f"The confidence of a source is none, entropy or maximum, not {kind!r}.")
    if len(rows) == 0:
        raise UsageError("The confidence of a source over no images is not defined; pass at least one row.")
    parts: list[Tensor] = []
    for start in range(0, len(rows), CHUNK):
        chosen = rows[start : start + CHUNK]
        targets = soft_targets(logits, chosen, temperature=temperature, standardise=standardise)
        shares = entropy_shares(targets)
        parts.append(1 - shares if kind == "entropy" else targets.probs.amax(dim=1))
    confidence = torch.cat(parts).double().numpy()
    mean = float(confidence.mean())
    # Below this the differences are rounding errors of a source that answers uniformly.
    if mean < 1e-6:
        return np.ones(len(rows), dtype=np.float32)
    return np.asarray(confidence / mean, dtype=np.float32)
