"""What a run costs by image: seconds, bytes on disk and memory, measured at sizes that fit one small machine.

    python benchmarks/scale/measure.py growth     # 1,000, 10,000 and 30,000 tiny images; 6 minutes
    python benchmarks/scale/measure.py rates      # photos, a real source and a real student; 1 minute
    python benchmarks/scale/measure.py seeds      # one process beside two, live batch normalisation; 4 minutes
    python benchmarks/scale/model.py              # writes the tables of docs/scale.md from what was measured

Each call measures one section and merges it into benchmarks/results/scale.json. Images lie in .build-data/scale, which
git ignores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from potstill.reporting import environment_record

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from recording import commit_of  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "scale.json"
WORK = ROOT / ".build-data" / "scale"
SIZES = (1_000, 10_000, 30_000)
SECTIONS = ("growth", "rates", "seeds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--threads", type=int, default=1, help="1: figures of one core")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    started = time.perf_counter()
    found = {"growth": growth, "rates": rates, "seeds": seeds}[arguments.section](arguments.threads)
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"schema": 1}
    record[arguments.section] = {
        "measured": {
            "commit": commit_of("benchmarks/scale"),
            "environment": {**environment_record(), "threads": arguments.threads},
            "seconds": round(time.perf_counter() - started, 1),
        },
        "results": found,
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{arguments.section}: {record[arguments.section]['measured']['seconds']} seconds, written to {RESULTS}")


def growth(threads: int) -> dict[str, Any]:
    """Each size in a process of its own, whose memory nothing else has touched."""
    script = Path(__file__).with_name("one_size.py")
    found = {}
    for size in SIZES:
        command = [sys.executable, str(script), str(WORK), str(size), str(threads)]
        found[str(size)] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(size, json.dumps(found[str(size)]), flush=True)
    return found


def rates(threads: int) -> dict[str, Any]:
    from rates import measure_rates

    return measure_rates(WORK)


def seeds(threads: int) -> dict[str, Any]:
    from seeds import measure_seeds

    return measure_seeds(WORK)


if __name__ == "__main__":
    main()
