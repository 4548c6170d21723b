"""About a thousand JPEG files like those of a camera phone's thumbnails, and the same images packed.

A photo here is several real drawings of `benchmarks/new_user`, laid over an enlarged piece of another one, with smooth
light and sensor noise: it compresses and decodes like a photograph, which flat or empty pictures do not.
"""

from __future__ import annotations

import functools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from potstill import open_target
from potstill.data import Pixels, ViewDataset, pack_pixels, resized_size
from potstill.data.pixels import open_squares, packed_bytes
from potstill.types import Target

ROOT = Path(__file__).resolve().parents[2]
DRAWINGS = ROOT / ".build-data" / "new_user" / "photos"
FOLDER = ROOT / ".build-data" / "training"
PHOTOS = FOLDER / "photos"

WIDTH, HEIGHT, QUALITY = 500, 375, 90
IMAGE_SIZE = 128
SIDE = resized_size(IMAGE_SIZE, 1.0)  # as the commands pack them: a student sees the whole square
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@functools.cache
def open_photos() -> Target:
    """The folder of photos, made on first use (20 seconds)."""
    if not PHOTOS.exists():
        _make_photos()
    return open_target(PHOTOS, test_fraction=0.0)


@functools.cache
def packed_photos() -> Pixels:
    """All photos as squares `(N, SIDE, SIDE, 3)`, mapped from disk."""
    target = open_photos()
    return pack_pixels(target, image_ids(), SIDE, cache_dir=FOLDER / "cache", workers=2)


def image_ids() -> tuple[str, ...]:
    """The photos in the order of the rows of everything here."""
    return tuple(sorted(open_photos().split.pool))


def labels_of_photos() -> npt.NDArray[np.int64]:
    """The class of every photo."""
    return open_photos().labels_of(image_ids())


def views_of_photos(*, packed: bool = True) -> ViewDataset:
    """Views at IMAGE_SIZE, from the packed squares or decoded from the files whenever they are wanted."""
    squares = packed_photos() if packed else open_squares(open_photos(), image_ids(), SIDE, max_packed_bytes=0)
    return ViewDataset(squares, image_ids(), image_size=IMAGE_SIZE, mean=MEAN, std=STD, seed=0, flip=True)


def measure_packing() -> dict[str, Any]:
    """Seconds to decode and pack all photos, with no cache to find them in, and what they need."""
    target, ids = open_photos(), image_ids()
    files = [target.files[image_id] for image_id in ids]
    found: dict[str, Any] = {
        "images": len(ids),
        "bytes_of_files": sum(Path(file).stat().st_size for file in files),
        "bytes_packed": packed_bytes(len(ids), SIDE),
        "side": SIDE,
        "seconds": {},
    }
    for workers in (0, 2):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            pack_pixels(target, ids, SIDE, cache_dir=folder, workers=workers)
            found["seconds"][f"{workers} workers"] = time.perf_counter() - started
    return found


def _make_photos() -> None:
    drawings = sorted(DRAWINGS.glob("*/*.png"))
    if not drawings:
        raise SystemExit(f"{DRAWINGS} holds no drawings; run `python benchmarks/new_user/build.py` first")
    temporary = FOLDER / "photos.unfinished"
    for number, path in enumerate(drawings):
        folder = temporary / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(number)
        others = [drawings[other] for other in generator.integers(len(drawings), size=3)]
        _photo(path, others, generator).save(folder / f"{path.stem}.jpg", quality=QUALITY)
    temporary.rename(PHOTOS)


def _photo(path: Path, others: list[Path], generator: np.random.Generator) -> Image.Image:
    """The drawing large, two others small, over a blown-up corner of a third."""
    left, top = generator.integers(0, 40, size=2).tolist()
    with Image.open(others[0]) as far:
        scene = far.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, (left, top, left + 24, top + 18))
    for near, side in ((others[1], 110), (others[2], 90), (path, 260)):
        with Image.open(near) as drawing:
            large = drawing.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        # Drawings lie on white, which shows the scene instead.
        mask = Image.fromarray(np.where(np.asarray(large).min(axis=2) < 245, 255, 0).astype(np.uint8))
        place = (int(generator.integers(WIDTH - side)), int(generator.integers(HEIGHT - side)))
        scene.paste(large, place, mask)
    light = np.asarray(
        Image.fromarray(generator.uniform(0.6, 1.2, size=(4, 5)).astype(np.float32)).resize((WIDTH, HEIGHT))
    )
    noise = generator.normal(scale=6.0, size=(HEIGHT, WIDTH, 3))
    pixels = np.asarray(scene, dtype=np.float32) * light[:, :, None] + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
