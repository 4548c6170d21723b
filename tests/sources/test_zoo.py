"""The zoo file: everything wrong is listed at once, nothing unknown passes."""

import hashlib

import pytest
import timm
from timm.models import get_pretrained_cfg

from potstill.errors import ConfigError, SourceError, UnknownNameError
from potstill.sources import load_zoo, open_source
from potstill.sources.licenses import is_permissive
from potstill.sources.timm_models import EMBEDDING_SIZES
from potstill.types import SourceSpec

FULL = """
sources:
  - name: letters
    model: timm/test_resnet
    weights: letters.safetensors
    num_classes: 3
    image_size: 64
    mean: [0.5, 0.5, 0.5]
    std: [0.5, 0.5, 1]
    interpolation: bilinear
    crop: 1.0
    classes: [a, b, c]
    license: OFL-1.1
    trained_on: letters in many typefaces
    accuracy: {value: 0.93, on: its own held-out part}
    sha256: SHA
  - name: plain
    model: timm/resnet18.a1_in1k
"""


@pytest.fixture
def zoo_file(tmp_path):
    """Write a zoo file beside an (unread) weights file."""
    (tmp_path / "letters.safetensors").write_bytes(b"weights")

    def write(text):
        path = tmp_path / "zoo.yaml"
        path.write_text(text.replace("SHA", hashlib.sha256(b"weights").hexdigest()))
        return path

    return write


def test_every_key_arrives(zoo_file, tmp_path):
    zoo = load_zoo(zoo_file(FULL))
    assert zoo.name == tmp_path.name
    assert list(zoo.sources) == ["letters", "plain"]
    letters = zoo.sources["letters"]
    assert letters.weights == tmp_path / "letters.safetensors"
    assert (letters.num_classes, letters.image_size, letters.classes) == (3, 64, ("a", "b", "c"))
    assert (letters.mean, letters.std, letters.crop) == ((0.5, 0.5, 0.5), (0.5, 0.5, 1.0), 1.0)
    assert letters.accuracy == {"value": 0.93, "on": "its own held-out part"}
    assert zoo.sources["plain"] == SourceSpec(name="plain", model="timm/resnet18.a1_in1k")


def test_all_problems_come_at_once(zoo_file):
    text = """
    sources:
      - {name: one, model: timm/resnet81, wieghts: a.safetensors}
      - {name: 7, model: timm/resnet18, num_classes: true, mean: [1, 2], crop: 2, allow_pickle: please}
      - {name: two, model: timm/resnet18, num_classes: 2, classes: [a, b, c], file: x.onnx}
      - {name: two, model: resnet18}
      - {name: three, model: timm/resnet18}
      - {name: three, model: timm/resnet50}
      - {model: timm/resnet18, accuracy: 0.9, sha256: abc, interpolation: cubic, std: [0, 1, 1]}
      - {name: bytes, model: timm/resnet18, mean: [127.5, 127.5, 127.5], std: [58, 57, 57]}
      - just text
    zoo: mine
    """
    with pytest.raises(ConfigError) as caught:
        load_zoo(zoo_file(text))
    message = str(caught.value)
    for expected in (
        "source 'one': unknown key `wieghts`; did you mean `weights`?",
        "source 2: `name`: expected text (quote it",
        "source 2: `num_classes`: expected a whole number of at least 0, got True",
        "source 2: `mean`: expected three numbers",
        "source 2: `crop`: expected a number from 0.01 to 1, got 2",
        "source 2: `allow_pickle`: expected true or false, got 'please'",
        "source 'two': `classes` has 3 names, `num_classes` is 2",
        "source 'two': `file` does not apply to a source of kind timm",
        "source 'two': `model`: unknown kind 'resnet18'",
        "source 'three': the name occurs more than once",
        "source 7: the key `name` is required",
        "source 7: `accuracy`: expected {value: a rate from 0 to 1",
        "source 7: `sha256`: expected 64 hexadecimal digits",
        "source 7: `interpolation`: expected one of bilinear",
        "source 7: `std`: expected a number from 1e-06",
        "source 'bytes': `mean`: expected values for pixels from 0 to 1; divide those for 0 to 255 by 255",
        "source 'bytes': `std`: expected values for pixels from 0 to 1",
        "source 9: expected keys and values, got 'just text'",
        "unknown key `zoo`",
    ):
        assert expected in message, expected


def test_unknown_model_gets_a_suggestion(zoo_file):
    with pytest.raises(ConfigError, match="Did you mean 'timm/resnet18'"):
        load_zoo(zoo_file("sources: [{name: a, model: timm/resnet81}]"))


@pytest.mark.parametrize("text", ["", "[]", "sources: []", "sources: {a: 1}", "other: 1"])
def test_a_file_without_sources(zoo_file, text):
    with pytest.raises(ConfigError, match="`sources` with a list of at least one source"):
        load_zoo(zoo_file(text))


def test_yaml_errors_and_tags_are_refused(zoo_file):
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_zoo(zoo_file("sources: ["))
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_zoo(zoo_file("sources: !!python/object/apply:os.getcwd []"))


def test_absent_zoo(tmp_path):
    with pytest.raises(SourceError, match="Zoo file not found"):
        load_zoo(tmp_path / "zoo.yaml")
    with pytest.raises(UnknownNameError, match="Did you mean 'light'"):
        load_zoo("ligth")


def test_every_kind_knows_its_own_keys_and_no_others(zoo_file):
    own = {
        "torchvision/resnet18": "weights: w.safetensors",
        "hf/org/net": "weights: folder",
        "onnx": "file: m.onnx, features_output: f, logits_output: z",
        "callable": "callable: 'module:function', file: module.py",
        "arrays": "features: f.npy, logits: z.npy, paths: p.txt",
    }
    entries = "".join(f"  - {{name: '{model}', model: {model}, {keys}}}\n" for model, keys in own.items())
    assert len(load_zoo(zoo_file("sources:\n" + entries))) == 5
    wrong = entries.replace("features: f.npy", "image_size: 32, features: f.npy").replace("file: m.onnx", "revision: a")
    with pytest.raises(ConfigError) as caught:
        load_zoo(zoo_file("sources:\n" + wrong))
    assert "source 'arrays': `image_size` does not apply to a source of kind arrays" in str(caught.value)
    assert "source 'onnx': `revision` does not apply to a source of kind onnx" in str(caught.value)


@pytest.mark.parametrize("name", ["light", "standard", "diverse"])
def test_built_in_zoos_name_weights_that_timm_has_under_timms_licences(name):
    zoo = load_zoo(name)
    assert zoo.name == name
    known = set(timm.list_pretrained())
    for spec in zoo:
        model = spec.model.removeprefix("timm/")
        cfg = get_pretrained_cfg(model)
        assert model in known
        assert spec.license == cfg.license
        assert spec.num_classes in (None, cfg.num_classes, 0)
        assert spec.trained_on
        if name != "diverse":
            assert is_permissive(spec.license)
        # What is no classifier must not be taken for one.
        if cfg.num_classes in EMBEDDING_SIZES or cfg.num_classes == 0:
            assert spec.num_classes == 0
        if cfg.fixed_input_size and spec.image_size is None:
            assert cfg.input_size[1] <= 256


def test_only_models_of_images_with_captions_have_as_many_outputs_as_an_embedding():
    sizes = {}
    for model in timm.list_pretrained():
        if get_pretrained_cfg(model).num_classes in EMBEDDING_SIZES:
            sizes[model] = get_pretrained_cfg(model).num_classes
    assert len(sizes) > 20
    words = ("clip", "mci", "_pe_")
    assert {model: size for model, size in sizes.items() if not any(word in model for word in words)} == {}
    with pytest.raises(SourceError, match=r"512 coordinates of an embedding, not classes. Set num_classes to 0"):
        open_source(SourceSpec(name="a", model="timm/vit_base_patch32_clip_224.laion2b"), offline=True)
