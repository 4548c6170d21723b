"""The same trained model as timm source, as ONNX file and as function says the same of real images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from onnx_export import export_onnx

from potstill.cache import extract_outputs
from potstill.data import normalise, open_target, prepare_images
from potstill.models import create_model
from potstill.sources import FrozenSource, open_source
from potstill.types import SourceSpec, Zoo

SIZE = 96
FED: dict[str, Any] = {
    "image_size": SIZE,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bicubic",
    "crop": 0.875,
}
MODULE = """
import torch, timm
from safetensors.torch import load_file
model = timm.create_model("tf_efficientnet_lite0")
model.load_state_dict(load_file("{weights}"))
model.eval()

@torch.no_grad()
def answer(images):
    features = model.forward_head(model.forward_features(images), pre_logits=True)
    return {{"features": features, "logits": model.classifier(features)}}
"""


@pytest.fixture(scope="module")
def zoo(lite0: Path, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("zoo")
    model = create_model("timm/tf_efficientnet_lite0", weights=lite0).eval()
    file = export_onnx(model, folder / "lite0.onnx", SIZE)
    (folder / "models.py").write_text(MODULE.format(weights=lite0.as_posix()))
    outputs = {"features_output": "features", "logits_output": "logits"}
    specs = (
        SourceSpec("timm", "timm/tf_efficientnet_lite0", weights=lite0, **FED),
        SourceSpec("onnx", "onnx", file=file, **outputs, **FED),
        SourceSpec("callable", "callable", callable="models:answer", file=folder / "models.py", weights=lite0, **FED),
    )
    return Zoo("lite0", {spec.name: spec for spec in specs})


def test_three_kinds_agree_before_they_are_stored(zoo: Zoo, photos: Path) -> None:
    target = open_target(photos)
    ids = list(target.files)
    assert len(ids) == 210
    sources = [open_source(spec) for spec in zoo]
    at = next(source.preprocessing for source in sources if isinstance(source, FrozenSource))
    found: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {source.name: [] for source in sources}
    for _, pixels in prepare_images(target.files, ids, preprocessing=at):
        for source in sources:
            assert isinstance(source, FrozenSource)
            assert source.preprocessing == at
            features, logits = source.outputs(normalise(pixels, at.mean, at.std))
            assert features is not None
            assert logits is not None
            found[source.name].append((features, logits))
    features, logits = (
        {name: torch.cat([row[part] for row in rows]) for name, rows in found.items()} for part in (0, 1)
    )
    reference = features["timm"]
    top = logits["timm"].topk(2, dim=1)
    clear = top.values[:, 0] - top.values[:, 1] > 1e-3
    assert clear.sum() > 200
    for name in ("onnx", "callable"):
        assert (features[name] - reference).abs().max() <= 1e-4 * reference.abs().max()
        assert torch.equal(logits[name].argmax(1)[clear], top.indices[:, 0][clear])


def test_and_after_and_the_palace_is_recognised(zoo: Zoo, photos: Path, tmp_path: Path) -> None:
    target = open_target(photos)
    ids = list(target.files)
    outputs, errors = extract_outputs(target, zoo, ids, cache_dir=tmp_path)
    assert errors == {}
    rows = np.arange(len(ids))
    reference = outputs["timm"]
    assert reference.features is not None
    assert reference.logits is not None
    largest = np.abs(np.asarray(reference.features[rows], dtype=np.float64)).max()
    for name, found in outputs.items():
        assert found.cost.forwards == len(ids)
        assert found.features is not None
        assert found.logits is not None
        # float16 keeps 11 bits
        moved = np.abs(np.asarray(found.features[rows], dtype=np.float64) - np.asarray(reference.features[rows]))
        assert moved.max() <= 2**-10 * largest, name
        assert np.abs(found.logits.probs(rows) - reference.logits.probs(rows)).max() <= 2e-3
    palace = [row for row, image_id in enumerate(ids) if image_id.startswith("china/")]
    probs = reference.logits.probs(np.array(palace))
    assert 698 in probs.mean(axis=0).argsort()[-5:]
