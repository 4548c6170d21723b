"""Ask one source about image files: rows of features and logits by sha256, in batches of fixed composition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from potstill.allocation import keep_freed_memory
from potstill.cache.images import ImageReader, batches_of
from potstill.data.preprocessing import normalise
from potstill.data.stored_views import render_view, view_numbers
from potstill.errors import SourceError
from potstill.sources import FrozenSource, GivenAnswers, Source
from potstill.sources.soundness import check_normalisation

Outputs = tuple[Tensor | None, Tensor | None]


class RowComputer:
    """Computes rows with one source, which is opened when the first row is wanted; `forwards` counts images.

    `image_of` names an image for every sha256 that may be asked for. `flip`: whether stored views may be mirrored.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        image_of: Mapping[str, str],
        reader: ImageReader,
        *,
        workers: int,
        flip: bool = False,
    ) -> None:
        self._open_source = open_source
        self._image_of = image_of
        self._reader = reader
        self._workers = workers
        self._flip = flip
        self._source: Source | None = None
        self.forwards = 0

    @property
    def digests(self) -> list[str]:
        """Every sha256 that may be asked for."""
        return list(self._image_of)

    @property
    def source(self) -> Source:
        """The opened source. Raises what opening it raises."""
        if self._source is None:
            self._source = self._open_source()
            if isinstance(self._source, FrozenSource) and self._source.device == "cpu":
                keep_freed_memory()
        return self._source

    def batches(self, digests: Sequence[str], views: Sequence[int], *, batch_size: int) -> Iterator[list[Outputs]]:
        """For each batch of images and, in it, each view: features `(B, D)` or None, and logits `(B, Z)` or None.

        They are float32 on the CPU. Images go through the model in the given order, `batch_size` at a time: the order
        decides the last bits. A file is decoded once for all its views.
        """
        source = self.source
        if isinstance(source, GivenAnswers):
            yield from self._given(source, digests, views, batch_size)
            return
        # A crop of the centre would hide the border, which stored views may show.
        wanted = {
            view: source.preprocessing if view == 0 else replace(source.preprocessing, crop=1.0) for view in views
        }
        squares = tuple(dict.fromkeys(wanted.values()))
        batches = batches_of(
            [self._image_of[digest] for digest in digests],
            read=lambda image_id: self._reader.read(image_id, squares),
            batch_size=batch_size,
            workers=self._workers,
        )
        for number, batch in enumerate(batches):
            pixels = {
                square: torch.from_numpy(part).to(source.device) for square, part in zip(squares, batch, strict=True)
            }
            shown = digests[number * batch_size : (number + 1) * batch_size]
            yield [self._outputs(source, pixels[wanted[view]], shown, view) for view in views]

    def compute(self, digests: Sequence[str], view: int, *, batch_size: int) -> Outputs:
        """The rows of one view of all the images, as `batches` gives them."""
        rows = [outputs for (outputs,) in self.batches(digests, (view,), batch_size=batch_size)]
        features, logits = (_joined([row[number] for row in rows]) for number in (0, 1))
        return features, logits

    def _outputs(self, source: FrozenSource, pixels: Tensor, digests: Sequence[str], view: int) -> Outputs:
        preprocessing = source.preprocessing
        if view:
            numbers = view_numbers(digests, view)
            pixels = render_view(pixels, numbers, size=preprocessing.image_size, flip=self._flip)
        images = normalise(pixels, preprocessing.mean, preprocessing.std)
        if self.forwards == 0 and source.model is not None:
            check_normalisation(source.name, source.model, images)
        features, logits = source.outputs(images)
        self.forwards += len(pixels)
        return None if features is None else features.cpu(), None if logits is None else logits.cpu()

    def _given(
        self, source: GivenAnswers, digests: Sequence[str], views: Sequence[int], batch_size: int
    ) -> Iterator[list[Outputs]]:
        if set(views) != {0}:
            raise SourceError(
                f"Source '{source.name}' has answers about the plain images alone and none about augmented views. "
                "Leave stored views out, or leave it out."
            )
        for start in range(0, len(digests), batch_size):
            shown = digests[start : start + batch_size]
            yield [source.outputs([self._image_of[digest] for digest in shown], self._reader.files, shown)]


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None
