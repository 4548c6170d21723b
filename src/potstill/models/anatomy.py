"""A timm model taken apart: what it wants to see, the features before its classifier, the logits after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from potstill.errors import SourceError
from potstill.types import Preprocessing


def preprocessing_of(
    model_or_cfg: nn.Module | Mapping[str, Any],
    *,
    image_size: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    interpolation: str | None = None,
    crop: float | None = None,
) -> Preprocessing:
    """Evaluation transform of a timm model or of its pretrained_cfg; the arguments override single values.

    A model that timm feeds with squashed images is fed with the centre crop here.
    """
    cfg: Mapping[str, Any]
    cfg = model_or_cfg if isinstance(model_or_cfg, Mapping) else model_or_cfg.pretrained_cfg  # type: ignore[assignment]
    channels, height, width = cfg["input_size"]
    if channels != 3:
        raise SourceError(f"This model takes {channels} channels; potstill feeds RGB images.")
    if image_size is None and height != width:
        raise SourceError(f"This model takes {height} x {width} images; set image_size to a square size.")
    return Preprocessing(
        image_size=int(height) if image_size is None else image_size,
        mean=_triple(cfg["mean"] if mean is None else mean),
        std=_triple(cfg["std"] if std is None else std),
        interpolation=cfg["interpolation"] if interpolation is None else interpolation,
        crop=float(cfg["crop_pct"]) if crop is None else crop,
    )


def features_of(model: nn.Module, images: Tensor) -> Tensor:
    """Features `(B, D)` of images `(B, 3, H, W)`: the input of the model's classifier."""
    maps = model.forward_features(images)  # type: ignore[operator]
    features: Tensor = model.forward_head(maps, pre_logits=True)  # type: ignore[operator]
    return features


def logits_of_features(model: nn.Module, features: Tensor) -> Tensor:
    """Logits `(B, Z)` that the model's classifier gives for features `(B, D)` of `features_of`.

    Raises SourceError for a model without a classifier or with more than one.
    """
    classifier = model.get_classifier()  # type: ignore[operator]
    if isinstance(classifier, nn.Identity) or not isinstance(classifier, nn.Module):
        raise SourceError(f"{type(model).__name__} has no single classifier; its classifier is {classifier}.")
    logits: Tensor = classifier(features)
    return logits


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return (first, second, third)
