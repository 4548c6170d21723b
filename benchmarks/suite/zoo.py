"""Train the suite's zoo: one source for each task, on the source side of its images; then write the zoo file.

    python benchmarks/suite/zoo.py [--data .build-data/suite] [--only NAME ...] [--minutes 9]

Each source is a student that Potstill itself trains by `transfer` with every label of its source side; its accuracy is
that on groups held out of that side. Repeat the command until it says that the zoo is complete: what is trained is not
trained again, and a run that was cut off goes on. Weights are stored in float16.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from potstill.config import build_config  # noqa: E402
from potstill.pipeline.single_student import train_single  # noqa: E402
from potstill.sources.fingerprints import file_sha256  # noqa: E402
from suite.tasks import TASKS  # noqa: E402

DATA = ROOT / ".build-data" / "suite"
IMAGENET = ROOT / ".build-data" / "imagenet_weights"
IMAGENET_MODELS = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
# Accuracy on ImageNet as the authors of EfficientNet-Lite state it.
IMAGENET_ACCURACY = dict(zip(IMAGENET_MODELS, (0.751, 0.767, 0.776), strict=True))
LARGEST_SIZE = 96  # of what a source sees: 128 pixels cost nearly twice as much
IMAGENET_SIZE = 224  # at 64 pixels their features tell a target's classes apart up to ten points worse


@dataclass(frozen=True)
class Recipe:
    """How the source of a task is trained: from ImageNet's weights where the architecture has them here."""

    architecture: str
    steps: int = 300
    lr: float = 0.03


LITE0, LITE1, LITE2 = (Recipe(model) for model in IMAGENET_MODELS)
RESNET = Recipe("resnet10t", steps=500, lr=0.1)
MOBILENET = Recipe("mobilenetv3_small_100", steps=600, lr=0.1)

RECIPES: dict[str, Recipe] = {
    "lower-case": LITE1,
    "capitals-and-digits": LITE0,
    "greek": RESNET,
    "cyrillic": LITE0,
    "hebrew": MOBILENET,
    "katakana": RESNET,
    "signs": LITE0,
    "mnist": RESNET,
    "scanned-digits": MOBILENET,
    "emoji": LITE2,
    "icons": LITE0,
    "clip-art": LITE1,
    "units": RESNET,
    "terrain": LITE0,
    "ground": LITE0,
    "materials": LITE1,
    "parts-of-buildings": LITE0,
    "furniture": LITE0,
}


def train_source(name: str, data: Path) -> None:
    """Train, or go on training, the source of a task; its weights and card appear when it is done."""
    recipe, task, folder = RECIPES[name], TASKS[name], data / "zoo"
    run = folder / "runs" / name
    config = build_config(
        {
            "student": f"timm/{recipe.architecture}",
            "student_weights": initial_weights(recipe.architecture, data),
            "image_size": min(task.size, LARGEST_SIZE),
            "batch_size": 64,
            "steps": recipe.steps,
            "lr": recipe.lr,
            "flip": task.flip,
            "augment": "weak",
            "label_smoothing": 0.1,
            "cache_dir": data / "cache",
            "offline": True,
        }
    )
    manifest = data / "tasks" / name / "source.csv"
    result = train_single(manifest, run, config=config, method="transfer", resume=run.exists())
    classes = result["classes"]
    weights = load_file(run / "student" / "model.safetensors")
    halved = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(halved, folder / f"{name}.safetensors")
    with manifest.open(encoding="utf-8", newline="") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    student = json.loads((run / "student" / "config.json").read_text(encoding="utf-8"))["pretrained_cfg"]
    card = {
        "name": name,
        "model": f"timm/{recipe.architecture}",
        "weights": f"{name}.safetensors",
        "sha256": file_sha256(folder / f"{name}.safetensors"),
        "num_classes": len(classes),
        "classes": classes,
        "image_size": min(task.size, LARGEST_SIZE),
        "mean": student["mean"],
        "std": student["std"],
        "interpolation": student["interpolation"],
        "crop": 1.0,
        "license": "Apache-2.0",
        "trained_on": f"{splits.count('train')} images of {name}, source side; from "
        + ("ImageNet weights" if recipe.architecture in IMAGENET_MODELS else "random weights"),
        "accuracy": {"value": round(result["accuracy"], 3), "on": f"{splits.count('test')} images of held-out groups"},
    }
    (folder / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(run)


def initial_weights(architecture: str, data: Path, *, seed: int = 0) -> Path:
    """A file of ImageNet's weights for an architecture that has them here, else of random ones by `seed`."""
    if architecture in IMAGENET_MODELS:
        return IMAGENET / f"{architecture}.safetensors"
    path = data / "zoo" / f"random-{architecture}{f'-{seed}' if seed else ''}.safetensors"
    if not path.exists():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            save_file(timm.create_model(architecture, num_classes=0).state_dict(), path)
    return path


def imagenet_entry(model: str) -> dict[str, Any]:
    """An ImageNet model as a source, from its converted weights' card. Small images are enlarged for it."""
    card = json.loads((IMAGENET / f"{model}.json").read_text(encoding="utf-8"))
    return {
        "name": model.replace("tf_efficientnet_", "imagenet-"),
        "model": card["model"],
        "weights": str(IMAGENET / card["file"]),
        "sha256": card["sha256"],
        "num_classes": card["num_classes"],
        "image_size": IMAGENET_SIZE,
        "mean": card["mean"],
        "std": card["std"],
        "interpolation": card["interpolation"],
        "crop": 1.0,
        "license": card["license"],
        "trained_on": card["trained_on"],
        "accuracy": {"value": IMAGENET_ACCURACY[model], "on": "ImageNet-1k validation, as its authors state it"},
    }


def write_zoo(data: Path, target: str, left_out: set[str]) -> Path:
    """The zoo file of a target: every trained source but those left out, and ImageNet's."""
    entries = []
    for name in RECIPES:
        if name not in left_out:
            card = data / "zoo" / f"{name}.json"
            if not card.exists():
                raise SystemExit(f"There is no source {name} yet: repeat zoo.py until the zoo is complete.")
            entries.append(json.loads(card.read_text(encoding="utf-8")))
    entries += [imagenet_entry(model) for model in IMAGENET_MODELS]
    path = data / "zoo" / f"for-{target}.yaml"
    path.write_text(yaml.safe_dump({"sources": entries}, sort_keys=False), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="+", choices=list(RECIPES), default=list(RECIPES), metavar="NAME")
    parser.add_argument("--minutes", type=float, default=9.0, help="start no source after so many")
    arguments = parser.parse_args()
    (arguments.data / "zoo").mkdir(exist_ok=True)
    started = time.monotonic()
    for name in arguments.only:
        if (arguments.data / "zoo" / f"{name}.json").exists():
            continue
        if time.monotonic() - started > 60 * arguments.minutes:
            print("Time is up; repeat the command to go on.")
            return
        begun = time.monotonic()
        train_source(name, arguments.data)
        card = json.loads((arguments.data / "zoo" / f"{name}.json").read_text(encoding="utf-8"))
        print(f"{name}: {card['accuracy']}, {time.monotonic() - begun:.0f} seconds", flush=True)
    print("The zoo is complete.")


if __name__ == "__main__":
    main()
