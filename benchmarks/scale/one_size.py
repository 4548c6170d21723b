"""One run over N tiny images, stage by stage: seconds, memory and bytes on disk, as one JSON line.

python benchmarks/scale/one_size.py FOLDER N THREADS
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from potstill.config import RunConfig, build_config
from potstill.data import write_splits
from potstill.pipeline.methods import parse_method
from potstill.pipeline.pool_clusters import settle_clusters
from potstill.pipeline.pool_views import pool_views
from potstill.pipeline.preparation import (
    cache_dir_of,
    gather_material,
    open_configured,
    resolve_config,
    student_preprocessing,
)
from potstill.pipeline.ranking import rank_material
from potstill.pipeline.source_use import source_answers, source_weights
from potstill.pipeline.student_training import train_gradients
from potstill.pipeline.together import TASK, TrainingTask, task_bytes
from potstill.types import no_progress

STUDENT = "test_efficientnet"
SOURCES = {"one": ("test_resnet", 1000), "two": ("test_vit", 1000), "three": ("test_efficientnet", 100)}
SIDE = 16
STEPS = 60


def write_images(folder: Path, count: int) -> None:
    """Scanned digits, each with noise of its own so that no two files are equal; made once."""
    digits = load_digits()
    random = np.random.default_rng(0)
    for number in range(count):
        row = number % len(digits.images)
        file = folder / str(digits.target[row]) / f"{number:08d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = digits.images[row].repeat(2, 0).repeat(2, 1) * 14 + random.integers(0, 32, (SIDE, SIDE))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, compress_level=1)


def write_models(folder: Path) -> Path:
    """Random weights of timm's smallest models: what they say costs as much as what a trained one says."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    lines = ["sources:"]
    for name, (model, classes) in SOURCES.items():
        size = {"img_size": 32} if "vit" in model else {}
        save_file(timm.create_model(model, num_classes=classes, **size).state_dict(), folder / f"{name}.safetensors")
        entry = f"name: {name}, model: timm/{model}, weights: {name}.safetensors, num_classes: {classes}"
        lines.append(f"  - {{{entry}, image_size: 32, license: none}}")
    save_file(timm.create_model(STUDENT, num_classes=0).state_dict(), folder / "student.safetensors")
    (folder / "zoo.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "zoo.yaml"


def memory(name: str = "VmRSS") -> int:
    """Bytes of this process that are in memory and its own (of mapped files, only what was read)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


class Stages:
    """Runs one stage after the other and notes what each took and left behind in memory."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        before, started = memory("RssAnon"), time.perf_counter()
        outcome = work()
        seconds = time.perf_counter() - started
        self.found[name] = {"seconds": round(seconds, 4), "anonymous_bytes": memory("RssAnon") - before}
        return outcome


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Every stage of `distill`, in its order."""
    data, cache, output = folder / f"images-{count}", folder / f"cache-{count}", folder / f"run-{count}"
    if not data.exists():
        write_images(data, count)
    for each in (cache, output):
        shutil.rmtree(each, ignore_errors=True)
    output.mkdir()
    config = build_config(
        {
            "zoo": str(write_models(folder / "models")),
            "student": f"timm/{STUDENT}",
            "student_weights": folder / "models" / "student.safetensors",
            "image_size": 32,
            "labels_per_class": 10,
            "steps": STEPS,
            "device": "cpu",
            "cache_dir": cache,
            "offline": True,
        }
    )
    stages = Stages()
    warm_up(config, folder)
    target = stages.run("open", lambda: open_configured(data, config))
    config = resolve_config(config, target)
    preprocessing = student_preprocessing(config)
    material = stages.run("extract", lambda: gather_material(target, config))
    ranking = stages.run("rank", lambda: rank_material(material, target, config))
    choice = parse_method("weighted")
    weights = source_weights(choice, ranking, config)
    stages.run("splits", lambda: write_splits(target, output / "splits.csv"))
    pool, _ = stages.run("pack", lambda: pool_views(target, config, preprocessing, no_progress))
    if weights is None:
        raise ValueError("the method weighted has source weights")
    clusters = stages.run("clusters", lambda: settle_clusters(material, weights.used, pool, cache_dir_of(config)))
    stages.run("answers", lambda: source_answers(material, weights, pool, config, clusters=clusters))
    trained = stages.run(
        "train",
        lambda: train_gradients(
            choice, target, material, weights, config, preprocessing, directory=output, progress=no_progress
        ),
    )
    task = TrainingTask(choice.name, target, weights, config, preprocessing, output)
    stages.run("task", lambda: (output / TASK).write_bytes(task_bytes(task)))
    stages.run("open_again", lambda: open_configured(data, config))
    return {
        "stages": stages.found,
        "pool": len(pool),
        "sources": len(material.outputs),
        "widths": {name: [each.features.shape[1], each.logits.num_classes] for name, each in material.outputs.items()},
        "student_rows_per_second": round(trained.images_seen / trained.seconds, 1),
        "peak_bytes": memory("VmHWM"),
        "disk_bytes": {
            "outputs": bytes_in(cache / "outputs"),
            "pixels": bytes_in(cache / "pixels"),
            "splits": (output / "splits.csv").stat().st_size,
            "task": (output / TASK).stat().st_size,
        },
        "squares_side": preprocessing.image_size,
    }


def warm_up(config: RunConfig, folder: Path) -> None:
    """A tiny run of everything, so that imports and first calls are not counted."""
    data, cache = folder / "images-warm", folder / "cache-warm"
    if not data.exists():
        write_images(data, 100)
    shutil.rmtree(cache, ignore_errors=True)
    config = replace(config, cache_dir=cache, labels_per_class=3)
    target = open_configured(data, config)
    config = replace(resolve_config(config, target), steps=3)
    material = gather_material(target, config)
    ranking = rank_material(material, target, config)
    choice = parse_method("weighted")
    weights = source_weights(choice, ranking, config)
    directory = folder / "run-warm"
    shutil.rmtree(directory, ignore_errors=True)
    train_gradients(
        choice,
        target,
        material,
        weights,
        config,
        student_preprocessing(config),
        directory=directory,
        progress=no_progress,
    )


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))) + "\n")
