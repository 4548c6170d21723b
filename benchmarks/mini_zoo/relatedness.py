"""Show how related each finished source is to the demo's digits: PARC on few labels, and 1-NN with all labels.

For information only: nothing in the zoo was chosen by these numbers.

    PYTHONPATH=src python benchmarks/mini_zoo/relatedness.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from catalogue import RECIPES
from few_shot import RESULTS, draw_labels, load_task
from loop import normalise, pooled_features
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from train_sources import ZOO, reload

from potstill.similarity import parc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images, labels, _ = load_task("demo", Path())
    results = json.loads(RESULTS.read_text())
    for name, recipe in RECIPES.items():
        if name not in results["sources"]:
            continue
        model = reload(recipe.architecture, ZOO / f"{name}.safetensors", len(results["sources"][name]["classes"]))
        features = pooled_features(model, normalise(images.expand(-1, 3, -1, -1))).double().numpy()
        nearest = cross_val_score(
            KNeighborsClassifier(1), StandardScaler().fit_transform(features), labels, cv=5
        ).mean()
        chosen = [draw_labels(labels, 2, seed)[0] for seed in range(arguments.draws)]
        scores = [round(float(parc(features[rows], labels[rows])), 3) for rows in chosen]
        print(f"{name:18s} 1-NN {nearest:.3f}  PARC of 20 labels, draw by draw: {scores}", flush=True)


if __name__ == "__main__":
    main()
