"""What the sources say about the pool, ready to be gathered for a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from potstill.distillation.softening import Indices, require_softening, soft_targets
from potstill.errors import SourceError, UsageError
from potstill.types import DenseTargets, SoftTargets, SourceLogits, TopKLogits, TopKTargets


@dataclass(frozen=True)
class PoolAnswers:
    """What one source says about the N images of the pool.

    `views` holds one pair for every stored view: the logits, and int64 `(N,)`, the row of the logits for each pool
    image. An image in pass p over the pool takes view p modulo their number. `temperature` and `standardise` are as in
    `softening.soft_targets`. `confidences` is empty or has, for every view, `(N,)` float32 >= 0: how much each pool
    image counts (`softening.confidence_weights`).

    Raises UsageError on creation where parts do not fit each other.
    """

    views: Sequence[tuple[SourceLogits, Indices]]
    temperature: float = 1.0
    standardise: bool = False
    confidences: Sequence[npt.NDArray[np.float32]] = ()

    def __post_init__(self) -> None:
        if not self.views:
            raise UsageError("A source's answers need at least one stored view.")
        forms = {_form(logits) for logits, _ in self.views}
        sizes = {len(rows) for _, rows in self.views} | {len(values) for values in self.confidences}
        if len(forms) > 1 or len(sizes) > 1:
            raise UsageError(
                "The stored views of a source, and its confidences, must have the same classes and images; got "
                f"(kept, all) classes {sorted(forms)} and {sorted(sizes)} images."
            )
        if self.confidences and len(self.confidences) != len(self.views):
            raise UsageError(f"{len(self.views)} stored views need as many confidences, got {len(self.confidences)}.")
        for logits, _ in self.views:
            require_softening(logits, temperature=self.temperature, standardise=self.standardise)

    @property
    def num_classes(self) -> int:
        return self.views[0][0].num_classes

    @property
    def num_images(self) -> int:
        return len(self.views[0][1])

    def gather(self, rows: Indices, passes: Indices) -> SoftTargets:
        """Pseudo-labels of M pool images, each from the view of its pass; float32 on the CPU.

        Args:
            rows: `(M,)` positions in the pool.
            passes: `(M,)` the pass over the pool that each belongs to, >= 0.
        """
        if len(self.views) == 1:
            return self._of_view(0, rows)
        view_of = passes % len(self.views)
        # A batch lies in one pass or straddles two, so there are hardly ever more than two parts.
        places = [(view, np.flatnonzero(view_of == view)) for view in np.unique(view_of).tolist()]
        if len(places) == 1:
            return self._of_view(places[0][0], rows)
        order = torch.from_numpy(np.argsort(np.concatenate([where for _, where in places])))
        return _joined([self._of_view(view, rows[where]) for view, where in places], order)

    def _of_view(self, view: int, rows: Indices) -> SoftTargets:
        logits, row_of = self.views[view]
        targets = soft_targets(logits, row_of[rows], temperature=self.temperature, standardise=self.standardise)
        if not self.confidences:
            return targets
        return replace(targets, confidence=torch.from_numpy(self.confidences[view][rows]))


@dataclass(frozen=True)
class SourceAnswers:
    """What every source says about the pool, by name, in the order of the student's source heads.

    Raises UsageError on creation where sources disagree about the size of the pool.
    """

    sources: Mapping[str, PoolAnswers]

    def __post_init__(self) -> None:
        sizes = {name: answers.num_images for name, answers in self.sources.items()}
        if len(set(sizes.values())) > 1:
            raise UsageError(f"Sources must answer for the same pool, got {sizes} images.")

    @property
    def num_classes(self) -> Mapping[str, int]:
        """Source name -> Z."""
        return {name: answers.num_classes for name, answers in self.sources.items()}

    @property
    def temperatures(self) -> Mapping[str, float]:
        """Source name -> T; the student's logits for that source are divided by the same."""
        return {name: answers.temperature for name, answers in self.sources.items()}

    def gather(self, rows: Tensor, passes: Tensor) -> tuple[SoftTargets, ...]:
        """Pseudo-labels of M pool images by every source, float32 on the CPU. Touches M rows of each source only.

        Args:
            rows: `(M,)` int64, positions in the pool.
            passes: `(M,)` int64 >= 0, the pass over the pool that each belongs to.

        Returns:
            One for each source, in their order; what those are, `PoolAnswers.gather` says.

        Raises:
            IndexError: a row outside the pool.
            ValueError: not one pass for every row.
            SourceError: answers that are not finite.
        """
        if passes.shape != rows.shape:
            raise ValueError(f"expected a pass for each of {tuple(rows.shape)} rows, got {tuple(passes.shape)}")
        # numpy would count a negative row from the end.
        if len(rows) and rows.min() < 0:
            raise IndexError(f"expected rows of the pool >= 0, got {int(rows.min())}")
        images, numbers = rows.numpy(), passes.numpy()
        targets = tuple(answers.gather(images, numbers) for answers in self.sources.values())
        self._require_finite(targets)
        return targets

    def _require_finite(self, targets: tuple[SoftTargets, ...]) -> None:
        for name, each in zip(self.sources, targets, strict=True):
            if not np.isfinite(each.probs.numpy().sum()):
                raise SourceError(
                    f"Source {name} has answers that are not finite numbers. Check its weights and preprocessing, then "
                    "extract its answers again (`potstill cache verify`), or leave it out."
                )


def _form(logits: SourceLogits) -> tuple[int, int]:
    """Classes kept of an image, and all classes."""
    return (logits.indices.shape[1] if isinstance(logits, TopKLogits) else logits.num_classes), logits.num_classes


def _joined(parts: list[SoftTargets], order: Tensor) -> SoftTargets:
    """Parts of a batch in one, row i being row `order[i]` of the parts one after the other."""
    probs = torch.cat([part.probs for part in parts])[order]
    known = [part.confidence for part in parts if part.confidence is not None]
    confidence = torch.cat(known)[order] if known else None
    indices = [part.indices for part in parts if isinstance(part, TopKTargets)]
    if indices:
        return TopKTargets(torch.cat(indices)[order], probs, parts[0].num_classes, confidence)
    return DenseTargets(probs, confidence)
