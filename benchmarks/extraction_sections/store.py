"""What the store costs: reading rows at random, a warm ranking, memory, bytes a row."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extraction_sections.material import SMALL, photos, zoo
from potstill.cache import extract_outputs
from potstill.cache.encoding import KEPT_CLASSES, encode_logits
from potstill.cache.plan import SHARD_ROWS
from potstill.cache.shards import ShardedRows, open_shard, write_shard
from potstill.config import build_config
from potstill.pipeline.ranking import rank_zoo
from training_sections.timing import compared, interleaved_steps

ROUNDS = 7
ROOT = Path(__file__).resolve().parents[2]


def measure_gather(rows: int = 20_480, width: int = 1000, drawn: int = 256) -> dict[str, Any]:
    """256 random rows of 2,000 bytes: from an entry, from an array in memory, and from a pickle for each image.

    An entry has one shard for as many images as are asked about at once; "grown" has five, as after adding images four
    times.
    """
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, width)).astype(np.float16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stored = _sharded(folder / "one", values, SHARD_ROWS)
        grown = _sharded(folder / "five", values, rows // 5)
        for row in range(rows):
            (folder / f"{row}.pickle").write_bytes(pickle.dumps(values[row]))
        for entry in (stored, grown):
            np.testing.assert_array_equal(entry[np.arange(rows)], values)

        def timed(read: Callable[[np.ndarray], Any], repeats: int) -> Callable[[], float]:
            def run() -> float:
                picks = [rng.integers(0, rows, size=drawn) for _ in range(repeats)]
                started = time.perf_counter()
                for pick in picks:
                    read(pick)
                return (time.perf_counter() - started) / repeats

            return run

        def unpickled(pick: np.ndarray) -> np.ndarray:
            return np.stack([pickle.loads((folder / f"{row}.pickle").read_bytes()) for row in pick])

        found = interleaved_steps(
            {
                "store": timed(lambda pick: stored[pick], 200),
                "grown": timed(lambda pick: grown[pick], 200),
                "memory": timed(lambda pick: values[pick], 200),
                "pickle": timed(unpickled, 4),
            },
            ROUNDS,
        )
    return {
        "rows": rows,
        "bytes_a_row": 2 * width,
        "drawn": drawn,
        **found,
        "memory_over_store": compared(found, "memory", "store"),
        "memory_over_grown": compared(found, "memory", "grown"),
        "pickle_over_store": compared(found, "pickle", "store"),
    }


def _sharded(folder: Path, values: np.ndarray, per_shard: int) -> ShardedRows:
    """The values as rows of shards on disk, in order."""
    folder.mkdir()
    shards = []
    for start in range(0, len(values), per_shard):
        part = values[start : start + per_shard]
        digests = np.zeros((len(part), 32), dtype=np.uint8)
        write_shard(folder / f"{start}.safetensors", {"digests": digests, "features": part})
        shards.append(open_shard(folder / f"{start}.safetensors")["features"])
    rows = np.arange(len(values))
    return ShardedRows(shards, rows // per_shard, rows % per_shard)


def measure_bytes(classes: int = 21_843) -> dict[str, Any]:
    """Bytes that the ten likeliest of many classes take a row."""
    arrays = encode_logits(torch.randn(64, classes), KEPT_CLASSES)
    return {"classes": classes, "kept": KEPT_CLASSES, "bytes_a_row": sum(each.nbytes for each in arrays.values()) / 64}


def measure_warm(images: int = 2000) -> dict[str, Any]:
    """`rank` with an empty cache and with a full one, in one process, after imports."""
    target, sources = photos(images), zoo(SMALL[:6])
    with tempfile.TemporaryDirectory() as folder:
        zoo_file = Path(folder) / "zoo.yaml"
        entries = [
            {
                "name": spec.name,
                "model": spec.model,
                "weights": str(spec.weights),
                "num_classes": 1000,
                "image_size": spec.image_size,
            }
            for spec in sources
        ]
        zoo_file.write_text(json.dumps({"sources": entries}))
        config = build_config(
            {"zoo": str(zoo_file), "cache_dir": Path(folder) / "cache", "metric": "parc", "device": "cpu", "workers": 2}
        )
        seconds, forwards = [], []
        for _ in range(4):
            started = time.perf_counter()
            record = rank_zoo(target.root, config=config)
            seconds.append(time.perf_counter() - started)
            forwards.append(record["forwards"])
    warm = sorted(seconds[1:])[1]
    return {
        "images": images,
        "sources": [spec.name for spec in sources],
        "seconds": seconds,
        "forwards": forwards,
        "warm_over_cold": warm / seconds[0],
    }


def measure_memory(images: int = 500) -> dict[str, Any]:
    """Peak anonymous memory of processes that extract N and 4 N images, sampled twenty times a second."""
    peaks = {count: _peak_of(count) for count in (images, 4 * images)}
    return {
        "images": [images, 4 * images],
        "peak_bytes": list(peaks.values()),
        "ratio": peaks[4 * images] / peaks[images],
    }


def _peak_of(images: int) -> int:
    photos(images)
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); "
    code += f"from extraction_sections.store import extract_all; extract_all({images})"
    process = subprocess.Popen([sys.executable, "-c", code])
    peak = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        peak = max([peak, *(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        time.sleep(0.05)
    if process.wait():
        raise RuntimeError("the extraction that was watched failed")
    return peak


def extract_all(images: int) -> None:
    """Ask three small sources about the photos, with an empty cache."""
    target = photos(images)
    with tempfile.TemporaryDirectory() as folder:
        extract_outputs(target, zoo(SMALL[:3]), sorted(target.files), cache_dir=Path(folder), workers=2)
