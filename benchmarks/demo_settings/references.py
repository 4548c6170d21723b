"""Rivals of the demo's rivals: are `transfer` and `fixmatch` in the demo honest opponents?

python benchmarks/demo_settings/references.py [--output benchmarks/results/demo_references.json]

On the demo's own split and label draws: logistic regression on the 64 pixels, scikit-learn's label spreading on the
pixels of labeled and unlabeled training images with both of its kernels, and the demo's `transfer` from random instead
of generic weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading

from potstill.cache import default_cache_dir
from potstill.config import build_config
from potstill.data import open_target, read_image, redraw_labels
from potstill.demo import STUDENT, student_weights, write_demo_target
from potstill.pipeline import compare
from potstill.pipeline.demonstration import SETTINGS
from potstill.reporting import environment_record
from potstill.types import Target

SEEDS = 5


def pixels(target: Target, image_ids: tuple[str, ...]) -> np.ndarray:
    """The 64 grey values of each image in 0..1."""
    return np.stack([read_image(target.files[image_id])[..., 0].ravel() for image_id in image_ids]) / 255


def pixel_accuracies(target: Target) -> dict[str, float]:
    """Accuracy on the test part of what learns from pixels."""
    split = target.split
    labeled, pool, test = (pixels(target, ids) for ids in (split.labeled, split.pool, split.test))
    labels, truth = target.labels_of(split.labeled), target.labels_of(split.test)
    partial = np.concatenate([labels, np.full(len(split.unlabeled), -1)])
    # An image that no chain of neighbours joins to a label has no distribution; scikit-learn then divides by zero.
    with np.errstate(invalid="ignore"):
        models = _fitted_models(labeled, labels, pool, partial)
        return {name: float((model.predict(test) == truth).mean()) for name, model in models.items()}


def _fitted_models(labeled: np.ndarray, labels: np.ndarray, pool: np.ndarray, partial: np.ndarray) -> dict[str, Any]:
    return {
        "logistic regression": LogisticRegression(max_iter=5000).fit(labeled, labels),
        "label spreading, knn": LabelSpreading(kernel="knn", n_neighbors=7, max_iter=200).fit(pool, partial),
        "label spreading, rbf": LabelSpreading(kernel="rbf", gamma=2.0, max_iter=200).fit(pool, partial),
    }


def transfer_from_random_weights(data: Path) -> dict[str, Any]:
    """The demo's `transfer` with a random backbone, and the demo's own for comparison."""
    outcome = {}
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        random = Path(folder) / "random.safetensors"
        save_file(timm.create_model(STUDENT.removeprefix("timm/"), num_classes=0).state_dict(), random)
        for name, weights in (("random weights", random), ("generic weights", student_weights())):
            config = build_config({**SETTINGS, "student_weights": weights})
            results = compare(data, Path(folder) / name, config=config, methods=["transfer"], seeds=SEEDS)
            outcome[name] = [run["accuracy"] for run in results["runs"]]
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/demo_references.json"))
    arguments = parser.parse_args()
    data = write_demo_target(default_cache_dir() / "demo" / "digits")
    target = open_target(data, labels_per_class=SETTINGS["labels_per_class"])
    draws = [
        pixel_accuracies(redraw_labels(target, seed, labels_per_class=SETTINGS["labels_per_class"]))
        for seed in range(SEEDS)
    ]
    accuracies = {name: [draw[name] for draw in draws] for name in draws[0]}
    accuracies.update({f"transfer, {name}": values for name, values in transfer_from_random_weights(data).items()})
    record = {
        "environment": environment_record(),
        "seeds": SEEDS,
        "accuracy": {name: {"mean": float(np.mean(each)), "by_seed": each} for name, each in accuracies.items()},
    }
    arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, each in record["accuracy"].items():
        print(f"{name:32s} {100 * each['mean']:.1f}")


if __name__ == "__main__":
    main()
