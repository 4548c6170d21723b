"""The artefacts that pass between stages. All are frozen; none does work.

Tensor legend: N images, B batch, D feature dims, C target classes, Z source classes, S sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

LabelSpace = Literal["source", "clusters", "target"]
ViewKind = Literal["plain", "weak", "strong"]
Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


class Rows(Protocol):
    """Rows of an array that need not lie in memory: a numpy array, or rows of memory-mapped shards."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, indices: npt.NDArray[np.int64], /) -> npt.NDArray[np.floating]: ...


class Progress(Protocol):
    """Receives how far a long task is: `done` of `total` units of `task`. Called often; must be cheap."""

    def __call__(self, task: str, done: int, total: int, /) -> None: ...


def no_progress(task: str, done: int, total: int, /) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True)
class Split:
    """Which image belongs to which part. Image ids are POSIX paths relative to the data folder.

    `labeled` and `unlabeled` together are the pool; `test` is never read by ranking, selection or training.
    """

    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    split_seed: int
    seed: int

    @property
    def pool(self) -> tuple[str, ...]:
        """All training images, labeled first."""
        return self.labeled + self.unlabeled


@dataclass(frozen=True)
class BadImage:
    """An image file that cannot be read, and why. It takes part in nothing."""

    image_id: str
    reason: str


@dataclass(frozen=True)
class Target:
    """The task that the student must learn: readable images, their known labels and the split.

    `labels` holds the labels that the user lets us see: those of the labeled, val and test parts.
    `hidden_labels` holds the training labels that `label_fraction` or `labels_per_class` hid; only the `ceiling`
    baseline may read them.
    """

    name: str
    root: Path
    layout: str
    classes: tuple[str, ...]
    files: Mapping[str, Path]
    digests: Mapping[str, str]
    labels: Mapping[str, int]
    hidden_labels: Mapping[str, int]
    groups: Mapping[str, str]
    split: Split
    bad_images: tuple[BadImage, ...] = ()
    notes: tuple[str, ...] = ()
    test_drawn: bool = False
    """Whether the test part was drawn by us; False for one that came with the data."""

    def labels_of(self, image_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Known labels, int64 `(N,)`. Raises KeyError for an image whose label is absent or hidden."""
        return np.array([self.labels[image_id] for image_id in image_ids], dtype=np.int64)


@dataclass(frozen=True)
class SourceSpec:
    """How to load and feed one source; the keys of the zoo file, resolved. None means the model's own value.

    `weights`, `file`, `features`, `logits` and `paths` are absolute here; the zoo file has them relative to itself.
    """

    name: str
    model: str
    weights: Path | None = None
    num_classes: int | None = None
    image_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: str | None = None
    crop: float | None = None
    classes: tuple[str, ...] | None = None
    license: str | None = None
    trained_on: str | None = None
    accuracy: Mapping[str, float | str] | None = None
    file: Path | None = None
    features_output: str | None = None
    logits_output: str | None = None
    callable: str | None = None
    features: Path | None = None
    logits: Path | None = None
    paths: Path | None = None
    revision: str | None = None
    sha256: str | None = None
    url: str | None = None
    allow_pickle: bool = False


@dataclass(frozen=True)
class Preprocessing:
    """Evaluation transform of a model: resize the shorter side to image_size / crop, centre-crop, normalise.

    Pixels are scaled to [0, 1] before mean and std.
    `interpolation` is "bilinear", "bicubic", "lanczos" or "nearest"; `crop` is in (0, 1].
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    crop: float = 1.0


@dataclass(frozen=True)
class Zoo:
    """Ordered mapping name -> SourceSpec."""

    name: str
    sources: Mapping[str, SourceSpec]

    def __iter__(self) -> Iterator[SourceSpec]:
        return iter(self.sources.values())

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True)
class DenseLogits:
    """All Z logits of every image, stored as z - max(z) in float16 with the max and log-sum-exp beside them.

    `shifted` `(N, Z)` float16, `maximum` `(N,)` float32, `log_sum_exp` `(N,)` float32 of the unshifted logits.
    """

    shifted: Rows
    maximum: Rows
    log_sum_exp: Rows

    @property
    def num_classes(self) -> int:
        return self.shifted.shape[1]

    def log_probs(self, rows: npt.NDArray[np.int64], temperature: float = 1.0) -> npt.NDArray[np.float32]:
        """log softmax(z / temperature) of the given rows, `(len(rows), Z)` float32."""
        scaled = np.asarray(self.shifted[rows], dtype=np.float32) / temperature
        log_sum = np.log(np.exp(scaled).sum(axis=1, keepdims=True, dtype=np.float32))
        return np.asarray(scaled - log_sum, dtype=np.float32)

    def probs(self, rows: npt.NDArray[np.int64], temperature: float = 1.0) -> npt.NDArray[np.float32]:
        """softmax(z / temperature) of the given rows, `(len(rows), Z)` float32."""
        return np.exp(self.log_probs(rows, temperature))


@dataclass(frozen=True)
class SourceCost:
    """What a source cost in this call: `forwards` counts images that went through the model, 0 if all were cached."""

    forwards: int
    seconds: float
    params: int | None


@dataclass(frozen=True)
class SourceOutputs:
    """What one source says about the images: row i belongs to `image_ids[i]`.

    `features` `(N, D)` float16 or None; `logits` over the source's Z classes or None (no classifier).
    """

    source: str
    image_ids: tuple[str, ...]
    features: Rows | None
    logits: DenseLogits | None
    label_space: LabelSpace
    classes: tuple[str, ...] | None
    cost: SourceCost
    key: str

    def rows(self, image_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Row numbers of the given images, int64."""
        position = {image_id: row for row, image_id in enumerate(self.image_ids)}
        return np.array([position[image_id] for image_id in image_ids], dtype=np.int64)


@dataclass(frozen=True)
class MetricScore:
    """One metric of one source: a finite score, higher is better, or None and the reason why there is none."""

    score: float | None
    error: str | None = None
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class RankedSource:
    """One row of a ranking. `score` is that of the ranking's metric; None if it or the source failed (`error`)."""

    name: str
    score: float | None
    scores: Mapping[str, MetricScore]
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Ranking:
    """The sources, best first by `metric`; those that failed come last."""

    metric: str
    scoring_images: int
    sources: tuple[RankedSource, ...]

    def scores(self) -> dict[str, float]:
        """name -> score of the sources that have one, best first."""
        return {row.name: row.score for row in self.sources if row.score is not None}


@dataclass(frozen=True)
class SourceWeights:
    """A point on the simplex over sources: non-negative, sums to one."""

    scheme: str
    values: Mapping[str, float]

    def __post_init__(self) -> None:
        weights = list(self.values.values())
        if not weights or min(weights) < 0 or abs(sum(weights) - 1) > 1e-9:
            raise ValueError(f"source weights must be non-negative and sum to 1, got {dict(self.values)}")

    @property
    def effective_sources(self) -> float:
        """1 / sum a_s^2: the number of equally weighted sources that would be as spread out."""
        return 1.0 / sum(weight * weight for weight in self.values.values())


@dataclass(frozen=True)
class Probe:
    """A linear classifier on features: logits = features @ coefficients + intercept, over the target classes.

    `coefficients` `(D, C)`, `intercept` `(C,)`, float64. `penalty` is the L2 penalty that was chosen.
    """

    coefficients: npt.NDArray[np.float64]
    intercept: npt.NDArray[np.float64]
    penalty: float


@dataclass(frozen=True)
class Batch:
    """One training step's images, already augmented and normalised, float32 `(B, 3, H, W)`.

    `pool_rows` `(M,)` int64 are positions in `Split.pool`; `pool_weak` and `pool_strong` are two views of those images
    (either may be None when the method does not need it). `progress` goes from 0 to 1 over the run.
    """

    labeled_images: torch.Tensor
    labels: torch.Tensor
    pool_rows: torch.Tensor | None
    pool_weak: torch.Tensor | None
    pool_strong: torch.Tensor | None
    progress: float


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a student on one part, and the figures computed from them. `probs` `(N, C)` float32."""

    image_ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    probs: npt.NDArray[np.float32]
    metrics: Mapping[str, float | None] = field(default_factory=dict)
