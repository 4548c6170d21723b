"""The sources: how to load them, and what they said about the target's images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from potstill.errors import UsageError
from potstill.types._array import Rows

LabelSpace = Literal["source", "clusters", "target"]


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

    def logits(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """z of the given rows, `(len(rows), Z)` float32, as exact as float16 differences to the largest one are."""
        return np.asarray(self.shifted[rows], dtype=np.float32) + np.asarray(self.maximum[rows])[:, None]

    def probs(self, rows: npt.NDArray[np.int64], temperature: float = 1.0) -> npt.NDArray[np.float32]:
        """softmax(z / temperature) of the given rows, `(len(rows), Z)` float32."""
        return np.exp(self.log_probs(rows, temperature))


TAIL_TEMPERATURES = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class TopKLogits:
    """The K largest of Z logits of every image, with what is needed to soften them exactly at T = 1, 2 and 4.

    `indices` `(N, K)` unsigned integers, largest logit first; `shifted` `(N, K)` float16, z - max(z); `maximum` `(N,)`
    float32; `tails` `(N, 3)` float16 or float32, the log-sum-exp of (z - max(z)) / T over the other Z - K classes at
    each T of TAIL_TEMPERATURES; `mean` `(N,)` float32 and `deviation` `(N,)` float16 or float32, of all Z logits
    (deviation with divisor Z).
    """

    indices: Rows
    shifted: Rows
    maximum: Rows
    tails: Rows
    mean: Rows
    deviation: Rows
    num_classes: int

    def probs(
        self, rows: npt.NDArray[np.int64], temperature: float = 1.0
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Class ids and softmax(z / temperature) of the K likeliest classes of the given rows, `(len(rows), K)` each.

        Raises UsageError for a temperature at which the tail was not kept.
        """
        if temperature not in TAIL_TEMPERATURES:
            raise UsageError(
                f"Sources of so many classes keep their {self.indices.shape[1]} likeliest; these can be softened at "
                f"temperature {', '.join(f'{each:g}' for each in TAIL_TEMPERATURES)}, not {temperature:g}. Use one of "
                "these."
            )
        scaled = np.asarray(self.shifted[rows], dtype=np.float32) / np.float32(temperature)
        tail = np.asarray(self.tails[rows])[:, TAIL_TEMPERATURES.index(temperature)]
        log_sum = np.logaddexp(np.log(np.exp(scaled).sum(axis=1)), tail)[:, None]
        indices = np.asarray(self.indices[rows]).astype(np.int64)
        return indices, np.exp(scaled - log_sum).astype(np.float32)


SourceLogits = DenseLogits | TopKLogits


@dataclass(frozen=True)
class SourceCost:
    """What a source cost in this call: `forwards` counts images that went through the model, 0 if all were cached.

    An image that went through in several views counts as often.

    `params` counts its parameters; `depth` its convolution and linear layers, shortcuts included.
    """

    forwards: int
    seconds: float
    params: int | None
    depth: int | None = None


@dataclass(frozen=True)
class SourceOutputs:
    """What one source says about the images: row i belongs to `image_ids[i]`.

    `features` `(N, D)` float16 or None; `logits` over the source's Z classes or None (no classifier); both are of the
    plain view. Stored views 1, 2, ... of the same images stand in `views` as logits or, for a source without a
    classifier, in `view_features` as features; the other one is empty.
    """

    source: str
    image_ids: tuple[str, ...]
    features: Rows | None
    logits: SourceLogits | None
    label_space: LabelSpace
    classes: tuple[str, ...] | None
    cost: SourceCost
    key: str
    views: tuple[SourceLogits, ...] = ()
    view_features: tuple[Rows, ...] = ()

    def rows(self, image_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Row numbers of the given images, int64."""
        position = {image_id: row for row, image_id in enumerate(self.image_ids)}
        return np.array([position[image_id] for image_id in image_ids], dtype=np.int64)
