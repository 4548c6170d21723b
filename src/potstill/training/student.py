"""The student: a timm backbone with a target head, and extra source heads that are thrown away after training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from potstill.models import create_model, features_of, logits_of_features


@dataclass(frozen=True)
class StudentOutputs:
    """One forward pass: `features` `(B, D)`, target `logits` `(B, C)`, and `(B, Z_s)` logits of every source head."""

    features: Tensor
    logits: Tensor
    source_logits: Mapping[str, Tensor]


class Student(nn.Module):
    """A timm model whose classifier is the target head, plus one linear head per distilled source.

    Args:
        model: a timm model with C classes.
        source_classes: source name -> number of its (pseudo-)classes Z_s, in the order in which the losses are added.
    """

    def __init__(self, model: nn.Module, source_classes: Mapping[str, int]) -> None:
        super().__init__()
        self.model = model
        self.sources = tuple(source_classes)
        width = head_of(model).in_features
        # A list, because source names may hold characters that parameter names may not.
        self.source_heads = nn.ModuleList(nn.Linear(width, classes) for classes in source_classes.values())

    def forward(self, images: Tensor) -> StudentOutputs:
        features = features_of(self.model, images)
        heads = zip(self.sources, self.source_heads, strict=True)
        return StudentOutputs(
            features=features,
            logits=logits_of_features(self.model, features),
            source_logits={name: head(features) for name, head in heads},
        )


def head_of(model: nn.Module) -> nn.Linear:
    """The linear target head of a student model."""
    head = model.get_classifier()  # type: ignore[operator]
    if not isinstance(head, nn.Linear):
        raise TypeError(f"a student needs a linear classifier, got {type(head).__name__}")
    return head


def build_student(
    model_name: str,
    num_classes: int,
    *,
    weights: Path | None,
    source_classes: Mapping[str, int],
    image_size: int | None = None,
    seed: int,
    offline: bool = False,
) -> Student:
    """Create a student from its initial weights; only the new heads depend on `seed`.

    Args:
        model_name: `timm/NAME`.
        num_classes: target classes C.
        weights: local initial weights; a classifier in them is dropped. None means the library's pretrained weights.
        source_classes: source name -> Z_s.
        image_size: side of the input; needed where the architecture is built for one size.
        seed: of the initialisation of the target head and the source heads.
        offline: never touch a network.

    Raises:
        UnknownNameError: no such model.
        SourceError: the weights are missing or do not fit.
    """
    model = create_model(
        model_name,
        weights=weights,
        pretrained=weights is None,
        num_classes=0,
        image_size=image_size,
        ignore_classifier=True,
        offline=offline,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.reset_classifier(num_classes)  # type: ignore[operator]
        return Student(model, source_classes)


def freeze_batch_norm(module: nn.Module) -> None:
    """Keep the running statistics of every batch normalisation as they are (their scale and shift still train)."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.eval()
