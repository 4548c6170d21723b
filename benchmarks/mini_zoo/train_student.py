"""Train the generic weights that every method's student starts from, on invented shapes alone.

python benchmarks/mini_zoo/train_student.py [--data .build-data] [--architecture NAME] [--output FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import timm
import torch
from augment import Variation
from loop import save_half, train_classifier
from parts import load_part

ARCHITECTURE = "test_byobnet"
PASSES = 800_000
LR = 3e-3
VARIATION = Variation(shear=0.3, bend=0.08, low_resolution=0.6)
OUTPUT = Path(".build-data/student.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".build-data"))
    parser.add_argument("--architecture", default=ARCHITECTURE)
    parser.add_argument("--passes", type=int, default=PASSES)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    begun = time.process_time()
    # Every recipe takes part: the shapes belong to no other task, so they need no sides.
    part = load_part(arguments.data / "parts" / "shapes.npz")
    model = train_classifier(
        part, arguments.architecture, VARIATION, passes=arguments.passes, seed=arguments.seed, lr=LR
    )
    save_half(model, arguments.output, classifier=False)
    figures = {
        "architecture": arguments.architecture,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "sha256": hashlib.sha256(arguments.output.read_bytes()).hexdigest(),
        "recipes": len(part.classes),
        "pictures": len(part.labels),
        "passes": arguments.passes,
        "seed": arguments.seed,
        "cpu_seconds": round(time.process_time() - begun),
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
    }
    arguments.output.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    print(figures)


if __name__ == "__main__":
    main()
