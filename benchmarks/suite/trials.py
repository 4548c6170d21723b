"""Gather what was tried for our own method on development targets, one label draw each, to one result file.

    python benchmarks/suite/trials.py FOLDER [FOLDER ...]     # run directories: <folder>/<target>/<trial>-seed0/

The trials were made by forms of the code that are gone where they did not pay, so their names say what differed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

OUTPUT = Path(__file__).resolve().parents[1] / "results" / "suite" / "trials.json"
EARLIER_NAMES = {"fused": "stacked"}
MEANINGS = {
    "stacked": "as it is",
    "fused+hard": "the likeliest class instead of probabilities",
    "fused+hand": "handing over to the student by half: softmax(t/2 log p + (1 - t/2) log q)",
    "fused+weak": "a weak view beside the strong one, at half its weight",
    "stacked+1": "the sources' own answers too, as source-space distillation, weight 1",
    "stacked+2": "the sources' own answers too, weight 0.3",
    "stacked+half": "half of a batch labeled instead of a third",
    "stacked+eighth": "an eighth of a batch labeled",
    "self-distilled": "taught by an earlier student instead of the stack, half of the budget each",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    found: dict[str, dict[str, float]] = {}
    for folder in parser.parse_args().folders:
        for file in sorted(folder.glob("*/*-seed0/results.json")):
            record = json.loads(file.read_text(encoding="utf-8"))
            name = EARLIER_NAMES.get(record["method"], record["method"])
            if name in MEANINGS:
                found.setdefault(name, {})[file.parts[-3]] = record["accuracy"]
    trials = [
        {"trial": name, "what": what, "accuracy": found[name]} for name, what in MEANINGS.items() if name in found
    ]
    OUTPUT.write_text(json.dumps({"schema": 1, "trials": trials}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
