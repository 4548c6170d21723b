"""One sitting of a training run: from the beginning, or on from where an earlier one was killed.

`measure.py` starts this script in a process of its own and kills it. The script writes the time and the number of every
finished step to a journal, a line each. The run is the distillation of the demo's eight sources, with mixup.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any, TextIO

STEPS = 100
EVERY_SECONDS = 0.5
"""Between checkpoints: the usual 60 seconds would be longer than the run."""


def main() -> None:
    # Spawned workers read this file, too; they need nothing of this.
    from potstill.cache import default_cache_dir
    from potstill.config import build_config
    from potstill.demo import student_weights, write_demo_target
    from potstill.pipeline import student_training
    from potstill.pipeline.demonstration import DISTILLATION, SETTINGS
    from potstill.pipeline.single_student import train_single

    arguments = _parse()
    settings: dict[str, Any] = {**SETTINGS, **DISTILLATION, "overrides": {}, "metric": "parc", "mixup": 0.2}
    settings |= {"student_weights": student_weights(), "steps": STEPS, "device": "cpu"}
    settings |= {"workers": arguments.workers, "worker_start": arguments.start}
    student_training.CheckpointPolicy = partial(student_training.CheckpointPolicy, every_seconds=EVERY_SECONDS)
    with arguments.journal.open("w", encoding="utf-8") as journal:
        train_single(
            write_demo_target(default_cache_dir() / "demo" / "digits"),
            arguments.output,
            config=build_config(settings),
            method="weighted",
            resume=True,
            progress=partial(_write_step, journal),
        )


def _write_step(journal: TextIO, task: str, done: int, total: int) -> None:
    if task.startswith("weighted"):
        journal.write(f"{time.time():.4f} {done}\n")
        journal.flush()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="run directory")
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--start", choices=("thread", "fork", "spawn"), required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
