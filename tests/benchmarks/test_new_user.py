"""What benchmarks/new_user selects, and the folder itself where it has been built."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import nn

ROOT = Path(__file__).resolve().parents[2]


def load_script() -> ModuleType:
    path = ROOT / "benchmarks" / "new_user" / "build.py"
    spec = importlib.util.spec_from_file_location("new_user_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


build = load_script()


def make_package(path: Path, entries: list[dict[str, object]]) -> Path:
    """An npm package of one artist with a half transparent red square for every entry."""
    picture = io.BytesIO()
    Image.new("RGBA", (64, 64), (255, 0, 0, 128)).save(picture, "PNG")
    with tarfile.open(path, "w:gz") as archive:
        contents = {"package/emoji.json": json.dumps(entries).encode()}
        contents |= {f"package/img/twitter/64/{entry['image']}": picture.getvalue() for entry in entries}
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def make_entry(unified: str, category: str, order: int, *, drawn: bool = True) -> dict[str, object]:
    return {
        "unified": unified,
        "category": category,
        "subcategory": "some",
        "sort_order": order,
        "short_name": f"name-{order}",
        "image": f"{unified.lower()}.png",
        "has_img_twitter": drawn,
    }


def test_side_of_follows_the_rule_of_all_benchmarks() -> None:
    known = {"1f468": "test", "1f469": "source", "1f9d1": "source"}  # computed apart from this code
    assert {group: build.side_of(group) for group in known} == known
    sides = [build.side_of(f"{number:x}") for number in range(5000)]
    assert [sides.count(side) / 5000 for side in ("source", "pool", "test")] == pytest.approx([0.4, 0.3, 0.3], abs=0.03)


def test_read_emoji_keeps_what_was_asked_for_and_paints_it_on_white(tmp_path: Path) -> None:
    entries = [
        make_entry("1F468", "People & Body", 3),  # test side
        make_entry("1F468-200D-1F33E", "People & Body", 2),  # redraws a person of another group
        make_entry("1F468-1F3FB", "Component", 4),  # not a class
        make_entry("1F469", "People & Body", 1),  # source side
        make_entry("1F468-20E3", "Flags", 0),
        make_entry("1F468-FE0F", "Flags", 5, drawn=False),
    ]
    package = make_package(tmp_path / "package.tgz", entries)
    found = build.read_emoji(package, "twitter", ("pool", "test"))
    assert [(item.name, item.group, item.label) for item in found] == [
        ("name-0", "1f468", "flags"),
        ("name-3", "1f468", "people"),
    ]
    assert found[0].image.shape == (64, 64, 3)
    assert found[0].image[0, 0].tolist() == [255, 127, 127]


def test_another_package_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"emoji-datasource-google-{build.EMOJI_VERSION}.tgz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="expected SHA-256"):
        build.fetch_emoji("google", tmp_path)


def test_augment_moves_but_keeps_size_and_range() -> None:
    images = build.to_tensor(np.full((8, 64, 64, 3), 128, dtype=np.uint8), 32)
    moved = build.augment(images, torch.Generator().manual_seed(0), flip=True)
    assert moved.shape == images.shape
    assert set(moved.unique().tolist()) == {1.0, images[0, 0, 0, 0].item()}


def test_train_source_learns_black_from_white() -> None:
    labels = torch.arange(64) % 2
    images = (labels * 2.0 - 1)[:, None, None, None].expand(64, 3, 16, 16).contiguous()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    build.train_source(model, images, labels, epochs=5, rate=1e-2, flip=True)
    assert build.measure_accuracy(model, images, labels) == 1.0


def test_the_built_folder_is_what_the_readme_says() -> None:
    output = build.DEFAULT_OUTPUT
    if not (output / "zoo.yaml").exists():
        pytest.skip("not built: python benchmarks/new_user/build.py")
    with (output / "photos.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) >= 1000
    assert {row["label"] for row in rows} == set(build.CLASSES.values())
    assert {row["path"] for row in rows} == {
        path.relative_to(output).as_posix() for path in (output / "photos").rglob("*") if path.is_file()
    }
    assert {build.side_of(row["group"]) for row in rows} == {"pool", "test"}  # sources saw the source side only

    sources = yaml.safe_load((output / "zoo.yaml").read_text())["sources"]
    assert len({source["name"] for source in sources}) == len(sources) >= 3
    for source in sources:
        model = timm.create_model(source["model"].removeprefix("timm/"), num_classes=source["num_classes"])
        model.load_state_dict(load_file(output / source["weights"]))
        assert len(source.get("classes", [])) in (0, source["num_classes"])
