"""How should the stack weigh its sources? Schemes side by side on development targets; no student is trained.

    python benchmarks/suite/stack_weights.py     # 10 minutes of a core, once the sources have answered

A probe is fitted on the joint features of the sources, weighted by a scheme, and asked about the test part; neighbours
do not share their predictions here, and features are standardised over pool and test part. Written to
benchmarks/results/suite/stack_weights.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from potstill.data import redraw_labels  # noqa: E402
from potstill.distillation.stacking import judge_source, unit_directions  # noqa: E402
from potstill.pipeline.preparation import Material  # noqa: E402
from potstill.probes import fit_probe, probe_logits  # noqa: E402
from potstill.types import Target  # noqa: E402
from suite.development import LABELS, development_materials, measure_and_write  # noqa: E402
from suite.run import RESULTS  # noqa: E402

DRAWS = 5
Floats = npt.NDArray[np.float64]

# From held-out accuracy and cross-entropy in nats `(S,)` of the sources' own probes to weights; only ratios count.
SCHEMES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "all alike": lambda accuracy, loss: np.ones_like(accuracy),
    "accuracy^4": lambda accuracy, loss: accuracy**4,
    "accuracy^8": lambda accuracy, loss: accuracy**8,
    "accuracy^16": lambda accuracy, loss: accuracy**16,
    "exp(-loss)^2": lambda accuracy, loss: np.exp(-2 * loss),
    "exp(-loss)^4": lambda accuracy, loss: np.exp(-4 * loss),
    "exp(-loss)^8": lambda accuracy, loss: np.exp(-8 * loss),
    "(accuracy exp(-loss))^2": lambda accuracy, loss: (accuracy * np.exp(-loss)) ** 2,
    "(accuracy exp(-loss))^4": lambda accuracy, loss: (accuracy * np.exp(-loss)) ** 4,
}


def accuracies(material: Material, target: Target) -> dict[str, float]:
    """Scheme -> accuracy on the test part, on one label draw."""
    pool, test, labeled = sorted(target.split.pool), list(target.split.test), target.split.labeled
    position = {image_id: row for row, image_id in enumerate(pool)}
    rows, labels = np.array([position[image_id] for image_id in labeled]), target.labels_of(labeled)
    groups = np.unique([target.groups.get(image_id, image_id) for image_id in labeled], return_inverse=True)[1]
    directions, accuracy, loss = [], [], []
    for outputs in material.outputs.values():
        if outputs.features is not None:
            found = unit_directions(np.asarray(outputs.features[outputs.rows((*pool, *test))]))
            held_out = judge_source(found[rows], labels, len(target.classes), groups)
            if held_out is None:
                raise SystemExit(f"{target.name}: no labeled image can be held out")
            directions.append(found)
            accuracy.append(held_out[0])
            loss.append(held_out[1])
    right = {}
    for name, scheme in SCHEMES.items():
        weights = scheme(np.array(accuracy), np.array(loss))
        scales = np.sqrt(weights / weights.max()).astype(np.float32)
        joined = np.concatenate([scale * each for scale, each in zip(scales, directions, strict=True)], axis=1)
        probe = fit_probe(joined[rows], labels, len(target.classes), groups=groups)
        probs = softmax(probe_logits(probe, joined[len(pool) :]), axis=1)
        right[name] = float((probs.argmax(axis=1) == target.labels_of(tuple(test))).mean())
    return right


def measure(data: Path) -> Iterator[dict[str, Any]]:
    """A row for each target and number of labels: mean test accuracy of every scheme."""
    for name, _, material in development_materials(data):
        for labels in LABELS:
            found = [accuracies(material, redraw_labels(material.target, seed, **labels)) for seed in range(DRAWS)]
            means = {scheme: float(np.mean([each[scheme] for each in found])) for scheme in SCHEMES}
            yield {"target": name, **labels, "draws": DRAWS, "accuracy": means}
            print(name, labels, {scheme: round(100 * mean, 1) for scheme, mean in means.items()}, flush=True)


if __name__ == "__main__":
    measure_and_write(measure, RESULTS / "stack_weights.json", __doc__ or "")
