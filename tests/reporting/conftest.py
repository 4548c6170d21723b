"""A made-up comparison with the shape of a real one: results, ranking and a whole directory on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from potstill.evaluation import RunPredictions, classification_metrics, summarise_runs
from potstill.reporting import write_json, write_predictions

CLASSES = ("healthy", "leaf rust", "powdery mildew", "septoria", "yellow dwarf", "tan spot")
METHODS = {
    "transfer": 1.1,
    "probe": 1.0,
    "fixmatch": 1.3,
    "equal": 1.5,
    "nearest": 1.7,
    "weighted": 1.9,
    "ceiling": 2.6,
}
WEIGHTS = {"plants": 0.55, "insects": 0.25, "imagenet": 0.15, "letters": 0.05}


def made_up_ranking() -> dict:
    rows = []
    for rank, (name, score) in enumerate(
        {"plants": 0.612, "insects": 0.487, "imagenet": 0.402, "letters": 0.118}.items()
    ):
        rows.append(
            {
                "name": name,
                "score": score,
                "ci95": [score - 0.06, score + 0.05],
                "scores": {
                    "parc": {"score": score, "ci95": [score - 0.06, score + 0.05], "error": None},
                    "knn": {"score": score + 0.1, "ci95": None, "error": None},
                },
                "rank_probability": [0.93, 0.06, 0.01, 0.0][rank],
                "p_value": 0.01,
                "baselines": {"params": 3_400_000.0 + 1_000_000 * rank, "depth": 50.0},
                "seconds": 0.02,
                "extract_seconds": 12.5 + rank,
                "params": 3_400_000 + 1_000_000 * rank,
                "license": ["Apache-2.0", "MIT", "Apache-2.0", "OFL-1.1"][rank],
                "error": None,
            }
        )
    rows.append(
        {"name": "broken", "score": None, "ci95": None, "scores": {}, "rank_probability": None, "seconds": 0.0}
        | {"extract_seconds": None, "params": None, "license": None, "error": "the weights file is missing"}
    )
    agreement = {"parc": {"parc": 1.0, "knn": 0.6667, "params": -1.0, "depth": None}}
    return {
        "schema": 1,
        "metric": "parc",
        "scoring_images": 120,
        "forwards": 7200,
        "resamples": 200,
        "decided": False,
        "tied_with_first": ["insects"],
        "permutations": 99,
        "related": True,
        "agreement": agreement,
        "sources": rows,
    }


def write_run(folder: Path, method: str, seed: int, classes=CLASSES, images: int = 180) -> tuple[dict, RunPredictions]:
    generator = np.random.default_rng([seed, len(method), ord(method[0])])
    ids = [f"photos/{row:04d}.jpg" for row in range(images)]
    labels = np.arange(images) % len(classes)
    logits = np.random.default_rng(7).normal(size=(images, len(classes))) + generator.normal(
        size=(images, len(classes))
    )
    logits[np.arange(images), labels] += METHODS.get(method, 1.0)
    logits[labels == 1, 3] += 0.9
    probs = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    folder.mkdir(parents=True)
    write_predictions(folder / "predictions.parquet", ids, labels, probs, classes)
    lines = []
    for step in range(0, 300, 3):
        decay = np.exp(-step / 90)
        terms = {"labeled": 1.8 * decay + 0.05}
        if method in WEIGHTS or method in {"equal", "nearest", "weighted"}:
            terms["distillation"] = 2.4 * decay + 0.9
        terms = {name: value * (1 + 0.05 * generator.normal()) for name, value in terms.items()}
        line = {
            "step": step,
            "progress": step / 300,
            "loss": sum(terms.values()),
            **terms,
            "lr": 0.01,
            "seconds": step / 9,
        }
        lines.append(json.dumps(line))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = {
        "schema": 1,
        "method": method,
        "seed": seed,
        "status": "done",
        "path": folder.name,
        **classification_metrics(probs, labels),
        "images_seen": 28_800,
        "images_trained": 19_200 if method == "fixmatch" else 28_800,
        "labels_used": 600 if method == "ceiling" else 120,
        "train_seconds": 62.0 + 3 * seed + 10 * len(method),
        "student": {"name": "timm/mobilenetv3_small_100", "params": 1_523_000, "macs": 56_510_400},
        "weights": WEIGHTS if method == "weighted" else None,
    }
    write_json(folder / "results.json", run)
    return run, RunPredictions(method, seed, tuple(ids), probs.argmax(axis=1) == labels)


def write_comparison(root: Path, methods=tuple(METHODS), seeds: int = 3, classes=CLASSES, draws: int = 500) -> dict:
    pairs = [write_run(root / f"{m}-seed{s}", m, s, classes) for m in methods for s in range(seeds)]
    results = {
        "schema": 1,
        "target": "wheat-leaves",
        "classes": list(classes),
        "split_sha256": "0" * 64,
        "runs": [run for run, _ in pairs],
        "summary": summarise_runs([predictions for _, predictions in pairs], draws=draws),
        "references": [
            {"name": "source-probe", "source": "plants", "seed": s, "accuracy": 0.58 + 0.01 * s, "params": 3_400_000}
            | {"macs": 220_000_000, "seconds": 1.4}
            for s in range(seeds)
        ],
    }
    write_json(root / "results.json", results)
    write_json(root / "ranking.json", made_up_ranking())
    write_json(
        root / "environment.json", {"potstill": "0.1.0", "packages": {"torch": "2.6.0"}, "cpu": "made up", "gpu": None}
    )
    (root / "config.yaml").write_text("student: timm/mobilenetv3_small_100\nseeds: 3\n", encoding="utf-8")
    return results


@pytest.fixture(scope="session")
def comparison(tmp_path_factory) -> Path:
    """A comparison of seven methods and three seeds; read only."""
    root = tmp_path_factory.mktemp("comparison")
    write_comparison(root)
    return root


@pytest.fixture
def ranking() -> dict:
    return made_up_ranking()


@pytest.fixture
def make_comparison():
    """`write_comparison(root, methods, seeds, classes, draws)`."""
    return write_comparison


@pytest.fixture
def make_run():
    """`write_run(folder, method, seed, classes, images)`."""
    return write_run
