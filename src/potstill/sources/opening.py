"""Open a source as a frozen model, and say what its numbers depend on without loading it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from potstill.convolutions import repeatable_convolutions
from potstill.errors import SourceError
from potstill.models import architecture_of, create_model, preprocessing_of, pretrained_cfg_of
from potstill.types import Preprocessing, SourceSpec


@dataclass(frozen=True)
class FrozenSource:
    """A source in evaluation mode whose parameters take no gradient.

    `num_classes` is Z, 0 without a classifier; `feature_dim` is D; `params` counts all parameters of the model;
    `depth` its convolution and linear layers, shortcuts included.
    """

    name: str
    preprocessing: Preprocessing
    num_classes: int
    feature_dim: int
    params: int
    depth: int
    classes: tuple[str, ...] | None
    device: str
    model: nn.Module = field(repr=False)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features `(B, D)` and logits `(B, Z)`, or None without a classifier, float32 on the source's device.

        `images` are float32 `(B, 3, H, W)`, normalised by `preprocessing`. Raises SourceError, with the source's name,
        if the model fails or an output is not finite.
        """
        features, logits = _forward(self.name, self.model, images, self.num_classes)
        for title, values in (("features", features), ("logits", logits)):
            if values is not None and not bool(torch.isfinite(values).all()):
                count = int((~torch.isfinite(values)).any(dim=1).sum())
                raise SourceError(
                    f"Source '{self.name}' gives {title} that are not finite for {count} of {len(values)} images. "
                    f"Check its weights, and `mean` and `std` in the zoo file."
                )
        return features, logits


def open_source(spec: SourceSpec, *, device: str = "cpu", offline: bool = False) -> FrozenSource:
    """Load the model of a source and check that it can be fed.

    Raises SourceError if its kind is not supported or if weights are missing or do not fit, UnknownNameError for a
    model name that does not exist.
    """
    return _kind_entry(spec)[1](spec, device, offline)


def open_untrained(spec: SourceSpec, *, device: str = "cpu", seed: int = 0) -> FrozenSource:
    """The architecture of a source with random weights and without a classifier: what it sees before it is trained.

    Raises SourceError for a source whose architecture is not known by name.
    """
    if kind_of(spec.model) != "timm":
        raise SourceError(
            f"Source '{spec.name}' ({spec.model}) cannot be built with random weights; only timm/NAME can."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create_model(spec.model, num_classes=0, image_size=spec.image_size)
    return _frozen(spec, model, device)


def source_identity(spec: SourceSpec) -> dict[str, Any]:
    """Everything that the outputs of a source depend on, as plain JSON data, without loading the model.

    Two specs with the same identity have the same outputs, whatever their names. Raises as `open_source` does.
    """
    return _kind_entry(spec)[0](spec)


def kind_of(model: str) -> str | None:
    """The kind of source that the `model` of a zoo entry names, or None if there is no such kind.

    >>> kind_of("timm/resnet18"), kind_of("onnx"), kind_of("resnet18")
    ('timm', 'onnx', None)
    """
    head, slash, _ = model.partition("/")
    kind = f"{head}/" if slash else head
    if slash and head in KINDS:
        return head
    return kind if kind in PLANNED_KINDS else None


def file_sha256(path: Path) -> str:
    """sha256 of a file as hex digits; remembered within the process while size and modification time stay."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _forward(name: str, model: nn.Module, images: Tensor, num_classes: int) -> tuple[Tensor, Tensor | None]:
    """One pass; the head runs twice because not every classifier is one layer on the features."""
    try:
        with torch.inference_mode(), repeatable_convolutions(images.device, exact=True):
            maps = model.forward_features(images.contiguous(memory_format=torch.channels_last))  # type: ignore[operator]
            features = model.forward_head(maps, pre_logits=True)  # type: ignore[operator]
            logits = model.forward_head(maps) if num_classes else None  # type: ignore[operator]
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        shape = tuple(images.shape)
        raise SourceError(
            f"Source '{name}' fails on images of shape {shape}: {type(error).__name__}: {error}"
        ) from error
    for title, values, width in (("features", features, None), ("logits", logits, num_classes)):
        if values is not None and (values.ndim != 2 or (width and values.shape[1] != width)):
            expected = f"(B, {width or 'D'})"
            raise SourceError(f"Source '{name}': expected {title} {expected}, got {tuple(values.shape)}.")
    return features.float(), None if logits is None else logits.float()


_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _open_timm(spec: SourceSpec, device: str, offline: bool) -> FrozenSource:
    _check_weights(spec)
    model = create_model(
        spec.model,
        weights=spec.weights,
        pretrained=spec.weights is None,
        num_classes=spec.num_classes,
        image_size=spec.image_size,
        revision=spec.revision,
        offline=offline,
        allow_pickle=spec.allow_pickle,
    )
    return _frozen(spec, model, device)


def _frozen(spec: SourceSpec, model: nn.Module, device: str) -> FrozenSource:
    model = model.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    preprocessing = timm_preprocessing(spec)
    num_classes = int(model.num_classes)  # type: ignore[arg-type]
    blank = torch.zeros(1, 3, preprocessing.image_size, preprocessing.image_size, device=device)
    features, _ = _forward(spec.name, model, blank, num_classes)
    return FrozenSource(
        name=spec.name,
        preprocessing=preprocessing,
        num_classes=num_classes,
        feature_dim=features.shape[1],
        params=sum(parameter.numel() for parameter in model.parameters()),
        depth=sum(isinstance(layer, _LAYERS) for layer in model.modules()),
        classes=spec.classes,
        device=device,
        model=model,
    )


def _timm_identity(spec: SourceSpec) -> dict[str, Any]:
    cfg = pretrained_cfg_of(spec.model)
    if spec.weights is None:
        keys = ("hf_hub_id", "hf_hub_filename", "url", "tag", "label_offset")
        weights = {key: cfg[key] for key in keys if cfg.get(key)} | {"revision": spec.revision}
    else:
        _check_weights(spec)
        weights = {"sha256": file_sha256(spec.weights)}
    preprocessing = timm_preprocessing(spec)
    return {
        "kind": "timm",
        "architecture": architecture_of(spec.model).partition(".")[0],
        "weights": weights,
        "num_classes": int(cfg["num_classes"]) if spec.num_classes is None else spec.num_classes,
        "preprocessing": {
            "image_size": preprocessing.image_size,
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "interpolation": preprocessing.interpolation,
            "crop": preprocessing.crop,
        },
    }


def timm_preprocessing(spec: SourceSpec) -> Preprocessing:
    """What a source of timm is fed with: the model's own, but for what the zoo file says."""
    return preprocessing_of(
        pretrained_cfg_of(spec.model),
        image_size=spec.image_size,
        mean=spec.mean,
        std=spec.std,
        interpolation=spec.interpolation,
        crop=spec.crop,
    )


def _check_weights(spec: SourceSpec) -> None:
    if spec.weights is None:
        return
    if not spec.weights.is_file():
        raise SourceError(f"Source '{spec.name}': weights file not found: {spec.weights}. Check the zoo file.")
    if spec.sha256 and file_sha256(spec.weights) != spec.sha256:
        found = file_sha256(spec.weights)
        raise SourceError(
            f"Source '{spec.name}': {spec.weights} has sha256 {found}, expected {spec.sha256}; fetch the file again."
        )


def _kind_entry(spec: SourceSpec) -> tuple[Identity, Opener]:
    kind = kind_of(spec.model)
    if kind is not None and kind in KINDS:
        return KINDS[kind]
    if kind in PLANNED_KINDS:
        raise SourceError(f"Source '{spec.name}': models of kind '{kind}' are not supported yet by this version.")
    known = ", ".join([*KINDS, *PLANNED_KINDS])
    raise SourceError(f"Source '{spec.name}': '{spec.model}' is of no known kind ({known}); timm models are timm/NAME.")


Identity = Callable[[SourceSpec], dict[str, Any]]
Opener = Callable[[SourceSpec, str, bool], FrozenSource]

# kind -> (identity without loading, opening). A new kind is one line here.
KINDS: Mapping[str, tuple[Identity, Opener]] = {
    "timm": (_timm_identity, _open_timm),
}
PLANNED_KINDS = ("torchvision/", "hf/", "onnx", "callable", "arrays")
