"""Models: the right weights or an error that names the keys; features and classifier agree with the model."""

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from potstill.errors import SourceError, UnknownNameError, UsageError
from potstill.models import (
    create_model,
    features_of,
    load_state,
    logits_of_features,
    preprocessing_of,
    pretrained_cfg_of,
)
from potstill.types import Preprocessing

FAMILIES = [
    "timm/test_resnet",
    "timm/test_efficientnet",
    "timm/test_convnext",
    "timm/test_vit",
    "timm/mobilenetv3_small_050",  # a further layer between pooling and classifier
    "timm/tf_efficientnet_lite0",
]


@pytest.fixture
def resnet_file(tmp_path):
    """Random weights of a five-class test_resnet."""
    path = tmp_path / "resnet.safetensors"
    save_file(create_model("timm/test_resnet", num_classes=5).state_dict(), path)
    return path


@pytest.mark.parametrize("name", FAMILIES)
def test_classifier_of_features_is_the_model(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=7, image_size=32).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = features_of(model, images)
        torch.testing.assert_close(logits_of_features(model, features), model(images), rtol=1e-5, atol=1e-5)
    assert features.ndim == 2


def test_local_weights_are_loaded_and_leave_the_global_generator_alone(resnet_file):
    before = torch.random.get_rng_state()
    model = create_model("timm/test_resnet", weights=resnet_file, num_classes=5)
    assert torch.equal(before, torch.random.get_rng_state())
    for key, value in load_state(resnet_file).items():
        assert torch.equal(model.state_dict()[key], value)


def test_half_precision_is_cast_up(tmp_path):
    path = tmp_path / "half.safetensors"
    state = create_model("timm/test_resnet", num_classes=5).half().state_dict()
    save_file(state, path)
    model = create_model("timm/test_resnet", weights=path, num_classes=5)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.state_dict()["fc.weight"], state["fc.weight"].float())


def test_wrong_number_of_classes_names_keys_shapes_and_cure(resnet_file):
    with pytest.raises(SourceError) as caught:
        create_model("timm/test_resnet", weights=resnet_file, num_classes=9)
    message = str(caught.value)
    assert "fc.weight (expected (9, " in message
    assert "found (5, " in message
    assert "set num_classes to 5" in message


def test_classifier_in_the_file_but_not_wanted(resnet_file):
    with pytest.raises(SourceError, match=r"not in the model \(2\): fc.bias, fc.weight"):
        create_model("timm/test_resnet", weights=resnet_file, num_classes=0)
    model = create_model("timm/test_resnet", weights=resnet_file, num_classes=0, ignore_classifier=True)
    assert model.num_classes == 0
    # Dropping the classifier never excuses a random one.
    with pytest.raises(SourceError, match=r"missing in the file \(2\): fc.weight, fc.bias[\s\S]*num_classes to 0"):
        create_model("timm/test_resnet", weights=resnet_file, num_classes=5, ignore_classifier=True)


def test_weights_of_another_architecture(resnet_file):
    with pytest.raises(SourceError, match="another architecture"):
        create_model("timm/test_efficientnet", weights=resnet_file, num_classes=5)


def test_prefixed_keys_and_position_embeddings_get_their_cure(tmp_path):
    model = create_model("timm/test_vit", num_classes=5, image_size=32)
    save_file({f"module.{key}": value for key, value in model.state_dict().items()}, tmp_path / "a.safetensors")
    with pytest.raises(SourceError, match=r"starts with 'module\.'"):
        create_model("timm/test_vit", weights=tmp_path / "a.safetensors", num_classes=5, image_size=32)
    save_file(model.state_dict(), tmp_path / "b.safetensors")
    with pytest.raises(SourceError, match="set image_size"):
        create_model("timm/test_vit", weights=tmp_path / "b.safetensors", num_classes=5, image_size=64)


def test_pickles_need_permission_and_are_never_executed(tmp_path):
    model = create_model("timm/test_resnet", num_classes=5)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "good.pth")
    with pytest.raises(SourceError, match="allow_pickle"):
        load_state(tmp_path / "good.pth")
    assert set(load_state(tmp_path / "good.pth", allow_pickle=True)) == set(model.state_dict())
    torch.save(model, tmp_path / "module.pth")
    with pytest.raises(SourceError, match="weights_only=True"):
        load_state(tmp_path / "module.pth", allow_pickle=True)


def test_absent_damaged_and_foreign_files(tmp_path, resnet_file):
    with pytest.raises(SourceError, match="not found"):
        load_state(tmp_path / "none.safetensors")
    resnet_file.write_bytes(resnet_file.read_bytes()[:-1])
    with pytest.raises(SourceError, match="not a readable safetensors"):
        load_state(resnet_file)
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"expected .safetensors"):
        load_state(tmp_path / "weights.h5")


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="Did you mean 'timm/resnet18'"):
        create_model("timm/resnet81")
    with pytest.raises(UnknownNameError, match="Unknown pretrained tag 'nope'"):
        create_model("timm/resnet18.nope")
    with pytest.raises(UnknownNameError, match="Write timm/NAME"):
        create_model("resnet18")
    with pytest.raises(UnknownNameError):
        create_model("timm/hf-hub:someone/model")


def test_library_weights_never_get_a_random_classifier():
    with pytest.raises(SourceError, match=r"have 1000 classes, not 12"):
        create_model("timm/resnet18.a1_in1k", pretrained=True, num_classes=12, offline=True)
    with pytest.raises(SourceError, match="timm has no weights"):
        create_model("timm/test_vit4", pretrained=True, offline=True)
    with pytest.raises(UsageError, match="not both"):
        create_model("timm/test_resnet", pretrained=True, weights=__file__)


def test_absent_library_weights_say_how_to_fetch_them(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match=r"model.safetensors of huggingface.co/timm/resnet18.a1_in1k.*hf download"):
        create_model("timm/resnet18.a1_in1k", pretrained=True, offline=True)


def test_library_weights_load_from_the_download_cache(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(path))
    before = torch.random.get_rng_state()
    model = create_model("timm/test_resnet.r160_in1k", pretrained=True)
    assert torch.equal(model.state_dict()["fc.weight"], load_state(path)["fc.weight"])
    assert torch.equal(before, torch.random.get_rng_state())
    assert "file" not in model.pretrained_cfg
    path.write_bytes(b"not safetensors")
    with pytest.raises(SourceError, match="cannot be fetched or loaded"):
        create_model("timm/test_resnet.r160_in1k", pretrained=True)


def test_the_network_is_asked_once_and_only_for_what_is_not_here(tmp_path, monkeypatch):
    asked = []

    def download(repo, file, *, revision, local_files_only):
        asked.append((file, local_files_only))
        raise LocalEntryNotFoundError("no network, or not in the cache")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(SourceError, match="cannot be fetched"):
        create_model("timm/test_resnet.r160_in1k", pretrained=True)
    assert asked == [("model.safetensors", True), ("pytorch_model.bin", True), ("model.safetensors", False)]


def test_headless_models_have_no_logits():
    model = create_model("timm/test_resnet", num_classes=0)
    with pytest.raises(SourceError, match="no single classifier"):
        logits_of_features(model, torch.zeros(1, model.num_features))


def test_preprocessing_comes_from_timm_unless_overridden():
    expected = timm.data.resolve_data_config(pretrained_cfg=pretrained_cfg_of("timm/tf_efficientnet_lite0"))
    own = preprocessing_of(create_model("timm/tf_efficientnet_lite0"))
    assert own == Preprocessing(224, expected["mean"], expected["std"], "bicubic", 0.875)
    cfg = pretrained_cfg_of("timm/tf_efficientnet_lite0")
    changed = preprocessing_of(cfg, image_size=64, mean=(0.1, 0.2, 0.3), interpolation="bilinear", crop=1.0)
    assert changed == Preprocessing(64, (0.1, 0.2, 0.3), expected["std"], "bilinear", 1.0)
    with pytest.raises(SourceError, match="square"):
        preprocessing_of({**cfg, "input_size": (3, 256, 128)})
    with pytest.raises(SourceError, match="RGB"):
        preprocessing_of({**cfg, "input_size": (1, 64, 64)})
