"""Images a second of one real source, one real student and the decoder, as the model of docs/scale.md takes them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from potstill.baselines.supervised import supervised_objective
from potstill.data import Pixels
from potstill.data.preprocessing import read_square
from potstill.data.views import ViewDataset
from potstill.training.batches import BatchPlan, TrainingBatches
from potstill.training.loop import train_student
from potstill.training.optimization import Optimization
from potstill.training.student import Student

SOURCE, SOURCE_SIDE = "resnet18", 224
STUDENT, STUDENT_SIDE, BATCH, STEPS = "mobilenetv3_small_100", 128, 64, 12
PHOTOS, PHOTO_SIZE = 64, (500, 375)
ROUNDS = 5


def measure_rates(folder: Path) -> dict[str, Any]:
    """Medians of a few rounds, one round of each after the other; random weights, real photos."""
    files = write_photos(folder / "photos")
    source = timm.create_model(SOURCE).eval().to(memory_format=torch.channels_last)
    squares = np.stack(read_squares(files))
    images = torch.randn(32, 3, SOURCE_SIDE, SOURCE_SIDE).contiguous(memory_format=torch.channels_last)

    def ask_source() -> None:
        with torch.inference_mode():
            source(images)

    work: dict[str, tuple[int, Callable[[], Any]]] = {
        "decode": (PHOTOS, lambda: read_squares(files)),
        "source": (len(images), ask_source),
        "student": (BATCH * STEPS, lambda: train(squares)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(ROUNDS + 1):
        for name, (_, call) in work.items():
            started = time.perf_counter()
            call()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    return {
        "images_per_second": {
            name: round(count / statistics.median(seconds[name]), 1) for name, (count, _) in work.items()
        },
        "seconds": seconds,
        "source": f"timm/{SOURCE} at {SOURCE_SIDE} pixels",
        "student": f"timm/{STUDENT} at {STUDENT_SIDE} pixels, batches of {BATCH}",
        "student_params": sum(each.numel() for each in timm.create_model(STUDENT, num_classes=100).parameters()),
        "photo": f"JPEG, {PHOTO_SIZE[0]} x {PHOTO_SIZE[1]}",
        "photo_bytes": round(sum(file.stat().st_size for file in files) / len(files)),
    }


def read_squares(files: Sequence[Path]) -> list[Pixels]:
    """Photos as the commands pack them for the student."""
    return [read_square(file, size=STUDENT_SIDE, interpolation="bicubic", crop=1.0) for file in files]


def write_photos(folder: Path) -> list[Path]:
    """Different crops of scikit-learn's two photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    files = [folder / f"{number:03d}.jpg" for number in range(PHOTOS)]
    for number, file in enumerate(files):
        photo = Image.fromarray(load_sample_images().images[number % 2])
        left, top = random.integers(0, (photo.width - 320, photo.height - 240))
        photo.crop((left, top, left + 320, top + 240)).resize(PHOTO_SIZE).save(file, quality=88)
    return files


def train(squares: np.ndarray) -> None:
    """A few steps of the student with weak views of packed squares, as `distill` takes them."""
    student = Student(timm.create_model(STUDENT, num_classes=100), {})
    names = [str(row) for row in range(len(squares))]
    views = ViewDataset(squares, names, image_size=STUDENT_SIDE, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0)
    labels = np.arange(len(squares)) % 100
    plan = BatchPlan(labeled=BATCH)
    batches = TrainingBatches(views, labels, pool_size=len(squares), plan=plan, steps=STEPS, seed=0)
    train_student(student, batches, supervised_objective(), settings=Optimization(steps=STEPS))
