"""The student on disk: a folder that timm loads as a local directory, with class names and preprocessing inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from potstill.convolutions import repeatable_convolutions
from potstill.errors import CheckpointError, PotstillError
from potstill.files import write_bytes
from potstill.models import create_model, pretrained_cfg_of, save_state
from potstill.types import Preprocessing

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class SavedStudent:
    """A student read back from its folder, in evaluation mode."""

    model: nn.Module
    name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float

    def probs(self, images: Tensor) -> npt.NDArray[np.float32]:
        """Class probabilities `(B, C)` of prepared images, float32 `(B, 3, H, W)` on any device."""
        device = next(self.model.parameters()).device
        # As exact on a GPU as on the CPU that the student is meant for.
        with torch.inference_mode(), repeatable_convolutions(device, exact=True):
            return torch.softmax(self.model(images.to(device)) / self.temperature, dim=1).cpu().numpy()


def save_student(
    model: nn.Module,
    directory: Path,
    *,
    name: str,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    temperature: float = 1.0,
) -> None:
    """Write `model.safetensors` and `config.json`; timm reads them as `local-dir:DIRECTORY` with pretrained=True.

    Raises:
        OutputError: the folder cannot be written.
    """
    fixed = pretrained_cfg_of(name).get("fixed_input_size", False)
    config = {
        "architecture": name.removeprefix("timm/"),
        "num_classes": len(classes),
        "label_names": list(classes),
        "pretrained_cfg": {
            "input_size": [3, preprocessing.image_size, preprocessing.image_size],
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "interpolation": preprocessing.interpolation,
            "crop_pct": preprocessing.crop,
            "num_classes": len(classes),
            "label_names": list(classes),
        },
        # Architectures built for one input size must be told it; the others do not take the argument.
        **({"model_args": {"img_size": preprocessing.image_size}} if fixed else {}),
        "potstill": {"schema": 1, "model": name, "temperature": temperature},
    }
    save_state(directory / WEIGHTS_FILE, model.state_dict())
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    write_bytes(directory / CONFIG_FILE, text.encode("utf-8"))


def load_student(directory: Path, *, device: str = "cpu") -> SavedStudent:
    """Read a student back.

    Args:
        directory: the `student` folder of a run, or the run directory itself.
        device: where it is to answer.

    Raises:
        CheckpointError: there is no student, or it is damaged.
    """
    folder = directory / "student" if (directory / "student").is_dir() else directory
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        cfg, extra = config["pretrained_cfg"], config["potstill"]
        model = create_model(
            extra["model"],
            weights=folder / WEIGHTS_FILE,
            num_classes=config["num_classes"],
            image_size=cfg["input_size"][1],
        )
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no student in {directory} (missing {Path(error.filename).name}).") from error
    except (ValueError, KeyError, PotstillError) as error:
        raise CheckpointError(f"The student in {directory} is damaged: {error}") from error
    return SavedStudent(
        model=model.eval().to(device),
        name=extra["model"],
        classes=tuple(config["label_names"]),
        preprocessing=Preprocessing(
            image_size=cfg["input_size"][1],
            mean=tuple(cfg["mean"]),
            std=tuple(cfg["std"]),
            interpolation=cfg["interpolation"],
            crop=cfg["crop_pct"],
        ),
        temperature=extra["temperature"],
    )
