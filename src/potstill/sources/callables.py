"""Sources `callable`: a function of the user's that answers for a batch of images.

`callable: module:function` names it; `file: models.py`, relative to the zoo file, says where the module is if it is not
installed. The function is called as `function(images)` with normalised float32 images `(B, 3, H, W)`, and returns
`{"features": (B, D), "logits": (B, Z)}`, arrays or tensors, one of which may be absent. It runs on its own device.

What its answers depend on is the code of that module and the file that the zoo entry names as `weights`. The function
opens that file by itself; it is named so that a change of it is noticed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.errors import SourceError
from potstill.sources.fingerprints import Fingerprint, checked_fingerprint, content_sha256, preprocessing_record
from potstill.sources.frozen import Answers, FrozenSource, freeze
from potstill.sources.stated import stated_preprocessing
from potstill.types import SourceSpec

OUTPUTS = ("features", "logits")


def open_callable(spec: SourceSpec, device: str, offline: bool) -> FrozenSource:
    """Raises SourceError if the function cannot be imported or gives something else than features and logits."""
    for key in ("file", "weights"):
        if getattr(spec, key) is not None:
            checked_fingerprint(spec, key, content_sha256)
    module, function = _parts(spec)
    try:
        found = _imported(spec.file, module)
    except Exception as error:  # a module of the user's may raise anything when it is imported
        raise SourceError(
            f"Source '{spec.name}': module '{module}' cannot be imported: {type(error).__name__}: {error}"
        ) from error
    reply: Callable[[Tensor], object] | None = getattr(found, function, None)
    if not callable(reply):
        raise SourceError(f"Source '{spec.name}': module '{module}' has no function '{function}'.")
    model = reply.eval() if isinstance(reply, nn.Module) else None

    def answer(images: Tensor) -> Answers:
        given = reply(images)
        if not isinstance(given, Mapping) or not given or not set(given) <= set(OUTPUTS):
            shown = sorted(given) if isinstance(given, Mapping) else type(given).__name__
            raise SourceError(
                f"Source '{spec.name}': {spec.callable} must return a mapping with 'features', 'logits' or both, "
                f"got {shown}."
            )
        features, logits = (_tensor(given.get(name), device) for name in OUTPUTS)
        return features, logits

    preprocessing = stated_preprocessing(spec)
    return freeze(spec, preprocessing, answer, device=device, num_classes=spec.num_classes, model=model)


def callable_identity(spec: SourceSpec, fingerprint: Fingerprint) -> dict[str, Any]:
    """The function, the code of its module, the file that it reads, and the preprocessing."""
    module, _ = _parts(spec)
    return {
        "kind": "callable",
        "callable": spec.callable,
        "code": checked_fingerprint(spec, "file", fingerprint) if spec.file else _code_of(spec, module, fingerprint),
        "weights": checked_fingerprint(spec, "weights", fingerprint) if spec.weights else None,
        "num_classes": spec.num_classes,
        "preprocessing": preprocessing_record(stated_preprocessing(spec)),
    }


def _parts(spec: SourceSpec) -> tuple[str, str]:
    module, colon, function = (spec.callable or "").partition(":")
    if not (module and colon and function.isidentifier()):
        raise SourceError(
            f"Source '{spec.name}': expected callable: module:function in the zoo file, got {spec.callable!r}."
        )
    return module, function


def _imported(file: Path | None, module: str) -> ModuleType:
    if file is None:
        return importlib.import_module(module)
    # Under a name of its own: two zoo files may both have a models.py.
    name = f"_potstill_source_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    found = importlib.util.spec_from_file_location(name, file)
    if found is None or found.loader is None:
        raise ImportError(f"{file} is no Python module")
    loaded = importlib.util.module_from_spec(found)
    sys.modules[name] = loaded  # dataclasses and pickles look their module up
    found.loader.exec_module(loaded)
    return loaded


def _code_of(spec: SourceSpec, module: str, fingerprint: Fingerprint) -> str:
    try:
        found = importlib.util.find_spec(module)
    except ImportError:
        found = None
    if found is None or found.origin is None:
        raise SourceError(
            f"Source '{spec.name}': there is no module '{module}'. Install it, or name its file in the zoo file: "
            "file: models.py."
        )
    return fingerprint(Path(found.origin))


def _tensor(values: object, device: str) -> Tensor | None:
    if values is None:
        return None
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values))
    return tensor.to(device)
