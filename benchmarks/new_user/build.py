"""Build what a new user of Potstill has: a folder of images, a zoo file and a few trained models.

    python benchmarks/imagenet_weights/convert.py      # once
    python benchmarks/new_user/build.py

writes `.build-data/new_user/`: `photos/<class>/<name>.png`, a manifest `photos.csv` of the same images with groups,
`zoo.yaml` and `weights/`. README.md beside this file says what is in them, under which licences, and how to use them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import logging
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from material.packages import EMOJI  # noqa: E402
from material.sides import side_of  # noqa: E402

DEFAULT_OUTPUT = ROOT / ".build-data" / "new_user"
IMAGENET_WEIGHTS = ROOT / ".build-data" / "imagenet_weights"
STUDENT = "tf_efficientnet_lite0"
IMAGENET_SOURCES = ("tf_efficientnet_lite1", "tf_efficientnet_lite2")
IMAGENET_SIZE = 128  # emoji have 64 pixels a side; the sources' own 240 and 260 cost four times as much
EMOJI_VERSION = "16.0.0"
EMOJI_PACKAGES = {artist: sha256 for artist, (_, sha256) in EMOJI.items()}
CLASSES = {  # group of the Unicode standard -> class folder
    "Smileys & Emotion": "smileys",
    "People & Body": "people",
    "Animals & Nature": "animals",
    "Food & Drink": "food",
    "Travel & Places": "travel",
    "Activities": "activities",
    "Objects": "objects",
    "Symbols": "symbols",
    "Flags": "flags",
}
SMALLEST_SOURCE_CLASS = 6

log = logging.getLogger("new_user")


@dataclass(frozen=True)
class Emoji:
    """One drawing. `group` is the first code point in lower-case hex; drawings of a group never straddle a split."""

    name: str
    group: str
    label: str
    sublabel: str
    image: npt.NDArray[np.uint8]


def fetch_emoji(artist: str, folder: Path) -> Path:
    """Path of the artist's npm package in `folder`, packed with npm unless it is there; its SHA-256 is pinned."""
    package = folder / f"emoji-datasource-{artist}-{EMOJI_VERSION}.tgz"
    if not package.exists():
        folder.mkdir(parents=True, exist_ok=True)
        requirement = f"emoji-datasource-{artist}@{EMOJI_VERSION}"
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", str(folder), requirement], check=True)
    found = hashlib.sha256(package.read_bytes()).hexdigest()
    if found != EMOJI_PACKAGES[artist]:
        raise ValueError(f"{package.name}: expected SHA-256 {EMOJI_PACKAGES[artist]}, got {found}")
    return package


def is_wanted(entry: dict[str, str], artist: str) -> bool:
    """Drawn by the artist, in one of the classes, and not a man or woman who redraws a person of another group."""
    points = entry["unified"].split("-")
    redraws = entry["category"] == "People & Body" and points[0] in ("1F468", "1F469") and len(points) > 1
    return bool(entry[f"has_img_{artist}"]) and entry["category"] in CLASSES and not redraws


def read_emoji(package: Path, artist: str, sides: Sequence[str]) -> list[Emoji]:
    """All wanted emoji of the given sides, in the order of the Unicode standard; uint8 `(64, 64, 3)` on white."""
    with tarfile.open(package) as archive:
        listing = archive.extractfile("package/emoji.json")
        if listing is None:
            raise ValueError(f"{package.name}: expected package/emoji.json")
        entries = sorted(json.load(listing), key=lambda entry: entry["sort_order"])
        files = {Path(member.name).name: member for member in archive if f"/img/{artist}/64/" in member.name}
        found = []
        for entry in entries:
            group = entry["unified"].split("-")[0].lower()
            if not is_wanted(entry, artist) or side_of(group) not in sides:
                continue
            content = archive.extractfile(files[entry["image"]])
            if content is None:
                raise ValueError(f"{package.name}: {entry['image']} is not a file")
            drawing = Image.open(io.BytesIO(content.read())).convert("RGBA")
            white = Image.new("RGBA", drawing.size, "white")
            image = np.asarray(Image.alpha_composite(white, drawing).convert("RGB"))
            name = entry["short_name"]
            found.append(Emoji(name, group, CLASSES[entry["category"]], entry["subcategory"], image))
    return found


def write_target(emoji: Sequence[Emoji], output: Path) -> None:
    """`photos/<class>/<name>.png` and the manifest `photos.csv` (path, label, group)."""
    shutil.rmtree(output / "photos", ignore_errors=True)
    with (output / "photos.csv").open("w", newline="") as handle:
        rows = csv.writer(handle, lineterminator="\n")
        rows.writerow(("path", "label", "group"))
        for item in emoji:
            path = output / "photos" / item.label / f"{item.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(item.image).save(path)
            rows.writerow((path.relative_to(output).as_posix(), item.label, item.group))


def to_tensor(images: npt.NDArray[np.uint8], size: int) -> Tensor:
    """Images uint8 `(N, H, W, 3)` as float32 `(N, 3, size, size)` in [-1, 1] (mean and standard deviation 0.5)."""
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return interpolate(scaled, size=(size, size), mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)


def augment(images: Tensor, generator: torch.Generator, *, flip: bool) -> Tensor:
    """Shift every image by up to an eighth of its side on a white ground, and mirror half of them."""
    size = images.shape[-1]
    reach = size // 8
    padded = pad(images, (reach,) * 4, value=1.0)
    shifts = torch.randint(0, 2 * reach + 1, (len(images), 2), generator=generator).tolist()
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    moved = []
    for image, (top, left), mirror in zip(padded, shifts, mirrored.tolist(), strict=True):
        crop = image[:, top : top + size, left : left + size]
        moved.append(crop.flip(-1) if flip and mirror else crop)
    return torch.stack(moved)


def train_source(
    model: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, rate: float, flip: bool, batch_size: int = 32
) -> None:
    """Fine-tune in place with AdamW on a one-cycle schedule."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    steps = epochs * (len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    model.to(memory_format=torch.channels_last).train()  # twice as fast on a CPU
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for rows in order.split(batch_size):
            if len(rows) < batch_size:
                continue
            batch = augment(images[rows], generator, flip=flip).contiguous(memory_format=torch.channels_last)
            loss = cross_entropy(model(batch), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.to(memory_format=torch.contiguous_format).eval()


def measure_accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose most probable class is right, rounded to three digits."""
    with torch.inference_mode():
        predicted = torch.cat([model(part).argmax(-1) for part in images.split(64)])
    return round(float((predicted == labels).float().mean()), 3)


def build_emoji_source(emoji: Sequence[Emoji], output: Path, *, size: int, epochs: int) -> dict[str, object]:
    """Fine-tune the student's architecture on another artist's drawings of source-side groups; its zoo entry."""
    counts = Counter(item.sublabel for item in emoji)
    classes = sorted(name for name, count in counts.items() if count >= SMALLEST_SOURCE_CLASS)
    used = [item for item in emoji if item.sublabel in classes]
    images = to_tensor(np.stack([item.image for item in used]), size)
    labels = torch.tensor([classes.index(item.sublabel) for item in used])
    groups = sorted({item.group for item in used})
    kept_back = set(np.random.default_rng(0).permutation(groups)[: len(groups) // 5].tolist())
    held_out = torch.tensor([item.group in kept_back for item in used])

    torch.manual_seed(0)
    model = timm.create_model(STUDENT)
    model.load_state_dict(load_file(IMAGENET_WEIGHTS / f"{STUDENT}.safetensors"))
    model.reset_classifier(len(classes))
    train_source(model, images[~held_out], labels[~held_out], epochs=epochs, rate=1e-3, flip=True)
    accuracy = measure_accuracy(model, images[held_out], labels[held_out])
    save_file(model.state_dict(), output / "weights" / "emoji_of_another_artist.safetensors")
    return {
        "name": "emoji-of-another-artist",
        "model": f"timm/{STUDENT}",
        "weights": "weights/emoji_of_another_artist.safetensors",
        "num_classes": len(classes),
        "classes": classes,
        "image_size": size,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "license": "Apache-2.0",
        "trained_on": f"{int((~held_out).sum())} Noto emoji that the target does not contain, by Unicode subgroup",
        "accuracy": {"value": accuracy, "on": f"{int(held_out.sum())} emoji of its own, held out by code point"},
    }


def build_digits_source(output: Path, *, size: int = 32, epochs: int = 12) -> dict[str, object]:
    """Train a tiny network on scikit-learn's scanned digits, a source that should not help; its zoo entry."""
    digits = load_digits()
    grey = (255 - digits.images * (255 / 16)).astype(np.uint8)  # black on white, as the emoji are on white
    images = to_tensor(np.repeat(grey[..., None], 3, axis=-1), size)
    labels = torch.from_numpy(digits.target)
    held_out = torch.arange(len(images)) >= len(images) * 4 // 5  # the last writers

    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=10)
    train_source(model, images[~held_out], labels[~held_out], epochs=epochs, rate=3e-3, flip=False)
    accuracy = measure_accuracy(model, images[held_out], labels[held_out])
    save_file(model.state_dict(), output / "weights" / "scanned_digits.safetensors")
    return {
        "name": "scanned-digits",
        "model": "timm/test_efficientnet",
        "weights": "weights/scanned_digits.safetensors",
        "num_classes": 10,
        "image_size": size,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "license": "CC-BY-4.0",
        "trained_on": "scanned handwritten digits",
        "accuracy": {"value": accuracy, "on": "the last fifth of its own images"},
    }


def copy_imagenet_source(model: str, output: Path) -> dict[str, object]:
    """Copy converted ImageNet weights beside the zoo file; the zoo entry, made from their card."""
    shutil.copy(IMAGENET_WEIGHTS / f"{model}.safetensors", output / "weights")
    card = json.loads((IMAGENET_WEIGHTS / f"{model}.json").read_text())
    return {
        "name": model.replace("tf_", "imagenet-").replace("_", "-"),
        "model": card["model"],
        "weights": f"weights/{card['file']}",
        "num_classes": card["num_classes"],
        "image_size": IMAGENET_SIZE,
        "mean": card["mean"],
        "std": card["std"],
        "interpolation": card["interpolation"],
        "license": card["license"],
        "trained_on": card["trained_on"],
        "sha256": card["sha256"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a new user's folder: images, zoo file, trained models.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    parser.add_argument("--size", type=int, default=96, help="image size of the emoji source")
    parser.add_argument("--epochs", type=int, default=16, help="epochs of the emoji source")
    arguments = parser.parse_args()
    output: Path = arguments.output
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)  # the same sums on every machine, and quicker than many threads where cores are shared
    if not (IMAGENET_WEIGHTS / f"{STUDENT}.safetensors").exists():
        parser.error("ImageNet weights are missing; first run: python benchmarks/imagenet_weights/convert.py")
    (output / "weights").mkdir(parents=True, exist_ok=True)
    packages = output / "packages"

    target = read_emoji(fetch_emoji("twitter", packages), "twitter", ("pool", "test"))
    write_target(target, output)
    log.info("photos: %d images, %s", len(target), dict(Counter(item.label for item in target)))

    sources = [copy_imagenet_source(model, output) for model in IMAGENET_SOURCES]
    shutil.copy(IMAGENET_WEIGHTS / f"{STUDENT}.safetensors", output / "weights")
    started = time.perf_counter()
    other = read_emoji(fetch_emoji("google", packages), "google", ("source",))
    sources.append(build_emoji_source(other, output, size=arguments.size, epochs=arguments.epochs))
    log.info("%s: %s, %.0f s", sources[-1]["name"], sources[-1]["accuracy"], time.perf_counter() - started)
    started = time.perf_counter()
    sources.append(build_digits_source(output))
    log.info("%s: %s, %.0f s", sources[-1]["name"], sources[-1]["accuracy"], time.perf_counter() - started)
    (output / "zoo.yaml").write_text(yaml.safe_dump({"sources": sources}, sort_keys=False, width=120))


if __name__ == "__main__":
    main()
