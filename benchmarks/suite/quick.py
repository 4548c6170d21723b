"""Two targets that need no package: scikit-learn's scanned digits, and digits set in the typefaces of matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

from material.sides import side_of
from potstill.demo import STUDENT, student_weights
from suite.collectors import handwriting, typefaces
from suite.selection import Parts
from suite.tasks import DIGITS
from suite.writing import write_task

SIZE = 32
MOST = 200  # images of a part


def quick_targets(folder: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Name, manifest and settings of each target; its images are written below the folder."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    collected = {
        "scanned-digits": handwriting.scanned_digits(size=SIZE),
        "printed-digits": typefaces.characters([fonts], DIGITS, size=SIZE),
    }
    for name, pictures in collected.items():
        by_side: dict[str, list[Any]] = {"source": [], "pool": [], "test": []}
        for picture in pictures:
            by_side[side_of(picture.group)].append(picture)
        kept = {side: tuple(some[:: max(1, len(some) // MOST)]) for side, some in by_side.items()}
        write_task(folder / name, Parts(**kept, near_duplicates=0), photographs=False)
        settings = {
            "student": STUDENT,
            "student_weights": student_weights(),
            "zoo": "mini",
            "image_size": SIZE,
            "label_fraction": 0.2,
            "batch_size": 48,
            "steps": 8,
            "device": "cpu",
            "offline": True,
            "cache_dir": folder / "cache",
        }
        yield name, folder / name / "target.csv", settings
