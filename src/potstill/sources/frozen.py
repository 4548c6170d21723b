"""A frozen model that answers for images: the one interface of every source that is a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from potstill.convolutions import repeatable_convolutions
from potstill.errors import SourceError
from potstill.sources.fusing import fuse_batch_norm
from potstill.types import Preprocessing, SourceSpec

Answers = tuple[Tensor | None, Tensor | None]
Answer = Callable[[Tensor], Answers]
"""Normalised images `(B, 3, H, W)` -> features `(B, D)` or None, logits `(B, Z)` or None."""

MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class FrozenSource:
    """A source that is ready to answer.

    `num_classes` is Z, 0 without a classifier; `feature_dim` is D, 0 where only logits can be had; one of them is not
    0. `params` counts all parameters of the model and `depth` its convolution and linear layers, shortcuts included;
    both are None where the model cannot be looked into.
    """

    name: str
    preprocessing: Preprocessing
    num_classes: int
    feature_dim: int
    params: int | None
    depth: int | None
    classes: tuple[str, ...] | None
    device: str
    answer: Answer = field(repr=False)
    model: nn.Module | None = field(repr=False)
    """Where it can be looked into; it takes the images that `answer` takes."""
    layout: str = "channels_last"
    """The memory order of images and weights: a key of `MEMORY_FORMATS`."""
    ours: bool = False
    """Whether nobody else uses the model, so that it may be changed."""
    is_fused: bool = False
    """Whether `fused` was asked for."""

    def outputs(self, images: Tensor) -> Answers:
        """Features `(B, D)` and logits `(B, Z)`, or None for what the source has not; float32 on its device.

        `images` are float32 `(B, 3, H, W)`, normalised by `preprocessing`. Raises SourceError, with the source's name,
        if the model fails, or if an output has another shape than the first one had or fails `check_values`.
        """
        arranged = images.contiguous(memory_format=MEMORY_FORMATS[self.layout])
        features, logits = answered(self.name, self.answer, arranged, self.device)
        for title, values, width in (("features", features, self.feature_dim), ("logits", logits, self.num_classes)):
            shape = None if values is None else tuple(values.shape)
            if shape != ((len(images), width) if width else None):
                raise SourceError(
                    f"Source '{self.name}': expected {title} {(len(images), width) if width else None}, got {shape}."
                )
        check_values(self.name, features, logits)
        return features, logits

    def fused(self) -> FrozenSource:
        """The same source with batch norm folded into its convolutions, where that changes no more than rounding.

        Its model is changed.
        """
        if self.model is None or not self.ours or self.is_fused:
            return self
        images = noise_image(self.preprocessing)[None].to(self.device)
        fuse_batch_norm(self.model, lambda: self.outputs(images))
        model: Any = self.model
        model.to(memory_format=MEMORY_FORMATS[self.layout])
        return replace(self, is_fused=True)

    def arranged(self, layout: str) -> FrozenSource:
        """The same source in another memory order, which moves the last bits of its answers.

        Its model is changed, if that is ours; one that is not is shown images in this order.
        """
        if self.model is not None and self.ours:
            model: Any = self.model
            model.to(memory_format=MEMORY_FORMATS[layout])
        return replace(self, layout=layout)


def check_values(name: str, features: Tensor | None, logits: Tensor | None) -> None:
    """Raises SourceError, with the source's name, for values that are not finite and for probabilities given as logits.

    Probabilities (rows of several values, none negative, that sum to 1) would be softened as if they were logits, and
    come out as next to uniform answers.
    """
    for title, values in (("features", features), ("logits", logits)):
        if values is not None and not bool(torch.isfinite(values).all()):
            count = int((~torch.isfinite(values)).any(dim=1).sum())
            raise SourceError(
                f"Source '{name}' gives {title} that are not finite for {count} of {len(values)} images. "
                f"Check its weights, and `mean` and `std` in the zoo file."
            )
    if logits is None or logits.shape[1] < 2 or not len(logits):
        return
    sums = logits.cpu().double().sum(dim=1)  # not every device has float64
    if bool((logits >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        raise SourceError(
            f"Source '{name}' gives probabilities, not logits: no value is negative and every row sums to 1. Take the "
            "output before the softmax, or the logarithm of the probabilities (log(p + 1e-9))."
        )


def answered(name: str, answer: Answer, images: Tensor, device: str) -> Answers:
    """One pass without gradients; float32. Raises SourceError if the model fails or an output is no matrix."""
    try:
        with torch.inference_mode(), repeatable_convolutions(torch.device(device), exact=True):
            features, logits = answer(images)
    except (SourceError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a foreign model raises is a failure of this source and of no other
        shape = tuple(images.shape)
        raise SourceError(
            f"Source '{name}' fails on images of shape {shape}: {type(error).__name__}: {error}"
        ) from error
    for title, values in (("features", features), ("logits", logits)):
        if values is not None and (values.ndim != 2 or len(values) != len(images)):
            raise SourceError(
                f"Source '{name}': expected {title} as a matrix with a row for each of {len(images)} images, got shape "
                f"{tuple(values.shape)}."
            )
    return tuple(None if values is None else values.float() for values in (features, logits))  # type: ignore[return-value]


def freeze(
    spec: SourceSpec,
    preprocessing: Preprocessing,
    answer: Answer,
    *,
    device: str,
    num_classes: int | None = None,
    classes: Iterable[str] | None = None,
    model: nn.Module | None = None,
    ours: bool = False,
) -> FrozenSource:
    """A source whose sizes are those of its answer to an image that is shown four times.

    Args:
        spec: as the zoo file has it; its classes win over `classes`.
        preprocessing: what the images are prepared by.
        answer: the model, on `device`.
        device: where images are put.
        num_classes: expected Z; 0 drops logits that the model gives, None takes what comes.
        classes: their names, where the model knows them.
        model: to count parameters and layers, and to see whether the images are normalised as in training.
        ours: whether nobody else uses the model, so that it may be changed.

    Raises SourceError if the model fails, gives nothing, has another number of classes, or says another thing of the
    same image when it is asked again.
    """
    reply = answer if num_classes != 0 else _without_logits(answer)
    noise = noise_image(preprocessing)
    images = torch.stack([noise, noise]).to(device)
    features, logits = answered(spec.name, reply, images, device)
    found = 0 if logits is None else logits.shape[1]
    if features is None and logits is None:
        raise SourceError(f"Source '{spec.name}' gives neither features nor logits.")
    if num_classes is not None and found != num_classes:
        raise SourceError(f"Source '{spec.name}': expected logits of {num_classes} classes, got {found}.")
    names = tuple(classes) if spec.classes is None and classes is not None else spec.classes
    if names is not None and found and len(names) != found:
        raise SourceError(f"Source '{spec.name}': `classes` has {len(names)} names, but the model has {found} classes.")
    _check_repeatable(spec.name, (features, logits), answered(spec.name, reply, images, device))
    return FrozenSource(
        name=spec.name,
        preprocessing=preprocessing,
        num_classes=found,
        feature_dim=0 if features is None else features.shape[1],
        params=None if model is None else sum(parameter.numel() for parameter in model.parameters()),
        depth=None if model is None else sum(isinstance(layer, LAYERS) for layer in model.modules()),
        classes=names if found else None,
        device=device,
        answer=reply,
        model=model,
        ours=ours,
    )


def noise_image(preprocessing: Preprocessing) -> Tensor:
    """The same noise every time, `(3, H, W)` from 0 to 1."""
    size = preprocessing.image_size
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))


def _check_repeatable(name: str, first: Answers, second: Answers) -> None:
    """The same image in two rows, asked about twice, has one answer but for rounding."""
    _compare(name, "features", first[0], second[0])
    _compare(name, "logits", first[1], second[1])


def _compare(name: str, title: str, once: Tensor | None, again: Tensor | None) -> None:
    if once is None or again is None or not bool(torch.isfinite(once).all()):
        return  # values that are not finite are an error of their own
    for other in (again[0], once[1]):
        if not torch.allclose(once[0], other, rtol=1e-2, atol=1e-2 * float(once.abs().max()), equal_nan=True):
            raise SourceError(
                f"Source '{name}' gives other {title} when it is asked about the same image again: something in it is "
                "random (dropout, masking). Put it into evaluation mode, or use another model."
            )


def settle(model: nn.Module, device: str) -> nn.Module:
    """The model in evaluation mode, without gradients, on the device, channels_last."""
    settled: Any = model.eval().requires_grad_(False)
    result: nn.Module = settled.to(device=device, memory_format=torch.channels_last)
    return result


def _without_logits(answer: Answer) -> Answer:
    def features_only(images: Tensor) -> Answers:
        return answer(images)[0], None

    return features_only
