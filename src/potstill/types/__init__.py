"""The artefacts that pass between stages. All are frozen; none does work.

Tensor legend: N images, B batch, D feature dims, C target classes, Z source classes, S sources.
"""

from potstill.types._array import Floats, Ints, Rows
from potstill.types._progress import Progress, no_progress
from potstill.types._ranking import MetricScore, RankedSource, Ranking, SourceWeights
from potstill.types._soft_targets import DenseTargets, SoftTargets, TopKTargets
from potstill.types._source import (
    TAIL_TEMPERATURES,
    DenseLogits,
    LabelSpace,
    Preprocessing,
    SourceCost,
    SourceLogits,
    SourceOutputs,
    SourceSpec,
    TopKLogits,
    Zoo,
)
from potstill.types._student import Batch, Evaluation, Probe, ViewKind
from potstill.types._target import BadImage, Split, Target

__all__ = [
    "TAIL_TEMPERATURES",
    "BadImage",
    "Batch",
    "DenseLogits",
    "DenseTargets",
    "Evaluation",
    "Floats",
    "Ints",
    "LabelSpace",
    "MetricScore",
    "Preprocessing",
    "Probe",
    "Progress",
    "RankedSource",
    "Ranking",
    "Rows",
    "SoftTargets",
    "SourceCost",
    "SourceLogits",
    "SourceOutputs",
    "SourceSpec",
    "SourceWeights",
    "Split",
    "Target",
    "TopKLogits",
    "TopKTargets",
    "ViewKind",
    "Zoo",
    "no_progress",
]
