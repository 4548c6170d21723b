"""What a run costs at any size, from what was measured at small ones; writes the tables of docs/scale.md.

    python benchmarks/scale/model.py            # writes the tables
    python benchmarks/scale/model.py 3000000    # prints the costs of so many images

Everything grows in proportion to the images, apart from what is bounded (the ranking sees 500 of them, the reader keeps
512 MiB). A line through the two smaller sizes that were measured predicts the largest one; its slope is the cost of an
image.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.cache.plan import SHARD_ROWS

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from tables import UNMEASURED, table, write_tables  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "scale.json"
PAGE = ROOT / "docs" / "scale.md"

Record = Mapping[str, Any]
OPEN_FILES = 1024
"""`ulimit -n` of Linux, where nobody has raised it."""

DECADES = tuple(10**power for power in range(4, 10))


@dataclass(frozen=True)
class Workload:
    """The example of the page: sources that all have so many features and classes, packed squares of so many pixels."""

    sources: int = 28
    features: int = 512
    classes: int = 1000
    side: int = 128


def output_bytes(features: int, classes: int, *, top_k: bool = False) -> int:
    """Bytes of an image in the cache of one source: digest, features in float16, and all logits or the ten largest."""
    return 32 + 2 * features + (56 if top_k else 2 * classes + 8)


def packed_bytes(side: int) -> int:
    """Bytes of an image in the packed file."""
    return 3 * side * side


def checkpoint_bytes(student_params: int, features: int, source_classes: int) -> int:
    """Two checkpoints: weights, averaged weights and momentum of the student; weights and momentum of source heads."""
    heads = (features + 1) * source_classes
    return 2 * 4 * (3 * student_params + 2 * heads)


def line(record: Record, *keys: str) -> tuple[float, float]:
    """Intercept and slope, over the number of images, of a figure at the two smaller sizes."""
    sizes = sorted(record["growth"]["results"], key=int)[:2]
    (first, low), (second, high) = ((int(size), _figure(record, size, keys)) for size in sizes)
    slope = (high - low) / (second - first)
    return low - slope * first, slope


def costs(record: Record, images: int, workload: Workload | None = None) -> dict[str, float]:
    """Core hours, bytes on disk and bytes of memory of the example with so many images."""
    at = workload or Workload()
    rates = record["rates"]["results"]["images_per_second"]
    return {
        "images": images,
        "source_passes": at.sources * images,
        "open_hours": images / rates["decode"] / 3600,
        "source_hours": at.sources * images / rates["source"] / 3600,
        "epoch_hours": images / rates["student"] / 3600,
        "dense_bytes": at.sources * images * output_bytes(at.features, at.classes),
        "top_k_bytes": at.sources * images * output_bytes(at.features, at.classes, top_k=True),
        "packed_bytes": images * packed_bytes(at.side),
        "splits_bytes": images * line(record, "disk_bytes", "splits")[1],
        "target_bytes": images * line(record, "stages", "open", "anonymous_bytes")[1],
    }


def comparison(record: Record) -> list[tuple[str, float, float, str]]:
    """What the model says about the largest measured size, and what was measured: name, predicted, measured, unit."""
    largest = max(record["growth"]["results"], key=int)
    found = record["growth"]["results"][largest]
    images, pool = int(largest), found["pool"]
    outputs = images * sum(output_bytes(*widths) for widths in found["widths"].values())
    rows: list[tuple[str, float, float, str]] = [
        ("source outputs on disk", outputs, found["disk_bytes"]["outputs"], "MB"),
        ("packed squares on disk", pool * packed_bytes(found["squares_side"]), found["disk_bytes"]["pixels"], "MB"),
    ]
    fitted = (
        ("splits.csv", ("disk_bytes", "splits"), "MB"),
        ("task for other processes", ("disk_bytes", "task"), "MB"),
        ("opened target in memory", ("stages", "open", "anonymous_bytes"), "MB"),
        ("opening", ("stages", "open", "seconds"), "s"),
        ("extraction", ("stages", "extract", "seconds"), "s"),
        ("packing", ("stages", "pack", "seconds"), "s"),
        ("ranking", ("stages", "rank", "seconds"), "s"),
    )
    for name, keys, unit in fitted:
        start, slope = line(record, *keys)
        rows.append((name, start + slope * images, _figure(record, largest, keys), unit))
    return rows


def tables_of(record: Record) -> dict[str, str]:
    """Markdown of every table of the page by its name."""
    makers = {"rates": _rates, "check": _check, "decades": _decades, "breaks": _breaks, "seeds": _seeds}
    needs = {"rates": "rates", "check": "growth", "decades": "rates", "breaks": "growth", "seeds": "seeds"}
    return {name: maker(record) if needs[name] in record else UNMEASURED for name, maker in makers.items()}


def _figure(record: Record, size: str, keys: Sequence[str]) -> float:
    value = record["growth"]["results"][size]
    for key in keys:
        value = value[key]
    return float(value)


def _rates(record: Record) -> str:
    found = record["rates"]["results"]
    speeds = found["images_per_second"]
    rows = [
        [f"decoding and fitting ({found['photo']})", f"{speeds['decode']:,.0f}"],
        [f"a source ({found['source']})", f"{speeds['source']:,.0f}"],
        [f"training a student ({found['student']})", f"{speeds['student']:,.0f}"],
    ]
    return table(["one core, float32", "images a second"], rows)


def _check(record: Record) -> str:
    rows = []
    for name, predicted, measured, unit in comparison(record):
        scale = 1e6 if unit == "MB" else 1.0
        ratio = f"{predicted / measured:.2f}"
        rows.append([name, f"{predicted / scale:.2f} {unit}", f"{measured / scale:.2f} {unit}", ratio])
    largest = int(max(record["growth"]["results"], key=int))
    return table([f"{largest:,} tiny images", "predicted", "measured", "ratio"], rows)


def _decades(record: Record) -> str:
    rows = []
    for images in DECADES:
        at = costs(record, images)
        hours = [_hours(at[key]) for key in ("open_hours", "source_hours", "epoch_hours")]
        sizes = [_bytes(at[key]) for key in ("dense_bytes", "top_k_bytes", "packed_bytes", "target_bytes")]
        rows.append([f"10^{len(str(images)) - 1}", f"{at['source_passes']:.1e}", *hours, *sizes])
    titles = ["images", "source passes", "open", "sources", "one epoch"]
    return table([*titles, "outputs", "outputs, top 10", "packed", "memory a process"], rows)


def _breaks(record: Record) -> str:
    at = {images: costs(record, images) for images in DECADES}
    sources = Workload().sources
    mapped = _million(OPEN_FILES * SHARD_ROWS / sources)
    task = line(record, "disk_bytes", "task")[1]
    rows = {
        10**4: "Nothing.",
        10**5: "The default length: it ends at 2,000 steps, 192,000 passes. Say `--epochs`. Packed squares "
        f"({_bytes(at[10**5]['packed_bytes'])}) are below `--packed-gb 8`, but not by much.",
        10**6: f"Packed squares need {_bytes(at[10**6]['packed_bytes'])}: raise `--packed-gb`, or every step decodes. "
        f"Extraction is {_hours(at[10**6]['source_hours'])} of a core: use GPUs and split the zoo (below).",
        10**7: f"Open files: each shard of up to {SHARD_ROWS:,} rows is one, of which Linux allows a process "
        f"{OPEN_FILES:,}; {sources} sources reach that at {mapped} images. "
        "Memory: every process holds the ids, paths, digests and labels of all images, "
        f"{_bytes(at[10**7]['target_bytes'])}, eight on a machine eight times that. The task that process 0 hands over "
        f"is {_bytes(10**7 * task)} of JSON. One process reads and decodes all files "
        f"({_hours(at[10**7]['open_hours'])} of a core, then remembered) and packs all squares.",
        10**8: f"The list of images does not fit ({_bytes(at[10**8]['target_bytes'])} a process), and the index of the "
        f"cache is a dictionary entry per image and source. Dense outputs need {_bytes(at[10**8]['dense_bytes'])}: "
        "name fewer sources. This version does not go here.",
        10**9: f"Single files: a file system does not list them in useful time. Even the order of a pass is "
        f"{_bytes(8.0 * 10**9)} a process. This needs sharded archives, which do not exist yet.",
    }
    return table(["images", "what breaks first"], [[f"10^{len(str(n)) - 1}", text] for n, text in rows.items()])


def _seeds(record: Record) -> str:
    found = record["seeds"]["results"]
    rows = []
    for method in ("transfer", "weighted"):
        each = found[method]
        points = (each["mean_one_process"], each["mean_two_processes"], each["mean_difference"], each["sd_of_seeds"])
        one, two, difference, deviation = (100 * value for value in points)
        rows.append([method, f"{one:.1f}", f"{two:.1f}", f"{difference:+.1f}", f"{deviation:.1f}"])
    return table(["accuracy in points", "one process", "two", "difference", "deviation between seeds"], rows)


def _hours(hours: float) -> str:
    return f"{hours * 60:.1f} min" if hours < 1 else f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.0f} {unit}" if count >= 10 * size else f"{count / size:.1f} {unit}"
    return f"{count:,.0f} B"


def _million(count: float) -> str:
    return f"{count / 1e6:.1f} million"


if __name__ == "__main__":
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    if len(sys.argv) > 1:
        for key, value in costs(content, int(float(sys.argv[1]))).items():
            print(f"{key:15} {_bytes(value) if key.endswith('bytes') else f'{value:,.2f}'}")
    else:
        write_tables(PAGE, tables_of(content))
