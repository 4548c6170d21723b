"""How fast answers come: beside the bare forward pass, and beside one pass over the files for every source."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from extraction_sections.material import LARGE, MEAN, SIZE, SMALL, STD, photos, source, zoo
from potstill.cache import ImageReader, extract_outputs
from potstill.cache.choices import choose
from potstill.data import normalise, prepare_images
from potstill.sources import open_source
from training_sections.timing import compared, interleaved_steps

ROUNDS = 7
BATCH = 64
WORKERS = 2


def measure_throughput(images: int = 1024, rounds: int = 5) -> dict[str, Any]:
    """A source of the size of a ResNet-18 at 224 pixels: from JPEG files to the cache, and forward passes alone.

    These in the batches that an extraction of so many images takes, of the model as it is published and of that with
    batch norm folded in, which is what an extraction asks. Opening the source is part of the extraction.
    """
    target = photos(images)
    ids = sorted(target.files)
    published, folded = open_source(source(LARGE)), open_source(source(LARGE)).fused()  # type: ignore[union-attr]
    batch_size = choose(published, images).batch_size
    batches = prepare_images(
        target.files, ids, preprocessing=folded.preprocessing, batch_size=batch_size, workers=WORKERS
    )
    tensors = [normalise(pixels, MEAN, STD) for _, pixels in batches]

    def forward(opened: Any) -> float:
        started = time.perf_counter()
        for batch in tensors:
            opened.outputs(batch)
        return time.perf_counter() - started

    timed = interleaved_steps(
        {
            "extract": lambda: _extract((LARGE,), images)[0],
            "forward": lambda: forward(published),
            "folded": lambda: forward(folded),
        },
        rounds,
    )
    return {
        "images": images,
        "source": LARGE,
        "batch_size": batch_size,
        **timed,
        "forward_over_extract": compared(timed, "forward", "extract"),
        "folded_over_extract": compared(timed, "folded", "extract"),
    }


def measure_naive(images: int = 128) -> dict[str, Any]:
    """Eight small sources: all at once, and each by a pass of its own as a DataLoader of torchvision's makes it."""
    decoded = _extract(SMALL, images)[1]
    timed = interleaved_steps(
        {"potstill": lambda: _extract(SMALL, images)[0], "naive": partial(_naive, SMALL, images)}, ROUNDS
    )
    return {
        "images": images,
        "sources": list(SMALL),
        "decoded": decoded,
        **timed,
        "naive_over_potstill": compared(timed, "naive", "potstill"),
    }


def _extract(architectures: tuple[str, ...], images: int) -> tuple[float, int]:
    """Seconds from files to answers in an empty cache, models loaded on the way, and files decoded."""
    target = photos(images)
    reader = ImageReader(target.files)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        extract_outputs(
            target,
            zoo(architectures),
            sorted(target.files),
            cache_dir=Path(folder),
            workers=WORKERS,
            reader=reader,
        )
        return time.perf_counter() - started, reader.decoded


def _naive(architectures: tuple[str, ...], images: int) -> float:
    prepared = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(SIZE), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in architectures:
            model = timm.create_model(name, num_classes=1000)
            model.load_state_dict(load_file(source(name).weights))  # type: ignore[arg-type]
            model.eval()
            loader = DataLoader(ImageFolder(photos(images).root, prepared), batch_size=BATCH, num_workers=WORKERS)
            rows = []
            with torch.inference_mode():
                for batch, _ in loader:
                    features = model.forward_head(model.forward_features(batch), pre_logits=True)
                    rows.append((features.numpy(), model.get_classifier()(features).numpy()))
            for number, kind in enumerate(("features", "logits")):
                np.save(Path(folder) / f"{name}-{kind}.npy", np.concatenate([row[number] for row in rows]))
    return time.perf_counter() - started
