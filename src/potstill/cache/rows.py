"""One source and the images that it may be asked about: rows of features and logits by sha256."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from potstill.allocation import keep_freed_memory
from potstill.cache.choices import Choices
from potstill.cache.images import ImageReader, Pixels
from potstill.data.preprocessing import normalise
from potstill.data.stored_views import render_view, view_numbers
from potstill.errors import SourceError
from potstill.sources import FrozenSource, GivenAnswers, Source
from potstill.sources.soundness import check_normalisation
from potstill.types import Preprocessing

Outputs = tuple[Tensor | None, Tensor | None]


class AskedSource:
    """A source that is opened when its first answer is wanted.

    `forwards` counts images that went through the model, `seconds` the time that opening and answering took.
    `image_of` names an image for every sha256 that may be asked for. `flip`: whether stored views may be mirrored.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        image_of: Mapping[str, str],
        reader: ImageReader,
        *,
        flip: bool = False,
    ) -> None:
        self._open_source = open_source
        self._image_of = image_of
        self._reader = reader
        self._flip = flip
        self._source: Source | None = None
        self.forwards = 0
        self.seconds = 0.0

    @property
    def digests(self) -> list[str]:
        """Every sha256 that may be asked for."""
        return list(self._image_of)

    def images(self, digests: Sequence[str]) -> list[str]:
        """The ids of the images with these sha256."""
        return [self._image_of[digest] for digest in digests]

    @property
    def source(self) -> Source:
        """The opened source. Raises what opening it raises."""
        if self._source is None:
            started = time.perf_counter()
            self._source = self._open_source()
            self.seconds += time.perf_counter() - started
            if isinstance(self._source, FrozenSource) and self._source.device == "cpu":
                keep_freed_memory()
        return self._source

    def close(self) -> None:
        """Free the memory of the model; the next answer would open it again."""
        self._source = None

    def squares(self, view: int) -> tuple[Preprocessing, ...]:
        """How images must be fitted for this view; nothing for a source that looks at none."""
        if isinstance(self.source, GivenAnswers):
            return ()
        at = self.source.preprocessing
        # A crop of the centre would hide the border, which stored views may show.
        return (at if view == 0 else replace(at, crop=1.0),)

    def answer(self, pixels: Sequence[Pixels], digests: Sequence[str], view: int, choices: Choices) -> Outputs:
        """One view of some images: features `(B, D)` or None, and logits `(B, Z)` or None, float32 on the CPU.

        `pixels` has what `squares` asks for. Raises SourceError if the source fails.
        """
        source, started = self.source, time.perf_counter()
        if isinstance(source, GivenAnswers):
            if view:
                raise SourceError(
                    f"Source '{source.name}' has answers about the plain images alone and none about augmented views. "
                    "Leave stored views out, or leave it out."
                )
            answers = source.outputs(self.images(digests), self._reader.files, digests)
        else:
            answers = self._forward(source, pixels[0], digests, view, choices)
        self.seconds += time.perf_counter() - started
        return answers

    def compute(self, digests: Sequence[str], view: int, choices: Choices) -> Outputs:
        """The rows of one view of a few images, at once."""
        pixels = self._reader.batch(self.images(digests), self.squares(view))
        return self.answer(pixels, digests, view, choices)

    def _model(self) -> FrozenSource:
        if not isinstance(self.source, FrozenSource):
            raise TypeError(f"source {self.source.name} has no model")
        return self.source

    def _forward(
        self, source: FrozenSource, pixels: Pixels, digests: Sequence[str], view: int, choices: Choices
    ) -> Outputs:
        preprocessing = source.preprocessing
        shown = torch.from_numpy(pixels).to(source.device)
        if view:
            numbers = view_numbers(digests, view)
            shown = render_view(shown, numbers, size=preprocessing.image_size, flip=self._flip)
        images = normalise(shown, preprocessing.mean, preprocessing.std)
        if self.forwards == 0 and source.model is not None:
            check_normalisation(source.name, source.model, images)  # by its batch norm layers, so before these go
        if source.is_fused and not choices.fused:
            self.close()
            source = self._model()
        source = source.fused() if choices.fused else source
        self._source = source = source if source.layout == choices.layout else source.arranged(choices.layout)
        answers = [source.outputs(batch) for batch in torch.split(images, choices.batch_size)]
        self.forwards += len(images)
        features, logits = (_joined([answer[number] for answer in answers]) for number in (0, 1))
        return features, logits


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found).cpu() if found else None
