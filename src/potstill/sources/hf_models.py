"""Sources `hf/ORG/NAME`: image classifiers and backbones of transformers, from the hub or from a local folder.

With `weights: FOLDER` (config.json, model.safetensors, preprocessor_config.json) the name says no more than who made
it. Code from the hub is never run, and pickled weights are read only with `allow_pickle`.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from potstill.errors import SourceError
from potstill.sources.fingerprints import Fingerprint, checked_fingerprint
from potstill.sources.frozen import Answers, FrozenSource, freeze, settle
from potstill.sources.optional import require
from potstill.sources.penultimate import answering, final_classifier
from potstill.types import Preprocessing, SourceSpec

PREFIX = "hf/"
PREPROCESSOR = "preprocessor_config.json"
# Pillow's numbers of its filters, as preprocessor files have them.
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
RESCALE = 1 / 255


def open_hf(spec: SourceSpec, device: str, offline: bool) -> FrozenSource:
    """Raises SourceError for a model that is absent, is no image model, or has a part without trained weights."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    transformers = require("transformers", "hf", spec)
    place = _place(spec)
    options: dict[str, Any] = {"local_files_only": offline or spec.weights is not None, "revision": spec.revision}
    try:
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False, **options)
        prepared, _ = transformers.image_processing_base.ImageProcessingMixin.get_image_processor_dict(place, **options)
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"Source '{spec.name}': {place} cannot be had: {_first_line(error)}{_how(spec)}") from error
    preprocessing = hf_preprocessing(spec, prepared)
    named = next((name for name in config.architectures or () if "ForImageClassification" in str(name)), None)
    if named is not None:
        kind = getattr(transformers, named, transformers.AutoModelForImageClassification)
        model = _loaded(spec, kind, place, options, config)
        return _classifier(spec, model, config, preprocessing, device)
    kind = getattr(transformers, type(config).__name__.replace("Config", "VisionModel"), None)
    model = _loaded(spec, kind or transformers.AutoModel, place, options, None if kind else config, pooler=True)
    if spec.num_classes:
        raise SourceError(f"Source '{spec.name}': {place} has no classifier; set num_classes to 0 or leave it out.")
    answer = _backbone_answer(settle(model, device), with_pooler=model.potstill_pooler)
    return freeze(spec, preprocessing, answer, device=device, num_classes=0, model=model, ours=True)


def _classifier(
    spec: SourceSpec, model: nn.Module, config: Any, preprocessing: Preprocessing, device: str
) -> FrozenSource:
    count = int(config.num_labels)
    if spec.num_classes not in (None, 0, count):
        raise SourceError(
            f"Source '{spec.name}': {_place(spec)} has {count} classes, not {spec.num_classes}. Correct num_classes or "
            "leave it out."
        )
    names = [str(config.id2label.get(number, f"LABEL_{number}")) for number in range(count)]
    settled = settle(model, device)
    head = final_classifier(settled, count, _logits, (3, preprocessing.image_size, preprocessing.image_size), device)
    answer = answering(settled, head, _logits)
    return freeze(
        spec,
        preprocessing,
        answer,
        device=device,
        num_classes=spec.num_classes,
        classes=None if names == [f"LABEL_{number}" for number in range(count)] else names,
        model=model,
        ours=True,
    )


def _logits(output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits


def hf_preprocessing(spec: SourceSpec, prepared: Mapping[str, Any]) -> Preprocessing:
    """The evaluation transform of a preprocessor file, but for what the zoo file says.

    Images that the file squashes to a square are cropped to one here, as those of every other source. Raises
    SourceError for a transform that is no resizing, centre crop and normalisation.
    """
    size, crop = _size_and_crop(spec, prepared)
    if prepared.get("do_flip_channel_order"):
        raise SourceError(f"Source '{spec.name}' was trained on images with blue first; potstill feeds red first.")
    if not prepared.get("do_rescale", True) or abs(float(prepared.get("rescale_factor", RESCALE)) - RESCALE) > 1e-6:
        raise SourceError(
            f"Source '{spec.name}': its pixels are not scaled to 0..1 (do_rescale {prepared.get('do_rescale', True)}, "
            f"rescale_factor {prepared.get('rescale_factor', RESCALE):g}), which no mean and std express."
        )
    normal = prepared.get("do_normalize", True)
    mean = prepared.get("image_mean") if normal else (0.0, 0.0, 0.0)
    std = prepared.get("image_std") if normal else (1.0, 1.0, 1.0)
    if (mean is None and spec.mean is None) or (std is None and spec.std is None):
        raise SourceError(
            f"Source '{spec.name}': {PREPROCESSOR} says nothing of image_mean and image_std. Add mean and std to the "
            "zoo file."
        )
    resample = prepared.get("resample")
    if spec.interpolation is None and resample is not None and resample not in RESAMPLING:
        raise SourceError(f"Source '{spec.name}': unknown resample {resample}. Add interpolation to the zoo file.")
    return Preprocessing(
        image_size=size,
        mean=spec.mean or tuple(float(each) for each in mean or ()),  # type: ignore[arg-type]
        std=spec.std or tuple(float(each) for each in std or ()),  # type: ignore[arg-type]
        interpolation=spec.interpolation or RESAMPLING[2 if resample is None else int(resample)],
        crop=crop if spec.crop is None else spec.crop,
    )


def _size_and_crop(spec: SourceSpec, prepared: Mapping[str, Any]) -> tuple[int, float]:
    resized = _side(prepared.get("size"))
    side = resized
    crop = 1.0
    if prepared.get("do_center_crop") and (cropped := _side(prepared.get("crop_size"))) is not None:
        side, crop = cropped, min(1.0, cropped / resized) if resized else 1.0
    if prepared.get("crop_pct") and resized is not None and resized < 384:
        # The ConvNeXt preprocessor: below 384 pixels the shorter side becomes size / crop_pct, then the centre is cut.
        crop = float(prepared["crop_pct"])
    if "Levit" in f"{prepared.get('image_processor_type')}{prepared.get('feature_extractor_type')}":
        crop = 224 / 256  # its preprocessor resizes the shorter side to 256 / 224 of what it says
    if spec.image_size is not None:
        side = spec.image_size
    if side is None:
        raise SourceError(
            f"Source '{spec.name}': {PREPROCESSOR} names no square size (size: {json.dumps(prepared.get('size'))}). "
            "Add image_size to the zoo file."
        )
    return side, crop


def _side(size: object) -> int | None:
    """The side of a square, or of the shorter side, as preprocessor files write it; None if it is neither."""
    if isinstance(size, int):
        return size
    if not isinstance(size, Mapping):
        return None
    if size.get("shortest_edge"):
        return int(size["shortest_edge"])
    return int(size["height"]) if size.get("height") and size.get("height") == size.get("width") else None


def _loaded(
    spec: SourceSpec, kind: Any, place: str, options: Mapping[str, Any], config: Any, *, pooler: bool = False
) -> Any:
    """The model, if every part of it has trained weights. `pooler`: its pooler may be without, and is not used then."""
    arguments = dict(options) if config is None else {**options, "config": config}
    try:
        with _quiet():
            model, told = kind.from_pretrained(
                place,
                output_loading_info=True,
                use_safetensors=None if spec.allow_pickle else True,
                trust_remote_code=False,
                **arguments,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise SourceError(f"Source '{spec.name}': {place} cannot be had: {_first_line(error)}{_how(spec)}") from error
    missing = sorted(told["missing_keys"]) + sorted(str(key[0]) for key in told["mismatched_keys"])
    model.potstill_pooler = pooler and not any("pooler." in key for key in missing)
    untrained = [key for key in missing if not (pooler and "pooler." in key)]
    if untrained:
        raise SourceError(
            f"Source '{spec.name}': {place} holds no fitting weights for {len(untrained)} tensors, which would be "
            f"random: {', '.join(untrained[:4])}."
        )
    return model.float()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own bars and reports: what does not fit becomes an error here."""
    logging = importlib.import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _backbone_answer(model: nn.Module, *, with_pooler: bool) -> Callable[[Tensor], Answers]:
    has_class_token = any(name.endswith("cls_token") for name, _ in model.named_parameters())

    def answer(images: Tensor) -> Answers:
        output = model(images)
        pooled = getattr(output, "pooler_output", None)
        if with_pooler and pooled is not None:
            return pooled.flatten(1), None
        states: Tensor = output.last_hidden_state
        if states.ndim == 4:
            return states.mean(dim=(2, 3)), None
        return states[:, 0] if has_class_token else states.mean(dim=1), None

    return answer


def _place(spec: SourceSpec) -> str:
    """The folder or the repository that the model comes from."""
    if spec.weights is None:
        return spec.model.removeprefix(PREFIX)
    if not spec.weights.is_dir():
        raise SourceError(
            f"Source '{spec.name}': `weights` must be a folder that save_pretrained wrote: {spec.weights}."
        )
    return str(spec.weights)


def _how(spec: SourceSpec) -> str:
    if spec.weights is not None:
        return " Check the folder: it needs config.json, model.safetensors and preprocessor_config.json."
    repo = spec.model.removeprefix(PREFIX)
    return f" Run once with a network, or `hf download {repo}` there and name its folder in `weights`."


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".") + "."


def hf_identity(spec: SourceSpec, fingerprint: Fingerprint) -> dict[str, Any]:
    """The folder's content, or repository and revision, and what the zoo file changes in the preprocessing."""
    if spec.weights is not None:
        weights = {"sha256": checked_fingerprint(spec, "weights", fingerprint)}
    else:
        weights = {"repository": spec.model.removeprefix(PREFIX), "revision": spec.revision or "main"}
    keys = ("image_size", "mean", "std", "interpolation", "crop")
    changed: Mapping[str, Any] = {key: getattr(spec, key) for key in keys if getattr(spec, key) is not None}
    return {"kind": "hf", "weights": weights, "num_classes": spec.num_classes, "preprocessing": dict(changed)}
