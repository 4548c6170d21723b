"""The tables of docs/training.md, made of the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tables import UNMEASURED, table

Record = Mapping[str, Any]


def tables_of(record: Record) -> dict[str, str]:
    """Markdown of every table by its name; of a section that the record lacks, a sentence that says so."""
    makers = {
        "step": ("step", _step),
        "memory": ("step", _memory),
        "live": ("live", _live),
        "layout": ("layout", _layout),
        "throughput": ("throughput", _throughput),
        "levers_cost": ("levers_cost", _levers),
    }
    return {
        name: maker(record[section]) if section in record else UNMEASURED for name, (section, maker) in makers.items()
    }


def _step(section: Record) -> str:
    found = section["results"]
    zoos = list(found["source_classes"])
    rows = []
    for name, each in found["students"].items():
        cells = [f"{_ms(each['median_seconds'][zoo])} ({each['over_plain'][zoo]['ratio']:.2f}x)" for zoo in zoos]
        rows.append([f"`{name}`", _ms(each["median_seconds"]["plain"]), *cells])
    titles = [zoo if "classes" in zoo else f"{zoo}, {found['source_classes'][zoo]:,} classes" for zoo in zoos]
    return table(["student", "plain step", *titles], rows)


def _memory(section: Record) -> str:
    memory = section["results"]["memory"]
    rows = [
        [
            variant,
            _mib(each["peak_bytes"]),
            _mib(each["added_bytes"]),
            _ratio(memory["over_plain"].get(variant), "total"),
            _ratio(memory["over_plain"].get(variant), "added"),
        ]
        for variant, each in memory["medians"].items()
    ]
    return table(["step", "peak", "above imports", "peak over plain", "above imports over plain"], rows)


def _live(section: Record) -> str:
    rows = []
    for name, part in section.items():
        each = part["results"]
        rows.append(
            [
                f"28 x `{name}`",
                f"{each['macs_over_student']:.1f}x",
                f"{each['cached_epoch_seconds']:.1f} s",
                f"{each['live_epoch_seconds']:.0f} s",
                f"{each['live_over_cached']['ratio']:.0f}x",
                f"{each['bfloat16_over_cached']['ratio']:.0f}x",
                f"{each['extraction_seconds']:.0f} s",
                f"{each['break_even_epoch']:.2f}",
            ]
        )
    titles = [
        "sources",
        "MACs over the student's",
        "cached epoch",
        "live epoch",
        "gain",
        "over bfloat16",
        "extraction",
        "break-even epoch",
    ]
    return table(titles, rows)


def _layout(section: Record) -> str:
    rows = []
    for name, part in section.items():
        each = part["results"]
        medians = each["median_seconds"]
        cells = [_ms(medians[key]) for key in medians]
        rows.append(
            [f"`{name}`", *cells, each["chosen"], _ratio(each["over_torch"]), f"{each['of_the_best']['ratio']:.2f}"]
        )
    first = next(iter(section.values()))["results"]["median_seconds"]
    return table(["student", *first, "chosen", "over torch's default", "of the best"], rows)


def _throughput(section: Record) -> str:
    found = section["results"]["variants"]
    rows = [[name, f"{each['images_a_second']:.0f}", f"{each['of_compute_only']:.2f}"] for name, each in found.items()]
    return table(["images from", "images a second", "of compute only"], rows)


def _levers(section: Record) -> str:
    found = section["results"]
    rows = [[name, _ratio(each)] for name, each in found["over_plain"].items()]
    return table(["lever", "step"], [*rows, ["averaged weights", f"{found['averaged_weights_over_none']:.2f}x"]])


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _mib(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"


def _ratio(compared: Mapping[str, Any] | None, key: str = "ratio") -> str:
    return "-" if compared is None else f"{compared[key]:.2f}x"
