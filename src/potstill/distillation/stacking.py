"""Target-space pseudo-labels: one probe on the joint features of the sources that explain the labels best together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import log_softmax, softmax

from potstill.distillation.propagation import neighbour_graph, propagate
from potstill.errors import SimilarityError
from potstill.probes import fit_probe, fit_temperature, held_out_logits, probe_logits

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

MOST_CHOICES = 6
MOST_JUDGED = 1000
"""Labeled images by which sources are chosen; the cost grows with their third power."""
LEAST_GAIN = 1e-3
"""Nats a label by which another source must improve held-out predictions."""
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
        shares: how often each source was chosen, as shares of 1; sources that were not are absent.
        propagation: how much the neighbours of an image counted, in [0, 1).
        loss: mean cross-entropy of held-out labeled images, in nats; None where nothing could be held out.
        accuracy: share of held-out labeled images that are classified rightly; None likewise.
    """

    probs: Floats
    shares: Mapping[str, float]
    propagation: float
    loss: float | None
    accuracy: float | None


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
    directions and not by its scale. Sources are chosen one after the other, with replacement: the one whose features,
    joined to those chosen before, predict held-out labels best (cross-entropy of the calibrated ridge probe that left
    the image's group out), until none helps any more. A source that is chosen twice counts double. Then neighbours in
    the joint features share their predictions, as far as held-out labels consent. With one label a class nothing can
    be held out: the first source is taken alone, and nothing is shared.

    Args:
        features: source -> `(N, D)` of every pool image; D may differ. At least one source, the most related first.
        labeled: `(L,)` rows of the labeled images.
        labels: `(L,)` in 0..C-1.
        num_classes: C.
        groups: of the labeled images; those of one group are left out together.

    Cost: some tens of eigendecompositions of an L x L matrix, L at most 1,000.

    Raises:
        SimilarityError: no source.

    Reference: forward selection with replacement as in Caruana et al., "Ensemble Selection from Libraries of Models",
    ICML 2004; joined features of several backbones under one ridge penalty are an average of linear kernels.
    """
    if not features:
        raise SimilarityError("stack: needs at least one source.")
    directions = {name: unit_directions(values) for name, values in features.items()}
    judged = _judged_rows(labels)
    parts = {name: values[labeled[judged]] for name, values in directions.items()}
    some_groups = None if groups is None else [groups[row] for row in judged]
    chosen: list[str] = [next(iter(features))]
    loss = accuracy = None
    if np.bincount(labels).max() > 1:
        chosen, loss, accuracy = _choose(parts, labels[judged], num_classes, some_groups)
    joined = _joined(directions, chosen)
    probe = fit_probe(joined[labeled], labels, num_classes, groups=groups)
    probs = softmax(probe_logits(probe, joined), axis=1).astype(np.float32)
    known = np.eye(num_classes, dtype=np.float32)[labels]
    share = 0.0
    if loss is not None and len(probs) <= MOST_PROPAGATED:
        graph = neighbour_graph(joined / np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-12))
        held_out = probs.copy()
        held_out[labeled] = softmax(held_out_logits(joined[labeled], labels, num_classes, groups=groups), axis=1)
        share, temperature, loss, accuracy = _choose_propagation(held_out, graph, labeled, labels)
        probs[labeled] = known
        probs = softmax(np.log(propagate(probs, graph, share=share).clip(LEAST)) / temperature, axis=1)
    probs[labeled] = known
    shares = {name: count / len(chosen) for name, count in Counter(chosen).items()}
    return Stack(probs.astype(np.float32), shares, share, loss, accuracy)


def unit_directions(features: npt.NDArray[np.floating]) -> Floats:
    """Each dimension with mean 0 and spread 1 over the images, then each image with length 1; `(N, D)` float32."""
    values = np.asarray(features, dtype=np.float32)
    spread = values.std(axis=0)
    standardised = (values - values.mean(axis=0)) / np.maximum(spread, max(LEAST_SPREAD * spread.mean(), 1e-12))
    lengths = np.linalg.norm(standardised, axis=1, keepdims=True)
    return np.asarray(standardised / np.maximum(lengths, 1e-12), dtype=np.float32)


def _choose(
    parts: Mapping[str, Floats], labels: Indices, num_classes: int, groups: Sequence[str] | None
) -> tuple[list[str], float, float]:
    """Names in the order in which they were chosen, and the held-out loss and accuracy of all of them together."""
    chosen: list[str] = []
    best, accuracy = np.inf, 0.0
    while len(chosen) < MOST_CHOICES:
        trials = [(*_held_out(_joined(parts, [*chosen, name]), labels, num_classes, groups), name) for name in parts]
        loss, right, name = min(trials)
        if loss > best - LEAST_GAIN:
            break
        best, accuracy = loss, right
        chosen.append(name)
    return chosen, float(best), float(accuracy)


def _choose_propagation(
    held_out: Floats, graph: sparse.csr_array, labeled: Indices, labels: Indices
) -> tuple[float, float, float, float]:
    """Share of the neighbours and temperature by which held-out labels are predicted best; their loss and accuracy.

    Args:
        held_out: `(N, C)` of every pool image; those of labeled images by probes that left them out.
        graph: of the pool.
        labeled: rows of the labeled images.
        labels: of these.
    """
    judged = np.bincount(labels)[labels] > 1
    found = []
    for share in PROPAGATIONS:
        logits = np.log(propagate(held_out, graph, share=share)[labeled[judged]].clip(LEAST))
        temperature = fit_temperature(logits, labels[judged])
        loss = -log_softmax(logits / temperature, axis=1)[np.arange(len(logits)), labels[judged]].mean()
        found.append((float(loss), share, temperature, float((logits.argmax(axis=1) == labels[judged]).mean())))
    loss, share, temperature, accuracy = min(found)
    return share, temperature, loss, accuracy


def _held_out(features: Floats, labels: Indices, num_classes: int, groups: Sequence[str] | None) -> tuple[float, float]:
    """Cross-entropy and accuracy of images by probes that left them out; classes with one image are not judged."""
    judged = np.bincount(labels)[labels] > 1
    logits = held_out_logits(features, labels, num_classes, groups=groups)[judged]
    log_probs = log_softmax(logits, axis=1)[np.arange(len(logits)), labels[judged]]
    # A class whose images are all in one group has no other image to learn from.
    return float(-log_probs.clip(min=-20).mean()), float((logits.argmax(axis=1) == labels[judged]).mean())


def _joined(parts: Mapping[str, Floats], names: Sequence[str]) -> Floats:
    counts = Counter(names)
    return np.concatenate([np.sqrt(counts[name], dtype=np.float32) * parts[name] for name in sorted(counts)], axis=1)


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
