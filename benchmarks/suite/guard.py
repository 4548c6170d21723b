"""Would `auto` use the sources: all of them, unrelated ones, shuffled ones? On development targets, without a student.

    python benchmarks/suite/guard.py     # 5 minutes of a core, once the sources have answered

For a target of letters or digits, unrelated sources are those of pictures, and the other way round; ImageNet's are left
out. Written to benchmarks/results/suite/guard.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from potstill.data import redraw_labels  # noqa: E402
from potstill.distillation.stacking import stack_sources  # noqa: E402
from potstill.pipeline.pool_views import rows_of  # noqa: E402
from potstill.pipeline.relatedness import student_features  # noqa: E402
from suite.development import LABELS, development_materials, measure_and_write  # noqa: E402
from suite.run import RESULTS  # noqa: E402
from suite.tasks import TASKS  # noqa: E402
from suite.zoo import RECIPES  # noqa: E402

DRAWS = 3
CHARACTERS = ("letters", "digits")


def measure(data: Path) -> Iterator[dict[str, Any]]:
    """A row for each label draw: held-out cross-entropy in nats of the student's own features and of each zoo."""
    for name, config, material in development_materials(data):
        pool = tuple(sorted(material.target.split.pool))
        features = {
            source: np.asarray(outputs.features[outputs.rows(pool)])
            for source, outputs in material.outputs.items()
            if outputs.features is not None
        }
        characters = TASKS[name].kind in CHARACTERS
        unrelated = [each for each in features if each in RECIPES and (TASKS[each].kind in CHARACTERS) != characters]
        others = np.random.default_rng(0).permutation(len(pool))
        zoos = {
            "own": {"student": student_features(material.target, pool, config)},
            "all": features,
            "unrelated": {each: features[each] for each in unrelated},
            "shuffled": {each: values[others] for each, values in features.items()},
        }
        for labels in LABELS:
            for seed in range(DRAWS):
                target = redraw_labels(material.target, seed, **labels)
                labeled = target.split.labeled
                groups = [target.groups.get(image_id, image_id) for image_id in labeled]
                known = (rows_of(labeled, pool), target.labels_of(labeled), len(target.classes))
                loss = {zoo: stack_sources(each, *known, groups=groups).loss for zoo, each in zoos.items()}
                print(name, labels, seed, loss, flush=True)
                yield {"target": name, **labels, "seed": seed, "held_out_loss": loss}


if __name__ == "__main__":
    measure_and_write(measure, RESULTS / "guard.json", __doc__ or "")
