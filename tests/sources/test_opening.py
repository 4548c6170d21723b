"""Opening a source: frozen, checked on the way in, and identified without being loaded."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file

from potstill.errors import SourceError, UnknownNameError
from potstill.models import create_model
from potstill.sources import open_source, open_untrained, source_identity
from potstill.types import SourceSpec


@pytest.fixture
def spec(tmp_path):
    """A five-class source with random weights at 32 pixels."""
    path = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    save_file(create_model("timm/test_resnet", num_classes=5).state_dict(), path)
    return SourceSpec(name="five", model="timm/test_resnet", weights=path, num_classes=5, image_size=32)


@pytest.fixture
def model(spec):
    return create_model(spec.model, weights=spec.weights, num_classes=5).eval()


def test_outputs_are_those_of_the_model(spec, model):
    source = open_source(spec)
    assert (source.num_classes, source.name, source.device) == (5, "five", "cpu")
    images = torch.randn(3, 3, 32, 32)
    features, logits = source.outputs(images)
    assert features.shape == (3, source.feature_dim)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(images))
    assert features.dtype == logits.dtype == torch.float32
    assert not features.requires_grad


def test_size_and_depth_are_those_of_the_model(spec, model):
    source = open_source(spec)
    assert source.params == sum(parameter.numel() for parameter in model.parameters())
    weights = [name for name, value in model.named_parameters() if name.endswith("weight") and value.ndim > 1]
    assert source.depth == len(weights)


def test_untrained_source_is_the_same_architecture_with_other_weights(spec):
    before = torch.random.get_rng_state()
    trained, first, second = open_source(spec), open_untrained(spec), open_untrained(spec)
    assert torch.equal(torch.random.get_rng_state(), before)
    images = torch.randn(3, 3, 32, 32)
    features = first.outputs(images)[0]
    assert first.num_classes == 0
    assert torch.equal(features, second.outputs(images)[0])
    assert features.shape == trained.outputs(images)[0].shape
    assert not torch.allclose(features, trained.outputs(images)[0])
    assert not torch.equal(features, open_untrained(spec, seed=1).outputs(images)[0])
    with pytest.raises(SourceError, match=r"'five' .onnx. cannot be built with random weights"):
        open_untrained(dataclasses.replace(spec, model="onnx"))


def test_headless_source(spec, tmp_path):
    state = {key: value for key, value in load_file(spec.weights).items() if not key.startswith("fc.")}
    save_file(state, tmp_path / "headless.safetensors")
    headless = dataclasses.replace(spec, weights=tmp_path / "headless.safetensors", num_classes=0)
    images = torch.randn(2, 3, 32, 32)
    features, logits = open_source(headless).outputs(images)
    assert logits is None
    torch.testing.assert_close(features, open_source(spec).outputs(images)[0])


def test_outputs_that_are_not_finite_name_the_source(spec, tmp_path):
    state = load_file(spec.weights)
    state["fc.bias"][2] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    broken = open_source(dataclasses.replace(spec, weights=tmp_path / "nan.safetensors"))
    with pytest.raises(SourceError, match=r"'five' gives logits that are not finite for 2 of 2 images"):
        broken.outputs(torch.zeros(2, 3, 32, 32))


def test_images_that_do_not_fit_are_a_source_error(spec):
    with pytest.raises(SourceError, match=r"'five' fails on images of shape \(1, 4, 32, 32\)"):
        open_source(spec).outputs(torch.zeros(1, 4, 32, 32))


def test_unknown_models_and_kinds(spec):
    with pytest.raises(UnknownNameError, match="Did you mean"):
        open_source(dataclasses.replace(spec, model="timm/test_resnt"))
    with pytest.raises(SourceError, match="of no known kind"):
        open_source(dataclasses.replace(spec, model="resnet18"))


def test_identity_covers_what_the_outputs_depend_on_and_nothing_else(spec, tmp_path):
    identity = source_identity(spec)
    same = dataclasses.replace(spec, name="other", license="MIT", trained_on="x", classes=tuple("abcde"))
    assert source_identity(same) == identity
    save_file(create_model("timm/test_resnet", num_classes=5).state_dict(), tmp_path / "other.safetensors")
    for change in (
        {"weights": tmp_path / "other.safetensors"},
        {"num_classes": 0},
        {"image_size": 64},
        {"mean": (0.1, 0.2, 0.3)},
        {"std": (0.1, 0.2, 0.3)},
        {"interpolation": "nearest"},
        {"crop": 0.5},
        {"model": "timm/test_efficientnet"},
        {"weights": None, "num_classes": None},
    ):
        assert source_identity(dataclasses.replace(spec, **change)) != identity, change


def test_identity_of_library_weights_needs_no_weights():
    plain = SourceSpec(name="a", model="timm/resnet18.a1_in1k")
    identity = source_identity(plain)
    assert identity["weights"]["hf_hub_id"] == "timm/resnet18.a1_in1k"
    assert identity["num_classes"] == 1000
    assert source_identity(dataclasses.replace(plain, model="timm/resnet18.a2_in1k")) != identity
    assert source_identity(dataclasses.replace(plain, revision="abc")) != identity


def test_replaced_weights_are_noticed(spec):
    before = source_identity(spec)
    state = load_file(spec.weights)
    state["fc.bias"] += 1
    save_file(state, spec.weights)
    assert source_identity(spec) != before


def test_wrong_sha256_and_absent_weights(spec, tmp_path):
    with pytest.raises(SourceError, match="expected " + "0" * 64):
        open_source(dataclasses.replace(spec, sha256="0" * 64))
    with pytest.raises(SourceError, match="'five': `weights`: file not found"):
        source_identity(dataclasses.replace(spec, weights=tmp_path / "none.safetensors"))
