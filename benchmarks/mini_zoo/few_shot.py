"""Compare generic starts of the student on few-shot tasks: fine-tuning, random start, logistic regression on pixels.

The generic weights are chosen on MNIST (test side); the demo's digits are only reported, never chosen on.

    python benchmarks/mini_zoo/few_shot.py .build-data/student.safetensors [--adopt]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from augment import Variation, move
from loop import normalise
from parts import load_part
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

Task = tuple[Tensor, npt.NDArray[np.int64], npt.NDArray[np.float64]]  # images, labels, the 64 pixels
RESULTS = Path("benchmarks/results/mini_zoo.json")
STUDENT = Path("src/potstill/demo/student.safetensors")
# What a user's fine-tuning does too: a little turning, scaling and shifting; no colour changes, no pens.
FINE_TUNING = Variation(angle=0.15, scale=(0.9, 1.1), shear=0.1, shift=0.08, bend=0, low_resolution=0, noise=0)


def load_task(name: str, data: Path) -> Task:
    """Images float32 `(N, 1, 32, 32)` in [0, 1] scanned with 8 x 8 pixels, labels, the 64 pixels."""
    if name == "demo":
        digits = load_digits()
        low, labels = torch.from_numpy(digits.images / 16).float()[:, None], digits.target
    else:
        part = load_part(data / "parts" / f"{name}.npz").on_side("test")
        low = F.interpolate(torch.from_numpy(part.images).float()[:, None] / 255, size=8, mode="area")
        labels = part.labels
    images = F.interpolate(low, size=32, mode="bilinear", align_corners=False)
    return images, labels, low.flatten(1).double().numpy()


def draw_labels(labels: npt.NDArray[np.int64], a_class: int, seed: int) -> tuple[list[int], list[int]]:
    """Rows that are labeled and rows that are tested (30 %, at most 1,500), by a seed."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    test = order[: min(1500, int(0.3 * len(order)))]
    rest = order[len(test) :]
    chosen = np.concatenate([rest[labels[rest] == label][:a_class] for label in np.unique(labels)])
    return chosen.tolist(), test.tolist()


def fine_tune(model: nn.Module, images: Tensor, labels: Tensor, *, steps: int, lr: float, seed: int) -> nn.Module:
    """Fine-tune the whole net, new classifier included, on a handful of images `(N, 1, 32, 32)`; batches of 64."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    model = model.to(memory_format=torch.channels_last).train()
    for _ in range(steps):
        rows = torch.randint(len(labels), (64,), generator=generator)
        varied = move(images[rows], FINE_TUNING, generator).expand(-1, 3, -1, -1)
        loss = F.cross_entropy(model(normalise(varied)), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def make_student(architecture: str, weights: Path | None, classes: int, seed: int) -> nn.Module:
    """The student with a new classifier, from generic weights or from random ones."""
    torch.manual_seed(seed)
    model = timm.create_model(architecture, num_classes=classes)
    if weights:
        state = {
            key: value.float() if value.is_floating_point() else value for key, value in load_file(weights).items()
        }
        missing, unexpected = model.load_state_dict(state, strict=False)
        head = set(dict(model.get_classifier().named_parameters(prefix="head")))
        if unexpected or len(missing) != len(head):
            raise ValueError(f"{weights} does not fit {architecture}: missing {missing}, unexpected {unexpected}")
    return model


def compare_starts(
    task: Task, architecture: str, weights: Path, *, draws: int, steps: int, lr: float
) -> dict[str, dict[str, float]]:
    """Mean test accuracy over label draws, for 1 and 2 labels a class."""
    images, labels, pixels = task
    targets = torch.from_numpy(labels)
    results: dict[str, dict[str, float]] = {}
    for a_class in (1, 2):
        hits: dict[str, list[float]] = {"logistic regression": [], "random start": [], "generic start": []}
        for seed in range(draws):
            chosen, test = draw_labels(labels, a_class, seed)
            regression = LogisticRegression(max_iter=2000).fit(pixels[chosen], labels[chosen])
            hits["logistic regression"].append(float(regression.score(pixels[test], labels[test])))
            for name, start in (("random start", None), ("generic start", weights)):
                model = make_student(architecture, start, len(np.unique(labels)), seed)
                fine_tune(model, images[chosen], targets[chosen], steps=steps, lr=lr, seed=seed)
                with torch.inference_mode():
                    guesses = model(normalise(images[test].expand(-1, 3, -1, -1))).argmax(1)
                hits[name].append(float((guesses == targets[test]).float().mean()))
        results[f"{a_class} a class"] = {name: round(float(np.mean(values)), 4) for name, values in hits.items()}
    return results


def adopt(weights: Path, figures: dict[str, Any], measured: dict[str, Any]) -> None:
    """Put weights into the package and their figures into the results file."""
    shutil.copyfile(weights, STUDENT)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"sources": {}}
    results["student"] = {**figures, "few_shot": measured}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="written by train_student.py, its figures beside it")
    parser.add_argument("--tasks", nargs="+", default=["handwritten_digits", "demo"], help="parts, or `demo`")
    parser.add_argument("--data", type=Path, default=Path(".build-data"))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--adopt", action="store_true", help="make these the package's student weights")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    figures = json.loads(arguments.weights.with_suffix(".json").read_text())
    measured: dict[str, Any] = {"draws": arguments.draws, "steps": arguments.steps, "lr": arguments.lr, "tasks": {}}
    for task in arguments.tasks:
        measured["tasks"][task] = compare_starts(
            load_task(task, arguments.data),
            figures["architecture"],
            arguments.weights,
            draws=arguments.draws,
            steps=arguments.steps,
            lr=arguments.lr,
        )
        print(task, json.dumps(measured["tasks"][task]), flush=True)
    if arguments.adopt:
        adopt(arguments.weights, figures, measured)


if __name__ == "__main__":
    main()
