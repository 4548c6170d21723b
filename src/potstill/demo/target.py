"""The demo's target: scikit-learn's scanned digits as a folder of PNG files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

from potstill.errors import OutputError

LARGEST_VALUE = 16  # of scikit-learn's digits


def write_demo_target(folder: Path) -> Path:
    """Write the 1,797 digits of `sklearn.datasets.load_digits` as `folder/<digit>/<index>.png` and return `folder`.

    Each file is the 8 x 8 scan itself, light ink on a black ground as scikit-learn has it, its values 0..16 scaled to
    0..255 and rounded, grey uint8; `<index>` is the four-digit row number in scikit-learn's arrays. The folder appears
    only when it is complete. A folder that holds exactly these images already is left as it is; one that holds
    anything else raises OutputError and is not touched.

    Scikit-learn's copy of the data set (E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
    Machine Learning Repository, 1998, its test part) does not say who wrote which digit, so the target has no groups:
    digits of one writer lie on both sides of a split.
    """
    folder = Path(folder)
    scans = _named_scans()
    if folder.exists() and any(folder.iterdir()):
        _check_folder(folder, scans)
        return folder
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        for name, scan in scans.items():
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scan).save(unfinished / name)
        if folder.exists():
            folder.rmdir()
        unfinished.replace(folder)
    except OSError as error:
        raise OutputError(
            f"Cannot write the demo's images to {folder}: {error.strerror or error}. "
            "Check the folder, its rights and the disk."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _named_scans() -> dict[str, npt.NDArray[np.uint8]]:
    digits = load_digits()
    scans = np.rint(digits.images * (255 / LARGEST_VALUE)).astype(np.uint8)
    return {f"{digit}/{index:04d}.png": scans[index] for index, digit in enumerate(digits.target)}


def _check_folder(folder: Path, scans: dict[str, npt.NDArray[np.uint8]]) -> None:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    other = sorted(found.keys() ^ scans.keys()) or [
        name for name, path in found.items() if not _same_pixels(path, scans[name])
    ]
    if other:
        raise OutputError(
            f"{folder} should be empty or hold the demo's {len(scans)} images, but {len(other)} files differ or are "
            f"missing or extra (for example {other[0]}). Give another folder or delete this one."
        )


def _same_pixels(path: Path, scan: npt.NDArray[np.uint8]) -> bool:
    try:
        with Image.open(path) as image:
            return image.mode == "L" and np.array_equal(np.asarray(image), scan)
    except OSError:
        return False
