"""What it costs to ask sources: throughput, decoding once, random reads, warm ranking, memory, bytes.

    python benchmarks/extraction.py [throughput naive gather bytes warm memory]     # all: about ten minutes
    python benchmarks/extraction.py page      # writes what was measured into the table of docs/sources.md

Each section is merged into benchmarks/results/extraction.json. Photos and weights are made in .build-data/extraction.
Times are medians of interleaved rounds in one process; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from extraction_sections.page import tables_of
from extraction_sections.passes import measure_naive, measure_throughput
from extraction_sections.store import measure_bytes, measure_gather, measure_memory, measure_warm
from potstill.reporting import environment_record
from recording import commit_of
from tables import write_tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "extraction.json"
PAGE = ROOT / "docs" / "sources.md"
SECTIONS = {
    "throughput": measure_throughput,
    "naive": measure_naive,
    "gather": measure_gather,
    "bytes": measure_bytes,
    "warm": measure_warm,
    "memory": measure_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, "page", []], default=[])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if "page" in arguments.sections:
        write_tables(PAGE, tables_of(json.loads(arguments.output.read_text(encoding="utf-8"))))
        return
    torch.set_num_threads(arguments.threads)
    for name in arguments.sections or SECTIONS:
        started = time.perf_counter()
        with threadpool_limits(arguments.threads):
            found = SECTIONS[name]()
        output: Path = arguments.output
        record = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {"schema": 1}
        record[name] = {
            **found,
            "commit": commit_of("benchmarks/extraction*"),
            "environment": {**environment_record(), "threads": arguments.threads},
            "seconds_in_all": round(time.perf_counter() - started, 1),
        }
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(name, {key: value for key, value in found.items() if "over" in key or key in ("ratio", "bytes_a_row")})


if __name__ == "__main__":
    main()
