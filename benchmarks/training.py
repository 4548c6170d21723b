"""What training costs: the step, live sources, layouts, the way from files to the student, and the levers, measured.

    python benchmarks/training.py step           # 28 sources beside plain fine-tuning, seconds and memory; 10 minutes
    python benchmarks/training.py live           # cached answers beside live sources; 15 minutes
    python benchmarks/training.py layout         # measured precision and layout beside torch's default; 9 minutes
    python benchmarks/training.py throughput     # images a second from JPEG files; 8 minutes
    python benchmarks/training.py levers_cost    # of mixup, standardised logits, ...; 2 minutes
    python benchmarks/training.py page           # writes what was measured into the tables of docs/training.md

Each call measures one section and merges it into benchmarks/results/training.json; with `--only` only these sources of
`live` or students of `layout` are measured, and others that are in the file stay. The file is written by nothing else.
Drawings for the photos come from benchmarks/new_user; what is made of them lies in .build-data/training, which git
ignores. `training_sections/` holds what is measured.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from potstill.reporting import environment_record
from recording import commit_of
from tables import write_tables
from training_sections.layout import STUDENTS, measure_layout
from training_sections.levers import measure_levers
from training_sections.live import KINDS, measure_live
from training_sections.page import tables_of
from training_sections.photos import packed_photos
from training_sections.step import measure_step
from training_sections.throughput import measure_throughput

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "training.json"
PAGE = ROOT / "docs" / "training.md"
SECTIONS = ("step", "live", "layout", "throughput", "levers_cost")


def main() -> None:
    arguments = _parse()
    if arguments.section == "page":
        write_tables(PAGE, tables_of(json.loads(arguments.output.read_text(encoding="utf-8"))))
        return
    torch.set_num_threads(arguments.threads)
    packed_photos()  # made on first use, outside of what is timed
    started = time.perf_counter()
    with threadpool_limits(arguments.threads):
        found, partial = _measure(arguments)
    record = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.exists() else {"schema": 1}
    measured = {
        "commit": commit_of("benchmarks/training*"),
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
    """What the section found, and whether its keys can be measured one by one."""
    rounds = arguments.rounds
    if arguments.section == "step":
        return measure_step(rounds), False
    if arguments.section == "live":
        return measure_live(arguments.only or tuple(KINDS), rounds), True
    if arguments.section == "layout":
        return measure_layout(arguments.only or tuple(STUDENTS), rounds), True
    if arguments.section == "throughput":
        return measure_throughput(rounds), False
    return measure_levers(rounds), False


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=(*SECTIONS, "page"))
    parser.add_argument("--only", type=lambda text: tuple(text.split(",")), help="sources of live, students of layout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
