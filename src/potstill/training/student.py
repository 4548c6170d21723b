"""The student: a small classifier and, while it trains, one throw-away head for every source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from potstill.models import create_model, features_of, logits_of_features
from potstill.training.recording import RecordedFeatures


@dataclass(frozen=True)
class StudentOutputs:
    """One forward pass of B images: `features` `(B, D)` and target `logits` `(B, C)` of all of them, `source_logits`
    `(M, Z_1 + ... + Z_S)` of the pool images among them, the last M.
    """

    features: Tensor
    logits: Tensor
    source_logits: Tensor


class Student(nn.Module):
    """A timm model whose classifier is the target head, plus one linear head per distilled source.

    The heads are rows of one matrix: 28 products of 64 x 1024 by 1024 x 89 take longer than one by 1024 x 2492.

    Args:
        model: a timm model with C classes.
        source_classes: source name -> number of its (pseudo-)classes Z_s, in the order of the logits.
    """

    def __init__(self, model: nn.Module, source_classes: Mapping[str, int]) -> None:
        super().__init__()
        self.model = model
        self.recorded: RecordedFeatures | None = None
        self.source_classes = dict(source_classes)
        self.source_heads = _joined_heads(head_of(model).in_features, tuple(source_classes.values()))

    def forward(self, images: Tensor, labeled: int | None = None) -> StudentOutputs:
        """Outputs for `(B, 3, H, W)`; the first `labeled` images (None: all) get no source logits."""
        features = features_of(self.model, images) if self.recorded is None else self.recorded(images)
        pool_features = features[len(features) if labeled is None else labeled :]
        return StudentOutputs(
            features=features,
            logits=logits_of_features(self.model, features),
            source_logits=self.source_heads(pool_features) if self.source_classes else features.new_empty(0, 0),
        )


def _joined_heads(width: int, classes: tuple[int, ...]) -> nn.Linear | nn.Identity:
    """One linear layer for all sources; each source's rows start as those of a layer of its own would."""
    if not classes:
        return nn.Identity()
    heads = [nn.Linear(width, count) for count in classes]
    joined = nn.Linear(width, sum(classes))
    with torch.no_grad():
        joined.weight.copy_(torch.cat([head.weight for head in heads]))
        joined.bias.copy_(torch.cat([head.bias for head in heads]))
    return joined


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
