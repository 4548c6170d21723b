"""Sources `onnx`: a file that onnxruntime runs, whose features and logits outputs the zoo file names."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill.errors import SourceError
from potstill.sources.fingerprints import Fingerprint, checked_fingerprint, content_sha256, preprocessing_record
from potstill.sources.frozen import Answers, FrozenSource, freeze
from potstill.sources.optional import require
from potstill.sources.stated import stated_preprocessing
from potstill.types import SourceSpec

OUTPUT_KEYS = ("features_output", "logits_output")


def open_onnx(spec: SourceSpec, device: str, offline: bool) -> FrozenSource:
    """Raises SourceError for a file that is no model with one image input, and for outputs that it does not have."""
    runtime = require("onnxruntime", "onnx", spec)
    checked_fingerprint(spec, "file", content_sha256)
    preprocessing = stated_preprocessing(spec)
    providers = ["CPUExecutionProvider"]
    if device.startswith("cuda") and "CUDAExecutionProvider" in runtime.get_available_providers():
        index = torch.device(device).index or 0
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": index}))  # type: ignore[arg-type]
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(spec.file), options, providers=providers)
    except Exception as error:  # onnxruntime's own kinds of error derive from Exception alone
        raise SourceError(f"Source '{spec.name}': onnxruntime cannot open {spec.file}: {error}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in ("tensor(float)", "tensor(float16)"):
        found = ", ".join(f"{one.name}: {one.type} {one.shape}" for one in inputs)
        raise SourceError(f"Source '{spec.name}': expected one input of floating-point images, got {found}.")
    wanted = _outputs(spec, [one.name for one in session.get_outputs()])
    fixed = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else None
    dtype = np.float16 if inputs[0].type == "tensor(float16)" else np.float32

    def answer(images: Tensor) -> Answers:
        array = images.contiguous().cpu().numpy().astype(dtype, copy=False)
        batches = [array] if fixed is None else _batches_of(array, fixed)
        rows = [session.run(list(wanted.values()), {inputs[0].name: batch}) for batch in batches]
        found = {
            key: torch.from_numpy(np.concatenate([row[number] for row in rows])[: len(array)]).flatten(1)
            for number, key in enumerate(wanted)
        }
        return found.get("features_output"), found.get("logits_output")

    return freeze(spec, preprocessing, answer, device="cpu", num_classes=spec.num_classes)


def _outputs(spec: SourceSpec, names: list[str]) -> dict[str, str]:
    """The outputs that are read, by zoo key. Raises SourceError if none is named, or one that is not there."""
    named = {key: str(getattr(spec, key)) for key in OUTPUT_KEYS if getattr(spec, key)}
    unknown = [name for name in named.values() if name not in names]
    if unknown:
        raise SourceError(f"Source '{spec.name}': no output {', '.join(unknown)}; the file has {', '.join(names)}.")
    if not named:
        raise SourceError(
            f"Source '{spec.name}': say which outputs to read by features_output and logits_output; the file has "
            f"{', '.join(names)}."
        )
    return named


def _batches_of(array: Any, size: int) -> list[Any]:
    """Batches of exactly `size`, as a model of a fixed batch size takes them; the last one repeats its last image."""
    missing = -len(array) % size
    filled = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array
    return [filled[start : start + size] for start in range(0, len(filled), size)]


def onnx_identity(spec: SourceSpec, fingerprint: Fingerprint) -> dict[str, Any]:
    """The file with those that hold its weights, the outputs that are read, and the preprocessing."""
    return {
        "kind": "onnx",
        "file": {"sha256": checked_fingerprint(spec, "file", fingerprint)},
        "outputs": {key: getattr(spec, key) for key in OUTPUT_KEYS},
        "num_classes": spec.num_classes,
        "preprocessing": preprocessing_record(stated_preprocessing(spec)),
    }
