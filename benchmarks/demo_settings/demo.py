"""Run the demo and keep its summary, so that the figures in the README come from a file.

python benchmarks/demo_settings/demo.py [--output benchmarks/results/demo.json]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from potstill.pipeline.demonstration import SETTINGS, demonstrate
from potstill.reporting import environment_record, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/demo.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = demonstrate(Path(folder) / "demo")
    record = {
        "environment": environment_record(),
        "settings": SETTINGS,
        "summary": results["summary"],
        "references": results["references"],
        "runs": [
            {key: run[key] for key in ("method", "seed", "accuracy", "images_trained")} for run in results["runs"]
        ],
    }
    write_json(arguments.output, record)
    for method, figures in results["summary"].items():
        print(f"{method:24s} {100 * figures['mean']:.1f}")


if __name__ == "__main__":
    main()
