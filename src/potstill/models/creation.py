"""Create timm models with the right weights or not at all.

Model names are written "timm/NAME", where NAME may carry a pretrained tag ("timm/resnet18.a1_in1k").
A model made here never has a random head by accident: weights fit in every key or an error lists those that do not.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read by huggingface_hub when it is first imported

import huggingface_hub
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from timm.models import get_pretrained_cfg, is_model
from torch import nn

from potstill.errors import SourceError, UnknownNameError, UsageError
from potstill.models.weights import load_state, load_strictly

PREFIX = "timm/"


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
        state = load_state(weights, allow_pickle=allow_pickle)
        load_strictly(model, state, name, weights, ignore_classifier=ignore_classifier)
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


def _build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = timm.create_model(architecture_of(name), **arguments)
    return model


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
