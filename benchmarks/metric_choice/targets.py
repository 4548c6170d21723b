"""The twelve targets as folders `train/<class>/*.png` and `test/<class>/*.png`, and the zoo file of all eleven sources.

    python benchmarks/metric_choice/targets.py

writes `.build-data/metric_choice/`. Needs the parts of benchmarks/mini_zoo/build_data.py, the weights of
benchmarks/imagenet_weights/convert.py and, for flat emoji, the photos of benchmarks/new_user/build.py.
Training images come from groups of the pool side, test images from groups of the test side; no source saw either.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "mini_zoo"))

from parts import GLYPH_BOX, SIZE, load_part  # noqa: E402
from pictures import MOST_PIXELS, TEXT_WORDS  # noqa: E402

from material.fitting import fit_picture, on_white  # noqa: E402
from material.sides import side_of  # noqa: E402
from material.typefaces import draw_character, list_faces, open_face  # noqa: E402

MOST_IMAGES = 600  # of each of training and test, spread evenly over the classes
TRAIN, TEST = "pool", "test"
SIGNS = '!?&@#$%*+=<({[~/;:"^|_'
HEBREW = "".join(chr(code) for code in range(0x5D0, 0x5EB))
STYLES = {"regular": "regular", "bold": "bold", "italic": "italic", "oblique": "italic", "bold italic": "bold-italic"}
CLIP_ART = ("animals", "buildings", "food", "geography", "people", "plants", "tools", "transportation")
# Accuracy on ImageNet as the authors of EfficientNet-Lite state it.
IMAGENET_ACCURACY = {"lite0": 0.751, "lite1": 0.767, "lite2": 0.776}
IMAGENET_SIZE = 96  # the targets have 32 pixels a side; the models' own sizes cost five times as much

Row = tuple[npt.NDArray[np.uint8], str, str]  # picture (32, 32) or (32, 32, 3), class name, group

# target -> (kind, sources left out in the strict track because they know the target's classes or pictures)
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "scanned-digits": ("digits", ("mnist", "typeface-digits")),
    "mnist-digits": ("digits", ("mnist", "typeface-digits")),
    "printed-digits": ("digits", ("mnist", "typeface-digits")),
    "latin": ("letters", ("latin-letters",)),
    "greek": ("letters", ("greek-letters",)),
    "cyrillic": ("letters", ("cyrillic-letters",)),
    "hebrew": ("letters", ()),
    "signs": ("typefaces", ()),
    "styles": ("typefaces", ()),
    "icon-contexts": ("pictures", ("icons",)),
    "emoji-groups": ("pictures", ("emoji",)),
    "flat-emoji": ("pictures", ("emoji",)),
    "clip-art-folders": ("pictures", ("clip-art",)),
}


def from_part(data: Path, name: str, *, paper: bool = True) -> Iterable[Row]:
    """A part of the mini zoo; `paper` says dark on white, else light on black as MNIST is."""
    part = load_part(data / "parts" / f"{name}.npz")
    for image, label, group in zip(part.images, part.labels, part.groups, strict=True):
        yield on_white(image) if paper else image, part.classes[label].replace(" & ", "-"), str(group)


def from_scans() -> Iterable[Row]:
    """Scikit-learn's digits; their writers are unknown, so each picture is its own group."""
    digits = load_digits()
    for number, (scan, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        yield np.rint(scan * (255 / 16)).astype(np.uint8), str(label), f"scan-{number}"


def from_typefaces(fonts: Path, characters: str) -> Iterable[Row]:
    """Each character is a class, in every typeface that has all of them."""
    for family, faces in list_faces(fonts).items():
        for path, code_points in faces:
            if not code_points.issuperset(map(ord, characters)):
                continue
            font = open_face(path)
            for character in characters if font else "":
                ink = draw_character(font, character, size=SIZE, box=GLYPH_BOX)
                if ink is not None:
                    yield on_white(ink), f"u{ord(character):04x}", family


def from_styles(fonts: Path) -> Iterable[Row]:
    """Letters of the Latin alphabet; the class is the style of the face, not the letter."""
    for family, faces in list_faces(fonts).items():
        for number, (path, code_points) in enumerate(faces):
            font = open_face(path)
            style = STYLES.get((font.getname()[1] or "").strip().lower()) if font else None
            letters = [letter for letter in "aegknrstAGKMRS" if ord(letter) in code_points]
            for letter in letters[number % 2 :: 2] if style else ():
                ink = draw_character(font, letter, size=SIZE, box=GLYPH_BOX)
                if ink is not None:
                    yield on_white(ink), str(style), family


def from_clip_art(folder: Path) -> Iterable[Row]:
    """Clip art by the folder of openclipart in which it lies."""
    for name in CLIP_ART:
        for path in sorted((folder / name).rglob("*.png")):
            if path.is_symlink() or any(word in path.relative_to(folder).as_posix().lower() for word in TEXT_WORDS):
                continue
            with Image.open(path) as picture:
                if picture.width * picture.height <= MOST_PIXELS:
                    yield on_white(fit_picture(picture, size=SIZE)), name, path.stem


def from_photos(folder: Path) -> Iterable[Row]:
    """The images and groups of benchmarks/new_user."""
    with (folder / "photos.csv").open(newline="") as handle:
        for row in csv.DictReader(handle):
            with Image.open(folder / row["path"]) as picture:
                small = picture.convert("RGB").resize((32, 32), Image.Resampling.LANCZOS)
            yield np.asarray(small), row["label"], row["group"]


def target_rows(data: Path) -> dict[str, Callable[[], Iterable[Row]]]:
    """target -> its pictures of all sides."""
    share = data / "root" / "usr" / "share"
    return {
        "scanned-digits": from_scans,
        "mnist-digits": lambda: from_part(data, "handwritten_digits", paper=False),
        "printed-digits": lambda: from_part(data, "typeface_digits"),
        "latin": lambda: from_part(data, "latin_letters"),
        "greek": lambda: from_part(data, "greek_letters"),
        "cyrillic": lambda: from_part(data, "cyrillic_letters"),
        "hebrew": lambda: from_typefaces(share / "fonts", HEBREW),
        "signs": lambda: from_typefaces(share / "fonts", SIGNS),
        "styles": lambda: from_styles(share / "fonts"),
        "icon-contexts": lambda: from_part(data, "icons"),
        "emoji-groups": lambda: from_part(data, "emoji"),
        "flat-emoji": lambda: from_photos(data / "new_user"),
        "clip-art-folders": lambda: from_clip_art(share / "openclipart" / "png"),
    }


def write_target(rows: Iterable[Row], folder: Path) -> dict[str, int]:
    """Write at most `MOST_IMAGES` training and test images, classes as even as they can be; exact copies once."""
    sides: dict[str, dict[str, list[npt.NDArray[np.uint8]]]] = {TRAIN: {}, TEST: {}}
    seen: set[bytes] = set()
    for image, label, group in rows:
        side = side_of(group)
        if side in sides and image.tobytes() not in seen:
            seen.add(image.tobytes())
            sides[side].setdefault(label, []).append(image)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    counts = {}
    for side, name in ((TRAIN, "train"), (TEST, "test")):
        classes = sides[side]
        quota = MOST_IMAGES // len(classes)
        for label, images in sorted(classes.items()):
            order = np.random.default_rng(0).permutation(len(images))[:quota]
            (unfinished / name / label).mkdir(parents=True)
            for number in order:
                Image.fromarray(images[number]).save(unfinished / name / label / f"{number:05d}.png")
        counts[name] = sum(min(quota, len(images)) for images in classes.values())
    unfinished.replace(folder)
    return counts


def write_zoo(data: Path, output: Path) -> None:
    """The mini zoo and EfficientNet-Lite 0 to 2 with ImageNet's weights in one zoo file."""
    mini = ROOT / "src" / "potstill" / "demo" / "mini_zoo"
    sources = yaml.safe_load((mini / "zoo.yaml").read_text())["sources"]
    for source in sources:
        source["weights"] = str(mini / source["weights"])
    for size, accuracy in IMAGENET_ACCURACY.items():
        sources.append(
            {
                "name": f"imagenet-{size}",
                "model": f"timm/tf_efficientnet_{size}",
                "weights": str((data / "imagenet_weights" / f"tf_efficientnet_{size}.safetensors").resolve()),
                "num_classes": 1000,
                "image_size": IMAGENET_SIZE,
                "interpolation": "bicubic",
                "crop": 1.0,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
                "license": "Apache-2.0",
                "trained_on": "ImageNet-1k",
                "accuracy": {"value": accuracy, "on": "ImageNet-1k validation, top-1, as its authors state it"},
            }
        )
    output.write_text(yaml.safe_dump({"sources": sources}, sort_keys=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".build-data"))
    arguments = parser.parse_args()
    output = arguments.data / "metric_choice"
    (output / "targets").mkdir(parents=True, exist_ok=True)
    write_zoo(arguments.data, output / "zoo.yaml")
    for name, rows in target_rows(arguments.data).items():
        folder = output / "targets" / name
        if not folder.exists():
            print(name, write_target(rows(), folder), flush=True)


if __name__ == "__main__":
    main()
