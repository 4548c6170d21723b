"""Is our FixMatch FixMatch? The algorithm of USB (PyPI: semilearn) trains the same student on the same batches.

    python benchmarks/peers/install.py             # once
    python benchmarks/suite/fixmatch_check.py      # repeat until it says that it is done; 6 core-minutes a draw

Target, settings and label draws are those of the suite's development targets. What is shared: initial weights, every
batch with its views, learning rates, momentum and weight decay. USB's own are the loss, the threshold's hook, the
optimizer's parameter groups and the average of the weights. Two trainings soon differ, as do two layouts of the same
weights in memory; so the losses are compared on the peer's own weights, too. Written to
benchmarks/results/suite/fixmatch_check.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from peers.install import python_of  # noqa: E402
from potstill.baselines.fixmatch import fixmatch_objective  # noqa: E402
from potstill.data import ViewDataset, open_squares, resized_size  # noqa: E402
from potstill.pipeline.comparison import Comparison, LabelDraw, WholeProgress  # noqa: E402
from potstill.pipeline.methods import parse_method  # noqa: E402
from potstill.pipeline.pool_views import pool_views, rows_of  # noqa: E402
from potstill.pipeline.preparation import cache_dir_of, student_preprocessing  # noqa: E402
from potstill.pipeline.student_training import plan_of  # noqa: E402
from potstill.training.batches import TrainingBatches  # noqa: E402
from potstill.training.optimization import Optimization  # noqa: E402
from potstill.training.schedule import learning_rate  # noqa: E402
from potstill.training.student import Student, build_student  # noqa: E402
from potstill.types import Batch, no_progress  # noqa: E402
from suite.jobs import prepare  # noqa: E402
from suite.run import PROTOCOL, RESULTS, jobs_of  # noqa: E402
from suite.zoo import DATA  # noqa: E402

RATIO, THRESHOLD = 2, 0.95
TARGETS, SEEDS = ("scanned-digits", "lower-case"), 3
LOOKS = (0, 20, 100, 200, 300)  # steps at which the two losses are compared on the peer's weights
PEER = ROOT / "benchmarks" / "peers" / "usb_fixmatch.py"


def opened(target: str, data: Path) -> Comparison:
    """The comparison of one target in which our FixMatch is the only method."""
    protocol = yaml.safe_load(PROTOCOL.read_text(encoding="utf-8"))
    own = {"unlabeled_ratio": RATIO, "threshold": THRESHOLD}
    table = {"targets": [target], "seeds": SEEDS, "settings": {"label_fraction": 0.2}, "methods": ["fixmatch"]}
    protocol |= {"tables": {"fixmatch-check": table}, "settings_of": {"fixmatch": own}}
    (job,) = jobs_of(protocol, "fixmatch-check", data, "cpu")
    return prepare(job)


def write_exercise(comparison: Comparison, draw: LabelDraw, folder: Path) -> None:
    """All that the peer needs for the same training: batches, initial weights, settings, test images and labels."""
    target = draw.target
    config = replace(comparison.config, seed=target.split.seed, unlabeled_ratio=RATIO)
    preprocessing, choice = student_preprocessing(config), parse_method("fixmatch")
    pool, dataset = pool_views(target, config, preprocessing, no_progress)
    plan = plan_of(choice, config, 1)
    steps = int((config.steps or 0) * config.batch_size / plan.cost)
    batches = TrainingBatches(
        dataset,
        target.labels_of(target.split.labeled),
        labeled_rows=rows_of(target.split.labeled, pool),
        pool_size=len(pool),
        plan=plan,
        steps=steps,
        seed=target.split.seed,
        view=config.augment,
    )
    (folder / "batches").mkdir()
    for step in range(steps):
        batch = batches.batch(step)
        parts = {"labeled": batch.labeled_images, "weak": batch.pool_weak, "strong": batch.pool_strong}
        arrays = {name: images.numpy() for name, images in parts.items() if images is not None}
        np.savez(folder / "batches" / f"{step}.npz", labels=batch.labels.numpy(), **arrays)
    student = build_student(
        config.student,
        len(target.classes),
        weights=config.student_weights,
        source_classes={},
        image_size=preprocessing.image_size,
        seed=target.split.seed,
        offline=True,
    )
    save_file(dict(student.model.state_dict()), folder / "initial.safetensors")
    test = target.split.test
    squares = open_squares(
        target,
        test,
        resized_size(preprocessing.image_size, preprocessing.crop),
        interpolation=preprocessing.interpolation,
        cache_dir=cache_dir_of(config),
        workers=config.workers,
        max_packed_bytes=int(config.packed_gb * 1e9),
        progress=no_progress,
    )
    plain = ViewDataset(
        squares,
        test,
        image_size=preprocessing.image_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        seed=0,
        flip=False,
        stored=None,
    )
    rows = np.arange(len(test))
    images = plain.views(rows, "plain", epoch=np.zeros_like(rows), draw=0).numpy()
    np.savez(folder / "test.npz", images=images, labels=target.labels_of(test))
    optimization = Optimization(steps=steps, lr=config.lr, ema=config.ema, weight_decay=config.weight_decay)
    exercise = {
        "model": config.student.removeprefix("timm/"),
        "classes": len(target.classes),
        "threshold": THRESHOLD,
        "labeled": plan.labeled,
        "ratio": RATIO,
        "learning_rates": [learning_rate(step, steps, peak=optimization.lr) for step in range(steps)],
        "momentum": optimization.momentum,
        "weight_decay": optimization.weight_decay,
        "ema": optimization.ema,
        "looks": LOOKS,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
    }
    (folder / "exercise.json").write_text(json.dumps(exercise), encoding="utf-8")


def peer_training(folder: Path) -> dict[str, Any]:
    """USB's FixMatch on the exercise: accuracies, and the losses of the steps that are looked at."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [str(python_of("semilearn")), str(PEER), str(folder)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def loss_differences(folder: Path, theirs: list[list[float]]) -> list[float]:
    """The largest difference of supervised, unlabeled and whole loss at each step looked at, as a share of the whole.

    Our objective gets the weights that the peer had before the step, and the step's batch.
    """
    exercise = json.loads((folder / "exercise.json").read_text(encoding="utf-8"))
    model = timm.create_model(exercise["model"], num_classes=exercise["classes"])
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = (torch.tensor(exercise[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    student, objective = Student(model, {}), fixmatch_objective(threshold=exercise["threshold"])
    found = []
    for step, (supervised, unlabeled, whole) in zip(exercise["looks"], theirs, strict=True):
        model.load_state_dict(load_file(folder / f"look-{step}.safetensors"))
        model.train()
        with np.load(folder / "batches" / f"{step}.npz") as arrays:
            views = {
                name: ((torch.from_numpy(arrays[name]).float() / 255 - mean) / std).contiguous(
                    memory_format=torch.channels_last
                )
                for name in ("labeled", "weak", "strong")
            }
            labels = torch.from_numpy(arrays["labels"])
        with torch.no_grad():
            ours = objective(student, Batch(views["labeled"], labels, None, views["weak"], views["strong"]))
        pairs = ((ours["supervised"], supervised), (ours["unlabeled"], unlabeled), (ours["loss"], whole))
        found.append(max(abs(float(one) - other) for one, other in pairs) / whole)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / "fixmatch_check.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    for target in arguments.targets:
        comparison = opened(target, arguments.data)
        for draw in comparison.draws:
            seed = draw.target.split.seed
            if any((row["target"], row["seed"]) == (target, seed) for row in rows):
                continue
            ours = comparison.run("fixmatch", draw, WholeProgress(no_progress, 1))
            with tempfile.TemporaryDirectory() as folder:
                write_exercise(comparison, draw, Path(folder))
                theirs = peer_training(Path(folder))
                differences = loss_differences(Path(folder), theirs.pop("looks"))
            rows.append(
                {"target": target, "seed": seed, "ours": ours["accuracy"], **theirs, "loss_differences": differences}
            )
            print(rows[-1], flush=True)
            text = json.dumps({"schema": 1, "rows": rows}, indent=1) + "\n"
            file.write_text(text, encoding="utf-8")
    print("It is done.")


if __name__ == "__main__":
    main()
