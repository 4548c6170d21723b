"""What users of other tools pay for a training step, and what users of Potstill pay: processes in turns.

    python benchmarks/peers/install.py              # once
    python benchmarks/peers/measure.py              # 7 rounds, about 15 minutes on two quiet cores
    python benchmarks/peers/measure.py --page       # only writes the table of docs/training.md
    python benchmarks/peers/measure.py --rounds 1 --only "potstill supervised;timm supervised" --output trial.json

A round starts every variant once, each in a process of its own in the environment of its tool; it warms up and
reports the seconds of its steps. The result goes to benchmarks/results/peers.json, which nothing else writes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import workload
from install import PEERS, python_of

from potstill.reporting import environment_record

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from recording import commit_of  # noqa: E402
from tables import table, write_tables  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
PAGE = ROOT / "docs" / "training.md"
Records = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Variant:
    """One kind of step: the peer's environment (None is Potstill's own), the script, its variant, and how many steps.

    `beside` is the variant of ours that does the same work or more.
    """

    peer: str | None
    script: str
    variant: str
    steps: int = 7
    warmup: int = 3
    beside: str | None = None


SUPERVISED, DISTILLED, FIXMATCH = "potstill supervised", "potstill 28 sources", "potstill fixmatch"
VARIANTS = {
    SUPERVISED: Variant(None, "ours.py", "supervised"),
    "timm supervised": Variant("timm", "timm_step.py", "supervised", beside=SUPERVISED),
    "timm supervised, channels_last": Variant("timm", "timm_step.py", "supervised-channels-last", beside=SUPERVISED),
    DISTILLED: Variant(None, "ours.py", "sources-28"),
    "timm 1 light source": Variant("timm", "timm_step.py", "kd-light", beside=DISTILLED),
    "timm 1 light source, channels_last": Variant("timm", "timm_step.py", "kd-light-channels-last", beside=DISTILLED),
    "timm 1 heavy source": Variant("timm", "timm_step.py", "kd-heavy", 3, 1, DISTILLED),
    "torchdistill 1 light source": Variant("torchdistill", "torchdistill_step.py", "kd-light", beside=DISTILLED),
    "torchdistill 1 heavy source": Variant("torchdistill", "torchdistill_step.py", "kd-heavy", 3, 1, DISTILLED),
    "torchdistill 28 light sources": Variant("torchdistill", "torchdistill_step.py", "kd-28-light", 1, 1, DISTILLED),
    FIXMATCH: Variant(None, "ours.py", "fixmatch"),
    "usb fixmatch": Variant("semilearn", "usb_step.py", "fixmatch", beside=FIXMATCH),
}
ONE_SOURCE = {
    # measured with one source -> the same with 28, computed
    "timm 1 light source": "timm 28 light sources",
    "timm 1 light source, channels_last": "timm 28 light sources, channels_last",
    "timm 1 heavy source": "timm 28 heavy sources",
    "torchdistill 1 light source": "torchdistill 28 light sources",
    "torchdistill 1 heavy source": "torchdistill 28 heavy sources",
}


def main() -> None:
    arguments = _parse()
    if arguments.page:
        write_tables(PAGE, tables_of(json.loads(arguments.output.read_text(encoding="utf-8"))))
        return
    started = time.perf_counter()
    shutil.rmtree(PEERS / "measured", ignore_errors=True)  # Potstill measures precision and layout anew
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.only}
    for number in range(arguments.rounds):
        for name, results in records.items():
            results.append(_run(VARIANTS[name], arguments.threads))
            print(f"round {number + 1}: {name:36s} {1000 * results[-1]['median_seconds']:8.1f} ms", flush=True)
        # After every round, so that a run that is cut short leaves the rounds that it finished.
        record = _record(records, arguments.threads, time.perf_counter() - started)
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, each in {**over_ours(records), **computed(records)}.items():
        print(f"{name:48s} {each['ratio']:8.2f}x {each['beside']}")


def tables_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The table of docs/training.md: each peer's step beside ours, slower ones below faster ones."""
    found = {**record["computed"], **record["over_ours"]}  # what was measured stands before what was computed
    rows = []
    for name, each in sorted(found.items(), key=lambda item: (item[1]["beside"], item[1]["ratio"])):
        peer, ours = (f"{1000 * each[key]:,.0f} ms" for key in ("peer_seconds", "our_seconds"))
        rows.append([name, peer, each["beside"], ours, f"{each['ratio']:,.1f}x"])
    return {"peers": table(["step", "takes", "beside", "takes", "ratio"], rows)}


def _record(records: Records, threads: int, seconds: float) -> dict[str, Any]:
    medians = {name: statistics.median(each["median_seconds"] for each in results) for name, results in records.items()}
    return {
        "schema": 1,
        "measured": {
            "commit": commit_of("benchmarks/peers"),
            "environment": {**environment_record(), "threads": threads},
            "environments_of_peers": {name: results[0]["packages"] for name, results in records.items()},
            "rounds": max(len(results) for results in records.values()),
            "seconds": round(seconds, 1),
        },
        "workload": _workload(),
        "median_seconds": medians,
        "over_ours": over_ours(records),
        "computed": computed(records),
        "processes": records,
    }


def last_record(output: str) -> dict[str, Any]:
    """The last line of what a process printed, which is JSON; libraries may print before it.

    Raises:
        ValueError: there is no such line.
    """
    lines = output.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise ValueError(f"expected a line of JSON at the end, got {lines[-1:]}")
    record: dict[str, Any] = json.loads(lines[-1])
    return record


def over_ours(records: Records) -> dict[str, dict[str, Any]]:
    """How many times longer than ours the step of each peer takes: of medians over all rounds, and round by round."""
    found = {}
    for name, results in records.items():
        beside = VARIANTS[name].beside
        if beside is None or beside not in records:
            continue
        peer, ours = ([each["median_seconds"] for each in part] for part in (results, records[beside]))
        found[name] = {
            "beside": beside,
            "peer_seconds": statistics.median(peer),
            "our_seconds": statistics.median(ours),
            "ratio": statistics.median(peer) / statistics.median(ours),
            "ratio_of_each_round": [a / b for a, b in zip(peer, ours, strict=True)],
        }
    return found


def computed(records: Records) -> dict[str, dict[str, Any]]:
    """A step with 28 live sources: the measured step with one, and 27 more of the forward passes measured beside it.

    Where such a step was measured too, `computed_over_measured` says how good the calculation is.
    """
    found: dict[str, dict[str, Any]] = {}
    for one, many in ONE_SOURCE.items():
        if one not in records or DISTILLED not in records:
            continue
        step, forward = (
            statistics.median(each[key] for each in records[one]) for key in ("median_seconds", "source_forward")
        )
        ours = statistics.median(each["median_seconds"] for each in records[DISTILLED])
        seconds = step + (workload.SOURCES - 1) * forward
        found[f"{many}, computed"] = {
            "beside": DISTILLED,
            "step_with_one": step,
            "source_forward": forward,
            "peer_seconds": seconds,
            "our_seconds": ours,
            "ratio": seconds / ours,
        }
        if many in records:
            measured = statistics.median(each["median_seconds"] for each in records[many])
            found[f"{many}, computed"]["computed_over_measured"] = seconds / measured
    return found


def _run(variant: Variant, threads: int) -> dict[str, Any]:
    interpreter = sys.executable if variant.peer is None else str(python_of(variant.peer))
    if not Path(interpreter).exists():
        raise SystemExit(f"{variant.peer} is not installed; run benchmarks/peers/install.py first.")
    command = [interpreter, str(HERE / variant.script), variant.variant]
    numbers = {"--steps": variant.steps, "--warmup": variant.warmup, "--threads": threads}
    for option, number in numbers.items():
        command += [option, str(number)]
    done = subprocess.run(command, env=_environment(threads), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[1:3])} failed:\n{done.stderr[-2000:]}")
    return last_record(done.stdout)


def _environment(threads: int) -> dict[str, str]:
    """Without our own paths; experiment trackers that a peer imports stay silent and off the network."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    trackers = {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    return {**kept, **trackers, "OMP_NUM_THREADS": str(threads)}


def _workload() -> dict[str, Any]:
    """Everything that the steps have in common."""
    return {name.lower(): value for name, value in vars(workload).items() if name.isupper()}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", type=_names, default=list(VARIANTS), help="names separated by semicolons")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true", help="measure nothing, write the table of docs/training.md")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(";")
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {unknown}; there are {list(VARIANTS)}")
    return names


if __name__ == "__main__":
    main()
