"""The table of docs/sources.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tables import UNMEASURED, table


def tables_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Markdown by name of the table, from benchmarks/results/extraction.json."""
    rows = [row for name, write in ROWS.items() if name in record for row in write(record[name])]
    if not rows:
        return {"extraction": UNMEASURED}
    environment = next(record[name]["environment"] for name in ROWS if name in record)
    machine = f"{environment['cpu']}, {environment['threads']} threads.\n"
    return {"extraction": f"{machine}\n{table(['what', 'measured', 'aim'], rows)}"}


def _throughput(found: Mapping[str, Any]) -> list[list[str]]:
    share = found["forward_over_extract"]["ratio"]
    seconds = found["median_seconds"]
    rate = found["images"] / seconds["extract"]
    told = f"{share:.2f} ({rate:.0f} images a second)"
    folded = f"{found['folded_over_extract']['ratio']:.2f}"
    return [
        [f"{found['source']} at 224 pixels, JPEG files to cache, beside bare forward passes", told, "0.90"],
        ["the same beside forward passes with batch norm folded in", folded, ""],
    ]


def _naive(found: Mapping[str, Any]) -> list[list[str]]:
    faster = found["naive_over_potstill"]["ratio"]
    count = len(found["sources"])
    return [
        [f"{count} small sources, beside a DataLoader pass for each", f"{faster:.2f} times as fast", "1.5"],
        [f"decodings of {found['images']} images for {count} sources", str(found["decoded"]), str(found["images"])],
    ]


def _gather(found: Mapping[str, Any]) -> list[list[str]]:
    memory, grown, pickled = (
        found[name]["ratio"] for name in ("memory_over_store", "memory_over_grown", "pickle_over_store")
    )
    return [
        [f"{found['drawn']} random rows, beside an array in memory", f"{memory:.2f}", "0.80"],
        ["the same after images were added four times", f"{grown:.2f}", ""],
        [f"{found['drawn']} random rows, beside a pickle an image", f"{pickled:.0f} times as fast", "30"],
    ]


def _bytes(found: Mapping[str, Any]) -> list[list[str]]:
    return [[f"bytes of {found['kept']} of {found['classes']:,} classes", f"{found['bytes_a_row']:.0f}", "56"]]


def _warm(found: Mapping[str, Any]) -> list[list[str]]:
    title = f"`rank` of {found['images']:,} images and {len(found['sources'])} sources again"
    told = f"{100 * found['warm_over_cold']:.1f} % of the time, {found['forwards'][-1]} passes"
    return [[title, told, "2 %, 0 passes"]]


def _memory(found: Mapping[str, Any]) -> list[list[str]]:
    few, many = found["images"]
    return [[f"peak memory at {many:,} images, over that at {few:,}", f"{found['ratio']:.2f}", "1.1"]]


ROWS = {
    "throughput": _throughput,
    "naive": _naive,
    "gather": _gather,
    "bytes": _bytes,
    "warm": _warm,
    "memory": _memory,
}
