"""How fast, how exact, how large and how sure: the similarity metrics measured.

    python benchmarks/similarity.py speed        # beside ports of public code; a table of 28 sources; about 4 minutes
    python benchmarks/similarity.py agreement    # with slow references; what public code gets wrong; 2 minutes
    python benchmarks/similarity.py scale        # up to 20,000 images, each in a process of its own
    python benchmarks/similarity.py intervals    # coverage of 95 % intervals in simulations

Each call measures one section and merges it into benchmarks/results/similarity.json; with `--metrics` only these of
`scale` and `intervals` are measured, and others that are in the file stay. The file is written by nothing else.
`similarity_ports/` holds public formulas written anew, one a file; `similarity_sections/` what is measured.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from potstill.reporting import environment_record
from recording import commit_of
from similarity_sections.agreement import measure_agreement
from similarity_sections.intervals import CHEAP, measure_intervals
from similarity_sections.scale import METRICS, SIZES, measure_scale
from similarity_sections.speed import measure_speed

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "similarity.json"


def main() -> None:
    arguments = _parse()
    started = time.perf_counter()
    with threadpool_limits(arguments.threads):
        found, partial = _measure(arguments)
    record = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.exists() else {"schema": 1}
    measured = {
        "commit": commit_of("benchmarks/similarity*", "tests/similarity"),
        "environment": {**environment_record(), "threads": arguments.threads},
        "seconds": round(time.perf_counter() - started, 1),
    }
    # A part of a section has its own commit and machine, like a whole one.
    if partial:
        section = record.setdefault(arguments.section, {})
        section.update({name: {"measured": measured, "results": each} for name, each in found.items()})
    else:
        record[arguments.section] = {"measured": measured, "results": found}
    arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{arguments.section}: {measured['seconds']} seconds, written to {arguments.output}")


def _measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """What the section found, and whether its keys are metrics that can be measured one by one."""
    if arguments.section == "speed":
        return measure_speed(arguments.rounds), False
    if arguments.section == "agreement":
        return measure_agreement(), False
    if arguments.section == "scale":
        sizes = tuple(size for size in SIZES if size <= arguments.images)
        return measure_scale(arguments.metrics or METRICS, sizes, arguments.threads), True
    return measure_intervals(arguments.metrics or CHEAP, arguments.simulations, arguments.threads), True


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=["speed", "agreement", "scale", "intervals"])
    parser.add_argument("--metrics", type=lambda text: tuple(text.split(",")), help="of scale or intervals, a,b,c")
    parser.add_argument("--rounds", type=int, default=7, help="of speed")
    parser.add_argument("--images", type=int, default=20_000, help="most images of scale")
    parser.add_argument("--simulations", type=int, default=300, help="of intervals, for each metric and setting")
    parser.add_argument("--threads", type=int, default=2, help="of linear algebra; processes of intervals")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
