"""PARC: do images of the same class have correlated features?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from potstill.errors import SimilarityError
from potstill.similarity._checks import (
    Float64s,
    Int64s,
    Targets,
    check_matrix,
    check_targets,
    finite_score,
)
from potstill.similarity._pairs import TIE, centred_ranks, correlation_rows, spearman, z_score

if TYPE_CHECKING:
    from collections.abc import Iterator

    from potstill.similarity._checks import Array

Bools = npt.NDArray[np.bool_]

PAIRS_AT_ONCE = 2**20  # in a step over all pairs; bounds the memory beside the one array of them


def parc(features: Array, labels: Array) -> float:
    """Pairwise annotation representation comparison: rank correlation of feature distance and label distance.

    Features are z-scored by column (constant columns become zero). The distance of two images is one minus the Pearson
    correlation of their rows; their label distance is 0 within a class and 1 across. The score is Spearman's
    correlation of the two over all pairs. Since label distance has two values, Spearman reduces exactly to mean ranks
    (the rank-sum form, with tied distances sharing their mean rank): `sqrt(3 q (1 - q)) (2 AUC - 1)` without ties,
    where q is the share of different-class pairs. Correlating one-hot rows in floating point instead breaks the ties
    of the label side by rounding and makes the score depend on how classes are numbered.

    For multi-label images the label distance is one minus the Pearson correlation of their 0/1 rows, computed from
    integer counts so that equal distances tie exactly, and the score is Spearman's correlation with mean ranks on both
    sides. One-hot rows give the score of the classes.

    Args:
        features: `(N, D)`, real; D >= 2.
        labels: `(N,)`, any integers; a class may have one image, but not all classes. Or `(N, C)`, bool or 0/1
            integers, for multi-label images, each of which has at least one of the C labels and lacks one.

    Returns:
        In [-1, 1], higher is better, about 0 for unrelated features. The maximum depends on q: 0.52 for 10 balanced
        classes, 0.27 for 37, so compare sources on one target, not targets. (The published code multiplies by 100 and
        first reduces to 32 principal components; neither is done here.)

    Cost: O(N^2 D + N^2 log N) time; memory for the N (N - 1) / 2 pairs once, about ten times for multi-label.

    Raises:
        SimilarityError: no class has two images, an image has no label or all, an image has constant z-scored features,
            all pairs are alike, or labels are values of a regression.

    Reference: Bolya, Mittapalli, Hoffman, "Scalable Diverse Model Selection for Accessible Transfer Learning",
    NeurIPS 2021, section 4.

    >>> round(parc([[0.0, 0.1, 1.0], [0.1, 0.0, 0.9], [1.0, 0.8, 0.0], [0.9, 1.0, 0.2]], [0, 0, 1, 1]), 4)
    0.8281
    """
    targets = check_targets(labels, metric="parc", min_images=3)
    if targets.form == "regression":
        raise SimilarityError(
            f"parc: labels must be integer classes (N,) or 0/1 integers (N, C), got floating numbers of shape "
            f"{np.shape(labels)}; use cka or logme for regression."
        )
    matrix = check_matrix(features, len(targets.columns), metric="parc", name="features")
    if targets.form == "classes" and targets.columns.sum(axis=0).max() < 2:
        raise SimilarityError("parc: needs at least one class with 2 images; every class has one.")
    if targets.form == "multi-label":
        _check_label_rows(targets)
    rows = correlation_rows(z_score(matrix), metric="parc")
    if targets.form == "multi-label":
        return finite_score(_multi_label_spearman(rows, targets.columns), metric="parc")
    pairs, same_class = _pair_correlations(rows, targets.index)
    return finite_score(_two_valued_spearman(pairs, same_class), metric="parc")


def _pair_blocks(count: int) -> Iterator[tuple[slice, Bools]]:
    """Blocks of rows, and for each which entries of (rows of the block, rows from its first on) are new pairs."""
    step = max(1, 4 * PAIRS_AT_ONCE // count)
    for start in range(0, count, step):
        block = slice(start, min(start + step, count))
        yield block, np.triu(np.ones((block.stop - start, count - start), dtype=bool), k=1)


def _pair_correlations(rows: Float64s, index: Int64s) -> tuple[Float64s, Float64s]:
    """Correlations of all pairs of images, `(N (N - 1) / 2,)`, and those of the pairs within classes, both unsorted."""
    sizes = np.bincount(index)
    pairs = np.empty(len(rows) * (len(rows) - 1) // 2)
    same_class = np.empty(int((sizes * (sizes - 1) // 2).sum()))
    pairs_at = same_at = 0
    for block, once in _pair_blocks(len(rows)):
        product = rows[block] @ rows[block.start :].T
        values, same = product[once], product[once & (index[block, None] == index[block.start :])]
        pairs[pairs_at : pairs_at + len(values)] = values
        same_class[same_at : same_at + len(same)] = same
        pairs_at, same_at = pairs_at + len(values), same_at + len(same)
    return pairs, same_class


def _two_valued_spearman(values: Float64s, chosen: Float64s) -> float:
    """Spearman's correlation of `values` with being among `chosen`, which repeats some of them. Sorts both in place."""
    values.sort()
    chosen.sort()
    squares = chosen_sum = 0.0
    chosen_at = 0
    for ends, ranks, sizes in _tied_groups(values):
        squares += float(sizes @ ranks**2)
        last = values[ends - 1]  # of each group
        chosen_stop = int(np.searchsorted(chosen, last[-1], side="right"))
        chosen_sum += float(ranks[np.searchsorted(last, chosen[chosen_at:chosen_stop])].sum())
        chosen_at = chosen_stop
    if squares == 0:  # a single group
        raise SimilarityError("parc: all pairs of images are equally similar, so ranks are not defined.")
    total, share = len(values), len(chosen) / len(values)
    return float(chosen_sum / total / np.sqrt(squares / total * share * (1 - share)))


def _tied_groups(ordered: Float64s) -> Iterator[tuple[Int64s, Float64s, Float64s]]:
    """Groups of tied values (gaps within `TIE`), some at a time: their ends, centred mean ranks, and sizes.

    Ranks are centred: they sum to zero over all values. A group may go over any number of steps; it then comes with the
    step in which it ends.
    """
    total, begin = len(ordered), 0
    for start in range(0, total, PAIRS_AT_ONCE):
        ends = start + 1 + np.flatnonzero(np.diff(ordered[start : start + PAIRS_AT_ONCE + 1]) > TIE)
        if start + PAIRS_AT_ONCE >= total:
            ends = np.append(ends, total)
        if len(ends):
            begins = np.concatenate([[begin], ends[:-1]])
            sizes = (ends - begins).astype(np.float64)
            yield ends, begins + (sizes - 1) / 2 - (total - 1) / 2, sizes
            begin = int(ends[-1])


def _check_label_rows(targets: Targets) -> None:
    """Pearson's correlation needs label rows that vary."""
    counts = targets.columns.sum(axis=1)
    flat = np.flatnonzero((counts == 0) | (counts == targets.columns.shape[1]))
    if len(flat):
        raise SimilarityError(
            f"parc: {len(flat)} of {len(counts)} images (first: row {flat[0]}) have no label or all of them, so the "
            "correlation of their labels with those of other images is not defined; leave them out, or use cka."
        )


def _multi_label_spearman(rows: Float64s, columns: Float64s) -> float:
    """Spearman's correlation of the correlations of features and of 0/1 labels, over all pairs of images."""
    once = np.triu_indices(len(rows), k=1)
    counts, kinds = columns.sum(axis=1), columns.shape[1]
    # Pearson's correlation of 0/1 rows, from whole numbers, so that equal cases are equal numbers.
    deviation = np.sqrt(counts * (kinds - counts))
    labels = (kinds * (columns @ columns.T) - np.outer(counts, counts)) / np.outer(deviation, deviation)
    ranks = centred_ranks((rows @ rows.T)[once], metric="parc")
    return spearman(ranks, centred_ranks(labels[once], metric="parc"))
