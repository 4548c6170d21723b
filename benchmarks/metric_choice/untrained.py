"""Features of every source's architecture with random weights, for the labeled images of every draw (KITE needs them).

    python benchmarks/metric_choice/untrained.py

writes `.build-data/metric_choice/untrained/<target>-<budget>-<seed>-<source>.npy`, rows as in the run's own file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from runs import BUDGETS, open_drawn
from targets import TARGETS

import potstill as ps
from potstill.data import normalise, prepare_images
from potstill.sources import open_untrained
from potstill.types import SourceSpec, Target

BATCH_SIZE = 64


def features_untrained(spec: SourceSpec, target: Target, image_ids: Sequence[str]) -> npt.NDArray[np.float32]:
    """`(N, D)` features of the images by the architecture with the random weights of seed 0."""
    source = open_untrained(spec, device="cpu")
    at = source.preprocessing
    parts = []
    for _, pixels in prepare_images(target.files, image_ids, preprocessing=at, workers=1):
        for batch in torch.split(normalise(pixels, at.mean, at.std), BATCH_SIZE):
            parts.append(source.outputs(batch)[0].cpu().numpy())
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".build-data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.data / "metric_choice"
    (folder / "untrained").mkdir(exist_ok=True)
    zoo = ps.load_zoo(folder / "zoo.yaml")
    for name in TARGETS:
        draws = {
            (budget, seed): open_drawn(folder, name, budget, seed, folder / "cache")
            for budget in BUDGETS
            for seed in arguments.seeds
        }
        target = next(iter(draws.values()))
        ids = sorted({image_id for draw in draws.values() for image_id in draw.split.labeled})
        position = {image_id: row for row, image_id in enumerate(ids)}
        for spec in zoo:
            paths = {draw: folder / "untrained" / f"{name}-{draw[0]}-{draw[1]}-{spec.name}.npy" for draw in draws}
            if all(path.exists() for path in paths.values()):
                continue
            features = features_untrained(spec, target, ids)
            for draw, path in paths.items():
                np.save(path, features[[position[image_id] for image_id in draws[draw].split.labeled]])
        print(f"{name}: {len(ids)} images", flush=True)


if __name__ == "__main__":
    main()
