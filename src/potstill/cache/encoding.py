"""How features and logits are stored: what a row keeps of them, in how many bytes, and how they come back.

Bytes a row, besides the 32 of its digest: features 2 D (4 D where float16 does not do); logits over up to 2,048 classes
2 Z + 8; over more classes, of which the 10 likeliest are kept, 56 (76 above 65,536 classes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from potstill.types import TAIL_TEMPERATURES, DenseLogits, Rows, SourceLogits, TopKLogits

Arrays = dict[str, npt.NDArray[Any]]

MOST_DENSE_CLASSES = 2048
KEPT_CLASSES = 10
FLOAT16_MAX = 65504.0
# A row is kept in float16 only if that moves it by less than this share of its norm; float16 itself rounds by 2**-11.
FLOAT16_ERROR = 2.0**-10


def kept_classes(num_classes: int) -> int | None:
    """How many of a source's logits a new cache entry keeps of every image; None means all.

    >>> kept_classes(1000), kept_classes(21841)
    (None, 10)
    """
    return KEPT_CLASSES if num_classes > MOST_DENSE_CLASSES else None


def encode_features(features: torch.Tensor) -> Arrays:
    """The array of a shard from float32 features `(n, D)` on the CPU.

    Features become float16, unless that would move a row by more than 2**-10 of its norm (overflow, tiny values): then
    the shard keeps float32.
    """
    values = features.numpy()
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    with np.errstate(invalid="ignore"):
        moved = np.linalg.norm(values.astype(np.float64) - halves, axis=1)
    fits = bool((moved <= FLOAT16_ERROR * np.linalg.norm(values.astype(np.float64), axis=1)).all())
    return {"features": halves if fits else values}


def encode_logits(logits: torch.Tensor, kept: int | None) -> Arrays:
    """The arrays of a shard from float32 logits `(n, Z)` on the CPU; row i depends on row i alone.

    Logits become z - max(z) in float16, cut off at -65504 (a probability of exactly 0): all of them, or the `kept`
    largest with what `TopKLogits` says beside them. The tails are logarithms and float16 as well: a large one leaves so
    little probability to the kept classes, and a small one takes so little, that none of theirs moves by 1e-3.
    """
    maximum = logits.max(dim=1, keepdim=True).values
    shifted = (logits - maximum).clamp(min=-FLOAT16_MAX)
    arrays: Arrays = {"maximum": maximum[:, 0].numpy()}
    if kept is None:
        arrays["shifted"] = shifted.numpy().astype(np.float16)
        arrays["log_sum_exp"] = torch.logsumexp(logits, dim=1).numpy()
        return arrays
    largest, indices = shifted.topk(kept, dim=1)
    others = shifted.scatter(1, indices, -torch.inf)
    tails = torch.stack([torch.logsumexp(others / temperature, dim=1) for temperature in TAIL_TEMPERATURES], dim=1)
    deviation = logits.std(dim=1, correction=0).clamp(max=FLOAT16_MAX)
    # safetensors has unsigned integers of 16 bits; most sources' classes fit into them.
    whole = np.uint16 if logits.shape[1] <= 1 << 16 else np.uint32
    arrays["indices"] = indices.numpy().astype(whole)
    arrays["shifted"] = largest.numpy().astype(np.float16)
    arrays["tails"] = tails.clamp(min=-FLOAT16_MAX).numpy().astype(np.float16)
    arrays["mean"] = logits.mean(dim=1).numpy()
    arrays["deviation"] = deviation.numpy().astype(np.float16)
    return arrays


def decode_logits(names: Mapping[str, Any], rows: Callable[[str], Rows], num_classes: int) -> SourceLogits | None:
    """The logits of shards that hold arrays of these names, `rows(name)` each; None where they hold no logits."""
    if "shifted" not in names:
        return None
    if "indices" not in names:
        return DenseLogits(rows("shifted"), rows("maximum"), rows("log_sum_exp"))
    return TopKLogits(
        indices=rows("indices"),
        shifted=rows("shifted"),
        maximum=rows("maximum"),
        tails=rows("tails"),
        mean=rows("mean"),
        deviation=rows("deviation"),
        num_classes=num_classes,
    )


class ShardDraft:
    """Rows of a shard as they come, batch by batch; logits are encoded at once, so that few bytes wait in memory.

    kept: as `encode_logits` has it. with_features: whether features are stored also of a source that has logits.
    """

    def __init__(self, kept: int | None, *, with_features: bool) -> None:
        self._kept = kept
        self._with_features = with_features
        self._features: list[torch.Tensor] = []
        self._logits: list[Arrays] = []

    def add(self, features: torch.Tensor | None, logits: torch.Tensor | None) -> None:
        """Take a batch of float32 features `(B, D)` and logits `(B, Z)`; one of them may be None."""
        if logits is not None:
            self._logits.append(encode_logits(logits, self._kept))
        if features is not None and (logits is None or self._with_features):
            self._features.append(features)

    def arrays(self, digests: Sequence[str]) -> Arrays:
        """The arrays of the shard; `digests` are the sha256 hex digests of the images that were added, in order."""
        arrays: Arrays = {"digests": np.frombuffer(bytes.fromhex("".join(digests)), dtype=np.uint8).reshape(-1, 32)}
        if self._features:
            arrays |= encode_features(torch.cat(self._features))
        for name in self._logits[0] if self._logits else ():
            arrays[name] = np.concatenate([batch[name] for batch in self._logits])
        return arrays


def row_bytes(feature_dim: int, num_classes: int, kept: int | None, *, with_features: bool) -> int:
    """What a row of a source takes, as `ShardDraft` makes it; 0 stands for a source without features or classes.

    >>> row_bytes(512, 1000, None, with_features=True)
    3064
    """
    draft = ShardDraft(kept, with_features=with_features)
    draft.add(
        torch.zeros(1, feature_dim) if feature_dim else None, torch.zeros(1, num_classes) if num_classes else None
    )
    return sum(array.nbytes for array in draft.arrays(["00" * 32]).values())
