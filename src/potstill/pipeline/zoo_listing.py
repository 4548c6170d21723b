"""What a zoo holds, and whether each of its sources can be asked: `potstill zoo list` and `zoo check`."""

from __future__ import annotations

from typing import Any

import timm
import torch

from potstill.config import RunConfig
from potstill.errors import SourceError, UnknownNameError
from potstill.pipeline.preparation import configured_zoo, device_of
from potstill.sources import FrozenSource, load_zoo, open_source
from potstill.sources.licenses import is_permissive
from potstill.sources.zoo import BUILT_IN
from potstill.types import Progress, SourceSpec, no_progress


def list_zoos() -> dict[str, Any]:
    """The built-in zoos: `{schema, zoos: [{name, sources, permissive}]}`; `permissive` counts permissive licences."""
    rows = []
    for name in BUILT_IN:
        zoo = load_zoo(name)
        rows.append({"name": name, "sources": len(zoo), "permissive": sum(is_permissive(spec.license) for spec in zoo)})
    return {"schema": 1, "zoos": rows}


def list_sources(config: RunConfig) -> dict[str, Any]:
    """The sources of the configured zoo, of which nothing is loaded or fetched.

    Returns `{schema, zoo, sources: [{name, model, license, permissive, trained_on, params}]}`; `params` is None where
    it is not known before the model is loaded. Raises what `load_zoo` raises.
    """
    zoo = configured_zoo(config)
    return {
        "schema": 1,
        "zoo": zoo.name,
        "sources": [
            {
                "name": spec.name,
                "model": spec.model,
                "license": spec.license,
                "permissive": is_permissive(spec.license),
                "trained_on": spec.trained_on,
                "params": _params(spec),
            }
            for spec in zoo
        ],
    }


def check_sources(config: RunConfig, *, progress: Progress = no_progress) -> dict[str, Any]:
    """Open every source of the configured zoo and ask it about two blank images.

    Returns `{schema, zoo, sources: [{name, model, feature_dim, num_classes, params, image_size, license, error}]}`, in
    which `error` is None or says why the source cannot be asked.
    """
    zoo = configured_zoo(config)
    rows = []
    for number, spec in enumerate(zoo):
        progress("open sources", number, len(zoo))
        row: dict[str, Any] = {"name": spec.name, "model": spec.model, "license": spec.license, "error": None}
        sizes: dict[str, Any] = dict.fromkeys(("feature_dim", "num_classes", "params", "image_size"))
        try:
            source = open_source(spec, device=device_of(config), offline=config.offline)
        except (SourceError, UnknownNameError) as error:
            row["error"] = str(error)
        else:
            sizes = {name: getattr(source, name) for name in ("feature_dim", "num_classes", "params")}
            sizes["image_size"] = source.preprocessing.image_size if isinstance(source, FrozenSource) else None
        rows.append({**row, **sizes})
    progress("open sources", len(zoo), len(zoo))
    return {"schema": 1, "zoo": zoo.name, "sources": rows}


def _params(spec: SourceSpec) -> int | None:
    if not spec.model.startswith("timm/"):
        return None
    options: dict[str, Any] = {} if spec.num_classes is None else {"num_classes": spec.num_classes}
    with torch.device("meta"):  # shapes alone: no memory, no time
        model = timm.create_model(spec.model.removeprefix("timm/"), **options)
    return sum(parameter.numel() for parameter in model.parameters())
