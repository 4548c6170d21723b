"""Run one source over image files: rows of features and logits by sha256, in batches of fixed composition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from potstill.cache.images import ImageReader, batches_of
from potstill.data.preprocessing import normalise
from potstill.sources import FrozenSource


class RowComputer:
    """Computes rows with one source, which is opened when the first row is wanted; `forwards` counts images.

    `image_of` names an image for every sha256 that may be asked for.
    """

    def __init__(
        self,
        open_model: Callable[[], FrozenSource],
        image_of: Mapping[str, str],
        reader: ImageReader,
        *,
        workers: int,
    ) -> None:
        self._open_model = open_model
        self._image_of = image_of
        self._reader = reader
        self._workers = workers
        self._source: FrozenSource | None = None
        self.forwards = 0

    @property
    def digests(self) -> list[str]:
        """Every sha256 that may be asked for."""
        return list(self._image_of)

    @property
    def source(self) -> FrozenSource:
        """The opened source. Raises what opening it raises."""
        if self._source is None:
            self._source = self._open_model()
        return self._source

    def compute(
        self,
        digests: Sequence[str],
        *,
        batch_size: int,
        on_batch: Callable[[int], None] = lambda count: None,
    ) -> tuple[Tensor, Tensor | None]:
        """Features `(n, D)` and logits `(n, Z)` or None, float32 on the CPU; `on_batch` gets each batch's size.

        Images go through the model in the given order, `batch_size` at a time: the order decides the last bits.
        """
        source = self.source
        preprocessing = source.preprocessing
        batches = batches_of(
            [self._image_of[digest] for digest in digests],
            read=lambda image_id: self._reader.read(image_id, preprocessing),
            batch_size=batch_size,
            workers=self._workers,
        )
        all_features: list[Tensor] = []
        all_logits: list[Tensor] = []
        for pixels in batches:
            moved = torch.from_numpy(pixels).to(source.device)
            features, logits = source.outputs(normalise(moved, preprocessing.mean, preprocessing.std))
            all_features.append(features.cpu())
            if logits is not None:
                all_logits.append(logits.cpu())
            self.forwards += len(pixels)
            on_batch(len(pixels))
        return torch.cat(all_features), torch.cat(all_logits) if all_logits else None
