"""Sources `timm/NAME`: library weights, or a local file that fits in every key."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from potstill.errors import SourceError
from potstill.models import architecture_of, create_model, preprocessing_of, pretrained_cfg_of
from potstill.sources.fingerprints import Fingerprint, checked_fingerprint, content_sha256, preprocessing_record
from potstill.sources.frozen import Answers, FrozenSource, freeze, settle
from potstill.sources.soundness import check_published
from potstill.types import Preprocessing, SourceSpec

# What stands in the classifier's place where a model was trained on images with captions: no classes, but coordinates.
EMBEDDING_SIZES = (512, 640, 768, 1024, 1152, 1280, 1536)


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


def open_timm(spec: SourceSpec, device: str, offline: bool) -> FrozenSource:
    """Raises SourceError or UnknownNameError as `create_model` does, and for outputs that are embeddings."""
    cfg = pretrained_cfg_of(spec.model)
    if spec.weights is None and spec.num_classes is None and cfg["num_classes"] in EMBEDDING_SIZES:
        raise SourceError(
            f"Source '{spec.name}': what {spec.model} gives are {cfg['num_classes']} coordinates of an embedding, not "
            "classes. Set num_classes to 0 in the zoo file: its features are used."
        )
    if spec.weights is None:
        check_published(spec, cfg["mean"], cfg["std"])
    else:
        checked_fingerprint(spec, "weights", content_sha256)
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


def open_untrained(spec: SourceSpec, device: str, seed: int) -> FrozenSource:
    """The architecture with random weights and without a classifier."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create_model(spec.model, num_classes=0, image_size=spec.image_size)
    return _frozen(spec, model, device)


def _frozen(spec: SourceSpec, model: nn.Module, device: str) -> FrozenSource:
    settled: Any = settle(model, device)
    num_classes = int(settled.num_classes)

    def answer(images: Tensor) -> Answers:
        # The head runs twice because not every classifier is one layer on the features.
        maps = settled.forward_features(images)
        features = settled.forward_head(maps, pre_logits=True)
        return features, settled.forward_head(maps) if num_classes else None

    return freeze(
        spec, timm_preprocessing(spec), answer, device=device, num_classes=num_classes, model=settled, ours=True
    )


def timm_identity(spec: SourceSpec, fingerprint: Fingerprint) -> dict[str, Any]:
    """Architecture, weights, classes and preprocessing."""
    cfg = pretrained_cfg_of(spec.model)
    if spec.weights is None:
        keys = ("hf_hub_id", "hf_hub_filename", "url", "tag", "label_offset")
        weights = {key: cfg[key] for key in keys if cfg.get(key)} | {"revision": spec.revision}
    else:
        weights = {"sha256": checked_fingerprint(spec, "weights", fingerprint)}
    return {
        "kind": "timm",
        "architecture": architecture_of(spec.model).partition(".")[0],
        "weights": weights,
        "num_classes": int(cfg["num_classes"]) if spec.num_classes is None else spec.num_classes,
        "preprocessing": preprocessing_record(timm_preprocessing(spec)),
    }
