"""Sources `torchvision/NAME` and `torchvision/NAME.WEIGHTS`: published weights with their transforms, or a local file.

WEIGHTS is a name of the model's weights enum, as in `torchvision/resnet50.IMAGENET1K_V1`; without it the enum's default
is meant. With a local file the preprocessing is that of these published weights, but for what the zoo file says.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch
import torchvision.models as library
from torch import nn

from potstill.errors import SourceError, UnknownNameError
from potstill.models.weights import load_state, load_strictly
from potstill.sources.fingerprints import Fingerprint, checked_fingerprint, content_sha256, preprocessing_record
from potstill.sources.frozen import FrozenSource, freeze, settle
from potstill.sources.penultimate import answering, classifier_names
from potstill.sources.soundness import check_published
from potstill.types import Preprocessing, SourceSpec

PREFIX = "torchvision/"
# Published weights of these expect a transform inside the model that only the library's own loading switches on.
WITH_INNER_TRANSFORM = ("googlenet", "inception_v3")
PUBLISHED_CLASSES = 1000


def weights_of(model: str) -> tuple[str, Any]:
    """Builder name and published weights (a member of the weights enum) of "torchvision/NAME[.WEIGHTS]".

    Raises UnknownNameError, with the nearest names, for a model or weights that torchvision does not have.
    """
    name, _, tag = model.removeprefix(PREFIX).partition(".")
    known = library.list_models(module=library)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr(PREFIX + one) for one in near)}?" if near else ""
        raise UnknownNameError(f"torchvision has no classifier '{name}'.{hint}")
    enum = library.get_model_weights(name)
    tags = list(enum.__members__)
    if tag and tag not in tags:
        raise UnknownNameError(f"Unknown weights '{tag}' of {PREFIX}{name}. Known: {', '.join(tags)}.")
    return name, enum[tag] if tag else enum.DEFAULT


def torchvision_preprocessing(spec: SourceSpec) -> Preprocessing:
    """The evaluation transform of the published weights, but for what the zoo file says."""
    transforms: Any = weights_of(spec.model)[1].transforms()
    image_size, resized = int(transforms.crop_size[0]), int(transforms.resize_size[0])
    return Preprocessing(
        image_size=image_size if spec.image_size is None else spec.image_size,
        mean=tuple(transforms.mean) if spec.mean is None else spec.mean,
        std=tuple(transforms.std) if spec.std is None else spec.std,
        interpolation=transforms.interpolation.value if spec.interpolation is None else spec.interpolation,
        crop=image_size / resized if spec.crop is None else spec.crop,
    )


def open_torchvision(spec: SourceSpec, device: str, offline: bool) -> FrozenSource:
    """Raises SourceError for weights that are absent or do not fit, UnknownNameError as `weights_of` does."""
    name, published = weights_of(spec.model)
    preprocessing = torchvision_preprocessing(spec)
    classes = None
    if spec.weights is None:
        model, classes = _published(spec, name, published, offline), tuple(published.meta["categories"])
        heads = _classifiers(spec, model, len(classes))
    else:
        model, heads = _local(spec, name, preprocessing.image_size)
    settled = settle(model, device)
    answer = answering(settled, heads[-1] if heads else None)
    return freeze(
        spec,
        preprocessing,
        answer,
        device=device,
        num_classes=spec.num_classes,
        classes=classes,
        model=settled,
        ours=True,
    )


def _published(spec: SourceSpec, name: str, published: Any, offline: bool) -> nn.Module:
    transforms: Any = published.transforms()
    check_published(spec, transforms.mean, transforms.std)
    own = len(published.meta["categories"])
    if spec.num_classes not in (None, 0, own):
        raise SourceError(
            f"The library weights of '{spec.model}' have {own} classes, not {spec.num_classes}; a classifier for "
            f"{spec.num_classes} would be random. Leave num_classes out, set it to 0 (features only), or give a "
            "weights file."
        )
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(str(published.url)).name
    if offline and not file.is_file():
        raise SourceError(
            f"Weights of '{spec.model}' are not on this machine (--offline): fetch {published.url} to {file}."
        )
    try:
        model: nn.Module = library.get_model(name, weights=published, progress=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise SourceError(
            f"Weights of '{spec.model}' cannot be fetched or loaded from {published.url}: {error}."
        ) from error
    return model


def _local(spec: SourceSpec, name: str, image_size: int) -> tuple[nn.Module, tuple[str, ...]]:
    """The model with the weights of a file, and the names of its linear classifiers."""
    if spec.weights is None:
        raise ValueError("a local source has a weights file")
    if name in WITH_INNER_TRANSFORM:
        raise SourceError(
            f"Source '{spec.name}': {name} from a local file would miss the transform that its published weights "
            "expect inside the model. Use the library's weights, or timm's model of this name."
        )
    checked_fingerprint(spec, "weights", content_sha256)
    classes = spec.num_classes or PUBLISHED_CLASSES
    sized = {"image_size": image_size} if name.startswith("vit_") else {}
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = library.get_model(name, weights=None, num_classes=classes, **sized)
    heads = _classifiers(spec, model, classes)
    if spec.num_classes == 0:
        for head in heads:  # so that no classifier is left with random weights
            model.set_submodule(head, nn.Identity())
    load_strictly(
        model,
        load_state(spec.weights, allow_pickle=spec.allow_pickle),
        spec.model,
        spec.weights,
        heads=tuple(f"{head}." for head in heads),
        ignore_classifier=spec.num_classes == 0,
    )
    return model, heads


def _classifiers(spec: SourceSpec, model: nn.Module, classes: int) -> tuple[str, ...]:
    heads = classifier_names(model, classes)
    if not heads and spec.num_classes == 0:
        raise SourceError(
            f"Source '{spec.name}': {spec.model} has no linear classifier, so its features cannot be had."
        )
    return heads


def torchvision_identity(spec: SourceSpec, fingerprint: Fingerprint) -> dict[str, Any]:
    """Architecture, weights, classes and preprocessing."""
    name, published = weights_of(spec.model)
    if spec.weights is None:
        weights = {"url": published.url}
    else:
        weights = {"sha256": checked_fingerprint(spec, "weights", fingerprint)}
    return {
        "kind": "torchvision",
        "architecture": name,
        "weights": weights,
        "num_classes": spec.num_classes,
        "preprocessing": preprocessing_record(torchvision_preprocessing(spec)),
    }
