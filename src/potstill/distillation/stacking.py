"""Target-space pseudo-labels: one probe on the joint features of all sources, each weighted by what it tells alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax

from potstill.distillation.propagation import neighbour_graph, propagate
from potstill.errors import SimilarityError
from potstill.probes import assign_folds, can_be_held_out, fit_probe, fit_temperature, held_out_logits, probe_logits

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

STACK_VERSION = 3
"""Of the numbers below and the procedure: a kept stack of another version is not taken over."""

POWER = 2
"""Of a source's merit in its weight: half the accuracy and half the probability of the best one count 1/16."""
MOST_JUDGED = 1000
"""Labeled images on which a source is judged; the cost grows with their third power."""
FOLDS = 4
PROPAGATIONS = (0.0, 0.5, 0.8, 0.95)
MOST_PROPAGATED = 100_000
"""Pool images; the cost of finding neighbours grows with their square."""
LEAST = 1e-6
"""Probability below which a class is not told from an impossible one."""
LEAST_SPREAD = 1e-3
"""Of the mean spread of a source's dimensions: a dimension that varies less is noise."""


@dataclass(frozen=True)
class Stack:
    """What the sources together say about the target's classes.

    Attributes:
        probs: `(N, C)` float32 of every pool image, rows summing to 1; one-hot for labeled images.
        shares: weight of each source in the joint features, as shares of 1.
        propagation: how much the neighbours of an image counted, in [0, 1).
        loss: mean cross-entropy of labeled images that were held out, in nats; None where none could be. The weights
            of the sources have seen their labels, so with many useless sources it is a little too good.
        accuracy: share of them that are classified rightly; None likewise.
    """

    probs: Floats
    shares: Mapping[str, float]
    propagation: float
    loss: float | None
    accuracy: float | None

    def record(self) -> dict[str, float | None]:
        """What a result says of it beside the weights."""
        return {
            "version": STACK_VERSION,
            "propagation": self.propagation,
            "held_out_loss": self.loss,
            "held_out_accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class _Labeled:
    """The labeled images: rows in the pool `(L,)`, labels `(L,)`, number of the group of each `(L,)`, classes C."""

    rows: Indices
    labels: Indices
    groups: Indices
    num_classes: int

    def only(self, kept: npt.NDArray[np.bool_] | Indices) -> _Labeled:
        return _Labeled(self.rows[kept], self.labels[kept], self.groups[kept], self.num_classes)


Shared = Callable[[_Labeled], Mapping[float, Floats]]
"""Labels -> share of the neighbours -> probabilities `(N, C)` of the pool by a probe on these labels."""


@dataclass(frozen=True)
class _Finish:
    """What is done to the probe's answers, and how well held-out labels are predicted then."""

    share: float = 0.0
    temperature: float = 1.0
    loss: float | None = None
    accuracy: float | None = None


def stack_sources(
    features: Mapping[str, npt.NDArray[np.floating]],
    labeled: Indices,
    labels: Indices,
    num_classes: int,
    *,
    groups: Sequence[str] | None = None,
) -> Stack:
    """Fit the stack of the sources on the labeled images and apply it to the pool.

    Each source's features are standardised over the pool and each image's get length 1, so that a source counts by its
    directions and not by its scale. A source weighs `(m_s / max m)^2`. Its merit `m_s = a_s exp(-l_s)` is the accuracy
    of its own probe on labeled images that were held out with their groups, times the geometric mean of the probability
    that the probe gives to their labels, l_s being its cross-entropy in nats: with few labels the accuracy alone says
    little. Weighted features are joined, and one probe is fitted on them.
    Then neighbours in the joint features share their predictions. How much they do, and how certain the result may be,
    is chosen on labels that neither probe nor neighbours have seen: a quarter of the groups at a time. With one label a
    class nothing can be held out: all sources weigh the same, and nothing is shared.

    Args:
        features: source -> `(N, D)` of every pool image; D may differ. At least one source.
        labeled: `(L,)` rows of the labeled images.
        labels: `(L,)` in 0..C-1.
        num_classes: C.
        groups: of the labeled images; those of one group are left out together.

    Cost: an eigendecomposition of an L x L matrix for each source (L at most 1,000) and of five for the joint probe.

    Raises:
        SimilarityError: no source.

    Reference: joined features under one ridge penalty are a sum of linear kernels, here weighted by the alignment of
    each with the labels (compare Cortes, Mohri, Rostamizadeh, "Algorithms for Learning Kernels Based on Centered
    Alignment", JMLR 2012); the power is that of the source weights.
    """
    if not features:
        raise SimilarityError("stack: needs at least one source.")
    members = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    known = _Labeled(labeled, labels, members, num_classes)
    directions = {name: unit_directions(values) for name, values in features.items()}
    weights = _weights(directions, known)
    joined = np.concatenate([np.float32(weights[name] ** 0.5) * each for name, each in directions.items()], axis=1)
    probs, finish = _finished(joined, known)
    total = sum(weights.values())
    shares = {name: weight / total for name, weight in weights.items()}
    return Stack(probs, shares, finish.share, finish.loss, finish.accuracy)


def unit_directions(features: npt.NDArray[np.floating]) -> Floats:
    """Each dimension with mean 0 and spread 1 over the images, then each image with length 1; `(N, D)` float32."""
    values = np.asarray(features, dtype=np.float32)
    spread = values.std(axis=0)
    standardised = (values - values.mean(axis=0)) / np.maximum(spread, max(LEAST_SPREAD * spread.mean(), 1e-12))
    return np.asarray(_of_length_one(standardised), dtype=np.float32)


def _of_length_one(values: Floats) -> Floats:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(lengths, 1e-12), dtype=np.float32)


def _weights(directions: Mapping[str, Floats], known: _Labeled) -> dict[str, float]:
    """Of each source; the best one's is 1."""
    judged = known.only(_judged_rows(known.labels))
    merits = {name: _merit(each[judged.rows], judged) for name, each in directions.items()}
    best = max(merits.values())
    if best == 0:
        return dict.fromkeys(directions, 1.0)
    return {name: (merit / best) ** POWER for name, merit in merits.items()}


def _merit(features: Floats, known: _Labeled) -> float:
    """Accuracy times the geometric mean of the label's probability; 0 if nothing can be held out."""
    held_out = judge_source(features, known.labels, known.num_classes, known.groups)
    return 0.0 if held_out is None else held_out[0] * float(np.exp(-held_out[1]))


def judge_source(features: Floats, labels: Indices, num_classes: int, groups: Indices) -> tuple[float, float] | None:
    """Accuracy and mean cross-entropy in nats of a probe on labeled images that it left out with their groups.

    Args:
        features: `(L, D)`.
        labels: `(L,)`.
        num_classes: C.
        groups: `(L,)` numbers.

    Returns:
        None if no image leaves a label of its class behind.
    """
    judged = can_be_held_out(labels, groups)
    if not judged.any():
        return None
    logits = held_out_logits(features, labels, num_classes, groups=groups)[judged]
    log_probs = log_softmax(logits, axis=1)[np.arange(len(logits)), labels[judged]]
    return float((logits.argmax(axis=1) == labels[judged]).mean()), -float(log_probs.mean())


def _finished(joined: Floats, known: _Labeled) -> tuple[Floats, _Finish]:
    """Probabilities `(N, C)` of the pool by a probe and its neighbours, and how they were finished."""
    if len(joined) > MOST_PROPAGATED:
        finish, propagated = _Finish(), {0.0: _probe_probs(joined, known)}
    else:
        graph = neighbour_graph(_of_length_one(joined))

        def shared(part: _Labeled) -> dict[float, Floats]:
            probs = _probe_probs(joined, part)
            return {share: propagate(probs, graph, share=share) for share in PROPAGATIONS}

        finish = _choose_finish(shared, known)
        propagated = shared(known)
    logits = np.log(propagated[finish.share].clip(LEAST)) / finish.temperature
    probs = softmax(logits, axis=1).astype(np.float32)
    probs[known.rows] = _one_hot(known)
    return probs, finish


def _choose_finish(shared: Shared, known: _Labeled) -> _Finish:
    """The share and temperature by which labels are predicted best that were held out, one fold of groups at a time.

    An image is judged if other images of its class were left to learn from.
    """
    folds = min(FOLDS, int(known.groups.max()) + 1)
    if folds < 2:
        return _Finish()
    fold_of = assign_folds(known.labels, known.groups, known.num_classes, folds, 0)
    logits = {share: np.zeros((len(known.labels), known.num_classes)) for share in PROPAGATIONS}
    judged = np.zeros(len(known.labels), dtype=bool)
    for fold in range(folds):
        held = fold_of == fold
        left = known.only(~held)
        if len(np.unique(left.labels)) < 2:
            continue
        judged |= held & np.isin(known.labels, left.labels)
        for share, probs in shared(left).items():
            logits[share][held] = np.log(probs[known.rows[held]].clip(LEAST))
    if not judged.any():
        return _Finish()
    labels = known.labels[judged]
    found = []
    for share, each in logits.items():
        temperature = fit_temperature(each[judged], labels)
        log_probs = log_softmax(each[judged] / temperature, axis=1)[np.arange(len(labels)), labels]
        accuracy = float((each[judged].argmax(axis=1) == labels).mean())
        found.append((float(-log_probs.mean()), share, temperature, accuracy))
    loss, share, temperature, accuracy = min(found)
    return _Finish(share, temperature, loss, accuracy)


def _probe_probs(joined: Floats, known: _Labeled) -> Floats:
    """`(N, C)`: of a probe for the pool, one-hot for the images that it was fitted on."""
    probe = fit_probe(joined[known.rows], known.labels, known.num_classes, groups=known.groups)
    probs: Floats = softmax(probe_logits(probe, joined), axis=1).astype(np.float32)
    probs[known.rows] = _one_hot(known)
    return probs


def _one_hot(known: _Labeled) -> Floats:
    one_hot = np.zeros((len(known.labels), known.num_classes), dtype=np.float32)
    one_hot[np.arange(len(known.labels)), known.labels] = 1
    return one_hot


def _judged_rows(labels: Indices) -> Indices:
    """All rows, or about `MOST_JUDGED` of them, classes as even as they can be."""
    if len(labels) <= MOST_JUDGED:
        return np.arange(len(labels))
    order = np.random.default_rng(0).permutation(len(labels))
    place_in_class = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        place_in_class[rows] = np.arange(len(rows))
    return np.sort(order[np.argsort(place_in_class[order], kind="stable")[:MOST_JUDGED]])
