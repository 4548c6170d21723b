"""What each kind of source takes from its library, and what it refuses."""

from __future__ import annotations

import builtins
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from potstill.data.preprocessing import resized_size
from potstill.errors import SourceError, UnknownNameError
from potstill.sources import open_source, source_identity
from potstill.sources.hf_models import hf_preprocessing
from potstill.sources.torchvision_models import torchvision_preprocessing, weights_of
from potstill.types import SourceSpec

NORMAL: dict[str, Any] = {"image_size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
PUBLISHED = [
    f"torchvision/{name}.{weights.name}"
    for name in torchvision.models.list_models(module=torchvision.models)
    for weights in torchvision.models.get_model_weights(name)
]


# torchvision


def test_the_transform_of_all_published_weights_is_taken_exactly() -> None:
    assert len(PUBLISHED) > 100
    for model in PUBLISHED:
        transforms = weights_of(model)[1].transforms()
        found = torchvision_preprocessing(SourceSpec("a", model))
        assert found.image_size == transforms.crop_size[0]
        assert resized_size(found.image_size, found.crop) == transforms.resize_size[0], model
        assert found.interpolation == transforms.interpolation.value
        assert (list(found.mean), list(found.std)) == (list(transforms.mean), list(transforms.std))


def test_names_of_torchvision_and_their_weights() -> None:
    assert weights_of("torchvision/resnet50")[1].name == "IMAGENET1K_V2"
    with pytest.raises(UnknownNameError, match="Did you mean 'torchvision/resnet50'"):
        weights_of("torchvision/resnet51")
    with pytest.raises(UnknownNameError, match="Known: IMAGENET1K_V1, IMAGENET1K_V2"):
        weights_of("torchvision/resnet50.IMAGENET1K_V3")
    with pytest.raises(UnknownNameError, match="no classifier 'fcn_resnet50'"):  # segmentation
        weights_of("torchvision/fcn_resnet50")
    first, second = (source_identity(SourceSpec("a", f"torchvision/resnet50.IMAGENET1K_V{k}")) for k in (1, 2))
    assert first != second


def test_published_weights_are_named_where_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    spec = SourceSpec("a", "torchvision/mobilenet_v3_small")
    with pytest.raises(
        SourceError, match=r"not on this machine .--offline.: fetch https://\S+/mobilenet_v3_small\S+ to"
    ):
        open_source(spec, offline=True)
    with pytest.raises(SourceError, match="have 1000 classes, not 7; a classifier for 7 would be random"):
        open_source(dataclasses.replace(spec, num_classes=7), offline=True)


def test_published_weights_that_are_there_are_used_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    model = torchvision.models.shufflenet_v2_x0_5().eval()
    url = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url
    torch.save(model.state_dict(), tmp_path / "checkpoints" / Path(url).name)
    source = open_source(SourceSpec("a", "torchvision/shufflenet_v2_x0_5"), offline=True)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(source.outputs(images)[1], model(images), rtol=1e-4, atol=1e-5)
    assert source.classes is not None
    assert source.classes[281] == "tabby"


def test_weights_of_another_architecture_and_without_a_classifier_are_refused(tmp_path: Path) -> None:
    state = torchvision.models.resnet34(num_classes=5).state_dict()
    save_file(state, tmp_path / "34.safetensors")
    spec = SourceSpec("a", "torchvision/resnet18", weights=tmp_path / "34.safetensors", num_classes=5)
    with pytest.raises(SourceError, match=r"do not fit 'torchvision/resnet18'[\s\S]*not in the model"):
        open_source(spec)
    state = {key: value for key, value in torchvision.models.resnet18().state_dict().items() if "fc." not in key}
    save_file(state, tmp_path / "headless.safetensors")
    headless = dataclasses.replace(spec, weights=tmp_path / "headless.safetensors")
    with pytest.raises(SourceError, match="The file holds no classifier: set num_classes to 0"):
        open_source(headless)
    source = open_source(dataclasses.replace(headless, num_classes=0))
    assert (source.num_classes, source.feature_dim) == (0, 512)
    with pytest.raises(SourceError, match="would miss the transform"):
        open_source(dataclasses.replace(headless, model="torchvision/googlenet"))


def test_a_classifier_that_is_no_linear_layer_gives_logits_alone(tmp_path: Path) -> None:
    model = torchvision.models.squeezenet1_1(num_classes=4)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    spec = SourceSpec(
        "a", "torchvision/squeezenet1_1", weights=tmp_path / "w.safetensors", num_classes=4, image_size=64
    )
    source = open_source(spec)
    assert (source.feature_dim, source.num_classes) == (0, 4)
    with pytest.raises(SourceError, match="has no linear classifier"):
        open_source(dataclasses.replace(spec, num_classes=0))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vit_b_32", "efficientnet_b0", "densenet121"])
def test_features_are_what_goes_into_the_last_layer(name: str, tmp_path: Path) -> None:
    sized = {"image_size": 64} if name.startswith("vit") else {}
    model = torchvision.models.get_model(name, weights=None, num_classes=5, **sized).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    spec = SourceSpec("a", f"torchvision/{name}", weights=tmp_path / "w.safetensors", num_classes=5, image_size=64)
    images = torch.randn(3, 3, 64, 64)
    features, logits = open_source(spec).outputs(images)
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    assert features is not None
    assert logits is not None
    with torch.no_grad():
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(last(features), logits, rtol=1e-4, atol=1e-4)


# transformers


@pytest.fixture
def vit(tmp_path: Path) -> SourceSpec:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        num_labels=5,
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    return SourceSpec("vit", "hf/somebody/vit", weights=tmp_path / "vit")


def test_a_model_with_random_parts_is_refused(vit: SourceSpec) -> None:
    assert vit.weights is not None
    file = vit.weights / "model.safetensors"
    state = load_file(file)
    save_file({key: value for key, value in state.items() if "classifier" not in key}, file, {"format": "pt"})
    with pytest.raises(SourceError, match=r"no fitting weights for 2 tensors, which would be random: classifier\.bias"):
        open_source(vit, offline=True)
    narrower = {**state, "classifier.weight": torch.zeros(3, 16), "classifier.bias": torch.zeros(3)}
    save_file(narrower, file, {"format": "pt"})
    with pytest.raises(SourceError, match=r"classifier\.(bias|weight)|cannot be had"):
        open_source(vit, offline=True)


def test_a_backbone_whose_pooler_was_never_trained_gives_its_class_token(vit: SourceSpec, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.ViTModel.from_pretrained(vit.weights, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "backbone")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "backbone")
    source = open_source(dataclasses.replace(vit, weights=tmp_path / "backbone"), offline=True)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        token = model(images).last_hidden_state[:, 0]
    torch.testing.assert_close(source.outputs(images)[0], token, rtol=1e-4, atol=1e-5)
    assert source.num_classes == 0


def test_the_vision_half_of_a_model_of_images_and_texts_is_taken(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 50}, vision_config={**small, "image_size": 32, "patch_size": 8}
    )
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path / "clip")
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path / "clip")
    source = open_source(SourceSpec("clip", "hf/somebody/clip", weights=tmp_path / "clip"), offline=True)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(source.outputs(images)[0], model.vision_model(images).pooler_output)


def test_pickled_weights_are_read_only_where_that_is_allowed(vit: SourceSpec) -> None:
    assert vit.weights is not None
    file = vit.weights / "model.safetensors"
    torch.save(load_file(file), vit.weights / "pytorch_model.bin")
    file.unlink()
    with pytest.raises(SourceError, match="cannot be had"):
        open_source(vit, offline=True)
    assert open_source(dataclasses.replace(vit, allow_pickle=True), offline=True).num_classes == 5


def test_a_hub_model_that_is_not_here_says_how_to_fetch_it() -> None:
    pytest.importorskip("transformers")
    with pytest.raises(SourceError, match="hf download somebody/nothing"):
        open_source(SourceSpec("a", "hf/somebody/nothing"), offline=True)
    assert source_identity(SourceSpec("a", "hf/a/b")) != source_identity(SourceSpec("a", "hf/a/b", revision="v2"))


@pytest.mark.parametrize(
    ("prepared", "size", "resized"),
    [
        ({"size": {"height": 224, "width": 224}}, 224, 224),
        ({"size": 224, "do_center_crop": False}, 224, 224),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            224,
            256,
        ),
        ({"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224}, 224, 224),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, 224, 256),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.95}, 384, 384),
    ],
)
def test_preprocessor_files_of_every_family(prepared: dict[str, Any], size: int, resized: int) -> None:
    normal = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 3}
    found = hf_preprocessing(SourceSpec("a", "hf/a/b"), {**normal, **prepared})
    assert (found.image_size, resized_size(found.image_size, found.crop)) == (size, resized)
    assert (found.mean, found.std, found.interpolation) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic")


@pytest.mark.parametrize(
    ("prepared", "message"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"longest_edge": 512}}, "Add image_size"),
        ({"size": 224}, "says nothing of image_mean"),
        ({"size": 224, "do_normalize": False, "rescale_factor": 1 / 127.5}, "rescale_factor 0.0078"),
    ],
)
def test_preprocessor_files_that_do_not_say_enough(prepared: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        hf_preprocessing(SourceSpec("a", "hf/a/b"), prepared)


# onnx and callable


@pytest.mark.parametrize("model", ["onnx", "callable"])
def test_unstated_preprocessing_is_asked_for(model: str, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def f(images):\n    return {'features': images.flatten(1)}\n")
    (tmp_path / "m.onnx").write_bytes(b"x")
    file = tmp_path / ("m.onnx" if model == "onnx" else "m.py")
    spec = SourceSpec("a", model, callable="m:f", file=file, image_size=32, mean=(0.5, 0.5, 0.5))
    with pytest.raises(SourceError, match="Add std to the zoo file"):
        source_identity(spec)


def onnx_spec(tmp_path: Path, **keys: Any) -> SourceSpec:
    """Two outputs of an image: its mean by channel, and the softmax of that."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
        helper.make_node("Softmax", ["mean"], ["probs"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("images", floats, [keys.pop("batch", "n"), 3, 32, 32])],
        [helper.make_tensor_value_info(name, floats, None) for name in ("mean", "probs")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "means.onnx")
    return SourceSpec("a", "onnx", file=tmp_path / "means.onnx", **{**NORMAL, **keys})


def test_onnx_outputs_are_named_and_a_fixed_batch_is_filled(tmp_path: Path) -> None:
    images = torch.randn(7, 3, 32, 32)
    for batch in ("n", 1, 4):
        source = open_source(onnx_spec(tmp_path, features_output="mean", batch=batch))
        features, logits = source.outputs(images)
        assert logits is None
        torch.testing.assert_close(features, images.mean(dim=(2, 3)), rtol=1e-5, atol=1e-6)
    with pytest.raises(SourceError, match=r"say which outputs to read .* the file has mean, probs"):
        open_source(onnx_spec(tmp_path))
    with pytest.raises(SourceError, match="no output means; the file has mean, probs"):
        open_source(onnx_spec(tmp_path, features_output="means"))
    with pytest.raises(SourceError, match="fails on images of shape"):
        open_source(onnx_spec(tmp_path, features_output="mean", image_size=48))


def test_probabilities_are_no_logits(tmp_path: Path) -> None:
    source = open_source(onnx_spec(tmp_path, logits_output="probs"))
    with pytest.raises(SourceError, match="gives probabilities, not logits"):
        source.outputs(torch.randn(4, 3, 32, 32))


def callable_spec(tmp_path: Path, body: str) -> SourceSpec:
    (tmp_path / "m.py").write_text(f"import torch\n\ndef f(images):\n    {body}\n")
    return SourceSpec("a", "callable", callable="m:f", file=tmp_path / "m.py", **NORMAL)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return images.flatten(1)", "must return a mapping with 'features', 'logits' or both, got Tensor"),
        ("return {'embedding': images.flatten(1)}", r"must return a mapping .* got \['embedding'\]"),
        ("return {'features': images}", "expected features as a matrix"),
        ("return {'features': images.flatten(1)[:1]}", "expected features as a matrix with a row for each of 2"),
        ("raise KeyError('token')", "fails on images of shape .*KeyError: 'token'"),
    ],
)
def test_what_a_function_returns_is_checked(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(callable_spec(tmp_path, body))


def test_a_function_whose_answers_change_their_shape_is_noticed(tmp_path: Path) -> None:
    source = open_source(callable_spec(tmp_path, "return {'features': images.flatten(1)[:, :len(images)]}"))
    with pytest.raises(SourceError, match=r"expected features \(3, 2\), got \(3, 3\)"):
        source.outputs(torch.zeros(3, 3, 32, 32))


def test_modules_and_functions_that_are_not_there(tmp_path: Path) -> None:
    spec = callable_spec(tmp_path, "return {'features': images.flatten(1)}")
    with pytest.raises(SourceError, match="has no function 'g'"):
        open_source(dataclasses.replace(spec, callable="m:g"))
    with pytest.raises(SourceError, match="expected callable: module:function"):
        open_source(dataclasses.replace(spec, callable="m.f"))
    with pytest.raises(SourceError, match="there is no module 'nowhere'"):
        source_identity(dataclasses.replace(spec, callable="nowhere:f", file=None))
    (tmp_path / "m.py").write_text("import nowhere\n")
    with pytest.raises(SourceError, match="cannot be imported: ModuleNotFoundError"):
        open_source(spec)


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = onnx_spec(tmp_path, features_output="mean")
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return real(name, *arguments)

    monkeypatch.setattr("importlib.import_module", lambda name: without(name))
    with pytest.raises(SourceError, match=r"'a' needs onnxruntime.* pip install 'potstill\[onnx\]'"):
        open_source(spec)


# arrays


@pytest.fixture
def arrays(tmp_path: Path) -> SourceSpec:
    (tmp_path / "paths.txt").write_text("a.png\nb.png\n/data/c.png\n")
    np.save(tmp_path / "f.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    return SourceSpec("a", "arrays", features=tmp_path / "f.npy", paths=tmp_path / "paths.txt")


def test_rows_are_found_by_relative_and_absolute_path(arrays: SourceSpec) -> None:
    files = {"c.png": Path("/data/c.png"), "a.png": Path("/data/a.png")}
    source: Any = open_source(arrays)
    features, logits = source.outputs(["c.png", "a.png"], files, ["", ""])
    assert logits is None
    assert features.tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    with pytest.raises(SourceError, match=r"no row for 1 of 1 images: d.png"):
        source.outputs(["d.png"], {"d.png": Path("/data/d.png")}, [""])


def test_an_image_that_changed_since_is_noticed(arrays: SourceSpec, tmp_path: Path) -> None:
    (tmp_path / "paths.csv").write_text("sha256,path\naa,a.png\n,b.png\nCC,c.png\n")
    source: Any = open_source(dataclasses.replace(arrays, paths=tmp_path / "paths.csv"))
    files = {name: Path(name) for name in ("a.png", "b.png", "c.png")}
    assert len(source.outputs(list(files), files, ["aa", "bb", "cc"])[0]) == 3
    with pytest.raises(SourceError, match=r"2 images are not those that its rows are about .*: a.png, c.png"):
        source.outputs(list(files), files, ["ab", "bb", "cd"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.zeros((2, 4), dtype=np.float32),
            r"expected floating-point values of shape \(3, Z\).* got float32 \(2, 4\)",
        ),
        (np.zeros((3, 4), dtype=np.int64), "got int64"),
        (np.zeros(3, dtype=np.float32), "got float32"),
        (np.array([[{}]] * 3), "no readable .npy file"),
    ],
)
def test_arrays_that_are_no_rows(arrays: SourceSpec, tmp_path: Path, values: Any, message: str) -> None:
    np.save(tmp_path / "z.npy", values, allow_pickle=True)
    with pytest.raises(SourceError, match=message):
        open_source(dataclasses.replace(arrays, logits=tmp_path / "z.npy"))


def test_values_of_arrays_are_checked_when_they_are_read(arrays: SourceSpec, tmp_path: Path) -> None:
    files = {"a.png": Path("a.png"), "b.png": Path("b.png")}
    for values, message in (
        (np.full((3, 4), 0.25), "probabilities, not logits"),
        (np.full((3, 4), np.nan), "logits that are not finite for 2 of 2 images"),
    ):
        np.save(tmp_path / "z.npy", values)
        source: Any = open_source(dataclasses.replace(arrays, logits=tmp_path / "z.npy"))
        with pytest.raises(SourceError, match=message):
            source.outputs(list(files), files, ["", ""])


def test_an_image_named_twice_and_nothing_given(arrays: SourceSpec, tmp_path: Path) -> None:
    (tmp_path / "paths.txt").write_text("a.png\nb.png\na.png\n")
    with pytest.raises(SourceError, match=r"names 1 images more than once: a.png"):
        open_source(arrays)
    with pytest.raises(SourceError, match=r"need `paths`, and `features`, `logits` or both"):
        open_source(dataclasses.replace(arrays, features=None))


# what a review found


def test_answers_that_change_when_asked_again_are_refused(tmp_path: Path) -> None:
    body = "return {'features': torch.nn.functional.dropout(images.flatten(1), 0.5)}"
    with pytest.raises(SourceError, match="other features when it is asked about the same image again"):
        open_source(callable_spec(tmp_path, body))


def test_a_masking_model_is_not_taken_for_a_source(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    transformers.ViTMAEForPreTraining(config).save_pretrained(tmp_path / "mae")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "mae")
    with pytest.raises(SourceError, match="random"):
        open_source(SourceSpec("mae", "hf/somebody/mae", weights=tmp_path / "mae"), offline=True)


def test_a_classifier_with_two_heads_keeps_its_classes(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.DeiTConfig(**small, image_size=32, patch_size=8, id2label={k: f"c{k}" for k in range(5)})
    transformers.DeiTForImageClassificationWithTeacher(config).save_pretrained(tmp_path / "deit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "deit")
    source = open_source(SourceSpec("deit", "hf/somebody/deit", weights=tmp_path / "deit"), offline=True)
    assert (source.num_classes, source.classes) == (5, ("c0", "c1", "c2", "c3", "c4"))


def test_replaced_weights_beside_an_onnx_file_are_noticed_whatever_their_name(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    spec = onnx_spec(tmp_path, features_output="mean")
    model = onnx.load(spec.file)
    weight = onnx.numpy_helper.from_array(np.arange(4096, dtype=np.float32), "weight")
    model.graph.initializer.append(weight)
    onnx.save(model, spec.file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = source_identity(spec)
    content = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(content[:-1] + b"\x01")
    assert source_identity(spec) != before


@pytest.mark.parametrize(
    ("prepared", "message"),
    [
        ({"do_flip_channel_order": True}, "blue first"),
        ({"do_rescale": False}, "not scaled to 0..1"),
        ({"resample": 5}, "unknown resample 5"),
    ],
)
def test_transforms_that_cannot_be_expressed_are_refused(prepared: dict[str, Any], message: str) -> None:
    whole = {"size": 224, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, **prepared}
    with pytest.raises(SourceError, match=message):
        hf_preprocessing(SourceSpec("a", "hf/a/b"), whole)


def test_what_a_foreign_library_raises_is_an_error_of_the_source(arrays: SourceSpec, tmp_path: Path) -> None:
    (tmp_path / "paths.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(SourceError, match=r"'a' .arrays. cannot be opened: UnicodeDecodeError"):
        open_source(arrays)


def test_a_pinned_sha256_holds_for_a_file_that_is_gone(tmp_path: Path) -> None:
    state = torchvision.models.squeezenet1_1(num_classes=4).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    spec = SourceSpec("a", "torchvision/squeezenet1_1", weights=tmp_path / "w.safetensors", num_classes=4)
    with pytest.raises(SourceError, match="expected " + "0" * 64):
        source_identity(dataclasses.replace(spec, sha256="0" * 64), lambda path: "1" * 64)
    (tmp_path / "w.safetensors").unlink()
    with pytest.raises(SourceError, match="expected " + "0" * 64):
        source_identity(dataclasses.replace(spec, sha256="0" * 64), lambda path: "1" * 64)
