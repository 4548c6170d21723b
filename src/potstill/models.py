"""Create timm models with the right weights or not at all, and split them into features and classifier.

Model names are written "timm/NAME", where NAME may carry a pretrained tag ("timm/resnet18.a1_in1k").
A model made here never has a random head by accident: weights fit in every key or an error lists those that do not.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read by huggingface_hub when it is first imported

import huggingface_hub
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from timm.models import get_pretrained_cfg, is_model
from torch import Tensor, nn

from potstill.errors import SourceError, UnknownNameError, UsageError
from potstill.files import write_bytes
from potstill.types import Preprocessing

PREFIX = "timm/"
PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
LISTED_KEYS = 8


def create_model(
    name: str,
    *,
    weights: Path | None = None,
    pretrained: bool = False,
    num_classes: int | None = None,
    image_size: int | None = None,
    ignore_classifier: bool = False,
    revision: str | None = None,
    offline: bool = False,
    allow_pickle: bool = False,
) -> nn.Module:
    """Create the timm model `name` ("timm/NAME") in float32, on the CPU.

    Weights come from the file `weights`, else from the library (`pretrained`), else they are random, drawn from torch's
    global generator; in the first two cases that generator is left as it was. `num_classes` None means the model's own
    number, 0 means no classifier. `image_size` matters to models whose input size is part of the architecture (vision
    transformers) and is ignored by the others. `ignore_classifier` drops the classifier that a weights file holds.

    Raises UnknownNameError for a name that timm does not have, SourceError for weights that are absent or do not fit:
    library weights are never given a classifier of another size than the one that they were trained with.

    >>> create_model("timm/test_resnet", num_classes=3).num_classes
    3
    """
    cfg = pretrained_cfg_of(name)
    classes = int(cfg["num_classes"]) if num_classes is None else num_classes
    if weights is not None and pretrained:
        raise UsageError(f"Model '{name}': give either a weights file or pretrained=True, not both.")
    arguments: dict[str, Any] = {"num_classes": classes}
    if image_size is not None and cfg.get("fixed_input_size"):
        arguments["img_size"] = image_size
    if pretrained:
        return _create_pretrained(name, cfg, arguments, revision=revision, offline=offline)
    with torch.random.fork_rng(devices=[], enabled=weights is not None):
        model = _build(name, arguments)
    if weights is not None:
        _load_strictly(model, load_state(weights, allow_pickle=allow_pickle), name, weights, ignore_classifier)
    return model


def architecture_of(name: str) -> str:
    """NAME of "timm/NAME". Raises UnknownNameError, with the nearest names, if timm has no such model.

    >>> architecture_of("timm/resnet18.a1_in1k")
    'resnet18.a1_in1k'
    """
    if not name.startswith(PREFIX):
        raise UnknownNameError(f"Unknown model '{name}'. Write timm/NAME, for example timm/resnet18.")
    architecture = name.removeprefix(PREFIX)
    if ":" not in architecture and is_model(architecture):
        base, _, tag = architecture.partition(".")
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
        if not tag or tag in tags:
            return architecture
        raise UnknownNameError(f"Unknown pretrained tag '{tag}' of timm/{base}. Known: {', '.join(tags) or 'none'}.")
    near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(PREFIX + one) for one in near)}?" if near else ""
    raise UnknownNameError(f"Unknown model '{name}'.{hint} timm.list_models() lists all names.")


def pretrained_cfg_of(name: str) -> dict[str, Any]:
    """What timm knows about the model `name` without building it: preprocessing, classes, where its weights are."""
    cfg = get_pretrained_cfg(architecture_of(name))
    if cfg is None:
        raise SourceError(f"timm describes no preprocessing for '{name}'; choose another model.")
    return dict(cfg.to_dict())  # type: ignore[no-untyped-call]


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


def save_state(path: Path, state: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors in one step. Raises OutputError."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_bytes(path, save(tensors, dict(metadata) if metadata else None))


def load_state(path: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file; half-precision values are cast up to float32.

    PyTorch's own files (.pth, .pt, .bin, .ckpt) are read only with `allow_pickle`, and then with weights_only; a state
    dict under the key "state_dict" or "model" is found. Raises SourceError if the file is absent, damaged or refused.
    """
    if not path.is_file():
        raise SourceError(f"Weights file not found: {path}. Check the path in the zoo file or on the command line.")
    if path.suffix == ".safetensors":
        try:
            state: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise SourceError(f"Weights file {path} is not a readable safetensors file: {error}.") from error
    elif path.suffix not in PICKLE_SUFFIXES:
        raise SourceError(f"Weights file {path}: expected .safetensors or {', '.join(PICKLE_SUFFIXES)}.")
    elif not allow_pickle:
        raise SourceError(f"Weights file {path} is a pickle; convert it to safetensors or set allow_pickle: true.")
    else:
        state = _load_pickle(path)
    return {key: _upcast(value) for key, value in state.items()}


def _load_pickle(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise SourceError(f"Weights file {path} cannot be read with weights_only=True: {error}.") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SourceError(f"Weights file {path} holds no state dict (a mapping from keys to tensors).")
    return state


def _upcast(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return (first, second, third)


def _build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = timm.create_model(architecture_of(name), **arguments)
    return model


def _load_strictly(model: nn.Module, state: dict[str, Tensor], name: str, path: Path, ignore_classifier: bool) -> None:
    """Load `state` into `model`, or raise a SourceError that lists every key that does not fit."""
    heads = _classifier_prefixes(model)
    if ignore_classifier:
        state = {key: value for key, value in state.items() if not key.startswith(heads)}
    wanted = model.state_dict()
    # Files older than PyTorch 0.4.1 lack this counter; nothing that we compute reads it.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in wanted]
    misshapen = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if not missing and not unexpected and not misshapen:
        model.load_state_dict(state, strict=False)
        return
    shapes = [f"{key} (expected {tuple(wanted[key].shape)}, found {tuple(state[key].shape)})" for key in misshapen]
    lines = [f"Weights {path} do not fit '{name}' with num_classes={getattr(model, 'num_classes', '?')}:"]
    for title, keys in (("missing in the file", missing), ("not in the model", unexpected), ("other shape", shapes)):
        if keys:
            more = f" and {len(keys) - LISTED_KEYS} more" if len(keys) > LISTED_KEYS else ""
            lines.append(f"  {title} ({len(keys)}): {', '.join(keys[:LISTED_KEYS])}{more}")
    lines.append("  " + _likely_cure(heads, missing, unexpected, misshapen, state))
    raise SourceError("\n".join(lines))


def _classifier_prefixes(model: nn.Module) -> tuple[str, ...]:
    """Key prefixes of the classifier's tensors, ("fc.",); empty if timm names no classifier."""
    classifier: Any = model.default_cfg.get("classifier")  # type: ignore[operator, union-attr]
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    return tuple(f"{one}." for one in names)


def _likely_cure(
    heads: tuple[str, ...],
    missing: list[str],
    unexpected: list[str],
    misshapen: list[str],
    state: Mapping[str, Tensor],
) -> str:
    wrong = missing + unexpected + misshapen
    if heads and all(key.startswith(heads) for key in wrong):
        if missing and not misshapen and not unexpected:
            return "The file holds no classifier: set num_classes to 0."
        found = sorted({len(state[key]) for key in unexpected + misshapen if key.endswith("bias")})
        classes = found[0] if len(found) == 1 else "the file's number of classes"
        return f"Only the classifier differs: set num_classes to {classes}, or drop it with ignore_classifier."
    if misshapen and all("pos_embed" in key or "rel_pos" in key for key in wrong):
        return "Only position embeddings differ: set image_size to the size that the weights were trained at."
    for prefix in ("module.", "_orig_mod.", "model.", "backbone."):
        if unexpected and all(key.startswith(prefix) for key in state):
            return f"Every key of the file starts with '{prefix}': save the weights without it."
    return "The weights seem to be those of another architecture: check `model`."


def _create_pretrained(
    name: str, cfg: Mapping[str, Any], arguments: dict[str, Any], *, revision: str | None, offline: bool
) -> nn.Module:
    classes, own = arguments["num_classes"], int(cfg["num_classes"])
    if classes not in (0, own):
        raise SourceError(
            f"The library weights of '{name}' have {own} classes, not {classes}; a classifier for {classes} would be "
            f"random. Leave num_classes out, set it to 0 (features only), or give a weights file of {classes} classes."
        )
    if not any(cfg.get(key) for key in ("hf_hub_id", "url", "file")):
        tags = ", ".join(timm.list_pretrained(f"{architecture_of(name).partition('.')[0]}.*")) or "none"
        raise SourceError(f"timm has no weights for '{name}' (with weights: {tags}). Give a weights file.")
    if cfg.get("hf_hub_id"):
        path = _fetch_from_hub(name, cfg, revision=revision, offline=offline)
        arguments["pretrained_cfg_overlay"] = {"file": str(path), "custom_load": False}
    elif offline and not (Path(torch.hub.get_dir()) / "checkpoints" / Path(str(cfg["url"])).name).is_file():
        raise SourceError(f"Weights of '{name}' are not on this machine; run once without --offline: {cfg['url']}.")
    with torch.random.fork_rng(devices=[]), _weights_errors(name, cfg):
        model = _build(name, {**arguments, "pretrained": True})
    # The path of this machine's download cache must not travel into a saved configuration.
    model.pretrained_cfg.pop("file", None)  # type: ignore[operator, union-attr]
    return model


def _fetch_from_hub(name: str, cfg: Mapping[str, Any], *, revision: str | None, offline: bool) -> Path:
    """Path of the weights file in the Hugging Face cache; the network is asked only for what is not there."""
    repo, _, tagged = str(cfg["hf_hub_id"]).partition("@")
    revision = revision or tagged or None
    files = [cfg["hf_hub_filename"]] if cfg.get("hf_hub_filename") else ["model.safetensors", "pytorch_model.bin"]
    cause: Exception | None = None
    for local, file in itertools.product([True] if offline else [True, False], files):
        try:
            return Path(huggingface_hub.hf_hub_download(repo, file, revision=revision, local_files_only=local))
        except (EntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
            cause = error
            absent = isinstance(error, EntryNotFoundError) and (local or not isinstance(error, LocalEntryNotFoundError))
            if not absent:  # no network, no such repository: the second file name would fail alike, and slowly
                break
    raise SourceError(
        f"Weights of '{name}' are not on this machine{' (--offline)' if offline else ' and cannot be fetched'}: "
        f"{files[0]} of huggingface.co/{repo}. Run once with a network, or `hf download {repo} {files[0]}` there and "
        f"copy the cache folder, or put the file beside the zoo file and name it in `weights`."
    ) from cause


@contextlib.contextmanager
def _weights_errors(name: str, cfg: Mapping[str, Any]) -> Iterator[None]:
    """Turn what timm raises while it fetches and loads library weights into a SourceError."""
    try:
        yield
    except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
        place = cfg.get("hf_hub_id") or cfg.get("url")
        raise SourceError(f"Library weights of '{name}' ({place}) cannot be fetched or loaded: {error}.") from error
