"""The demo's target: scikit-learn's digits as PNG files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from potstill.demo import write_demo_target
from potstill.errors import OutputError


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_target(tmp_path_factory.mktemp("demo") / "digits")


def test_every_file_equals_the_scan_of_scikit_learn(target: Path) -> None:
    digits = load_digits()
    files = sorted(target.rglob("*.png"), key=lambda path: path.stem)
    assert len(files) == 1797
    assert [int(path.parent.name) for path in files] == digits.target.tolist()
    pixels = np.stack([np.asarray(Image.open(path)) for path in files])
    assert pixels.dtype == np.uint8
    assert pixels.max() == 255
    np.testing.assert_array_equal(np.rint(pixels / 255 * 16), digits.images)


def test_only_class_folders_and_images_are_written(target: Path) -> None:
    assert sorted(path.name for path in target.iterdir()) == list("0123456789")
    assert {path.suffix for path in target.rglob("*") if path.is_file()} == {".png"}
    assert [path for path in target.parent.iterdir() if path != target] == []


def test_writing_again_changes_nothing(target: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*.png")}
    assert write_demo_target(target) == target
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*.png")} == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert len(list(write_demo_target(tmp_path).rglob("*.png"))) == 1797


@pytest.mark.parametrize("content", ["extra", "damaged"])
def test_a_folder_with_other_content_is_refused_and_left_alone(target: Path, content: str) -> None:
    path = target / "0" / ("note.txt" if content == "extra" else "0000.png")
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(b"something else")
    try:
        with pytest.raises(OutputError, match=path.name):
            write_demo_target(target)
        assert path.read_bytes() == b"something else"
    finally:
        path.unlink() if before is None else path.write_bytes(before)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="digits"):
        write_demo_target(tmp_path / "file" / "digits")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, potstill.demo as d; d.mini_zoo_file(); d.student_weights(); "
        "heavy = {'torch', 'timm', 'sklearn', 'PIL', 'numpy', 'yaml'} & sys.modules.keys(); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
