"""torchdistill's distillation step with its own box and loss: one live source, or 28 held by one module.

torchdistill takes one teacher. Its losses, though, read the outputs of any module by path, so 28 sources in one module
and as many heads on the student are distilled by 28 terms of its weighted sum, all with the package's own classes.
The step is that of its published example: pre-forward process, forward process, post-forward process, which holds
backward and optimiser. Its loader is left out; images lie ready in memory, normalised.
"""

from __future__ import annotations

import logging
import statistics
from typing import Any

import torch
import workload
from torch import Tensor, nn
from torchdistill.core.distillation import DistillationBox, get_distillation_box
from workload import measure_steps, normalised, pictures, report, source_model, student_model

VARIANTS = ("kd-light", "kd-heavy", "kd-28-light")


class Sources(nn.Module):
    """All sources one after the other."""

    def __init__(self) -> None:
        super().__init__()
        built = (source_model(workload.LIGHT_SOURCE, workload.SOURCE_CLASSES) for _ in range(workload.SOURCES))
        self.sources = nn.ModuleList(built)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [source(images) for source in self.sources]


class StudentWithHeads(nn.Module):
    """The student with one more linear head for each source."""

    def __init__(self) -> None:
        super().__init__()
        self.model = student_model()
        width = self.model.get_classifier().in_features
        self.heads = nn.ModuleList(nn.Linear(width, workload.SOURCE_CLASSES) for _ in range(workload.SOURCES))

    def forward(self, images: Tensor) -> Tensor:
        features = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        for head in self.heads:
            head(features)
        logits: Tensor = self.model.get_classifier()(features)
        return logits


def main() -> None:
    arguments = workload.parse_arguments(VARIANTS)
    logging.disable(logging.WARNING)
    images = normalised(pictures(workload.BATCH))
    labels = torch.from_numpy(workload.labels(workload.BATCH))
    forward = None
    if arguments.variant == "kd-28-light":
        box = _box(Sources(), StudentWithHeads(), terms=_terms_of_many(), heads=True)
    else:
        name = workload.HEAVY_SOURCE if arguments.variant == "kd-heavy" else workload.LIGHT_SOURCE
        source = source_model(name, workload.CLASSES)
        with torch.no_grad():
            forward = statistics.median(measure_steps(lambda: source(images), arguments))
        box = _box(source, student_model(), terms=_term_of_one(), heads=False)
    box.pre_epoch_process(epoch=0)

    def step() -> None:
        box.pre_forward_process()
        loss = box.forward_process(images, labels, None)
        box.post_forward_process(loss=loss)

    report(arguments, measure_steps(step, arguments), packages=("torchdistill",), source_forward=forward)


def _box(source: nn.Module, student: nn.Module, *, terms: dict[str, Any], heads: bool) -> DistillationBox:
    names = range(workload.SOURCES) if heads else ()
    optimizer = {"lr": workload.LR, "momentum": workload.MOMENTUM, "weight_decay": workload.WEIGHT_DECAY}
    config = {
        "num_epochs": 1,
        "teacher": {
            "requires_grad": False,
            "forward_proc": "forward_batch_only",
            "forward_hook": {"output": [f"sources.{name}" for name in names]},
        },
        "student": {
            "requires_grad": True,
            "forward_proc": "forward_batch_only",
            "forward_hook": {"output": [f"heads.{name}" for name in names]},
        },
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
        "optimizer": {"key": "SGD", "kwargs": {**optimizer, "nesterov": True}},
    }
    return get_distillation_box(source, student, {}, config, torch.device("cpu"), None, False, 1)


def _term_of_one() -> dict[str, Any]:
    return {"kd": {"criterion": _kd_loss(".", ".", alpha=workload.LABEL_WEIGHT), "weight": 1.0}}


def _terms_of_many() -> dict[str, Any]:
    """Labels once, and every source with an equal share of the rest."""
    wrapper = {
        "key": "SimpleLossWrapper",
        "kwargs": {
            "input": {"is_from_teacher": False, "module_path": ".", "io": "output"},
            "target": {"uses_label": True},
        },
    }
    labels = {
        "criterion": {"key": "CrossEntropyLoss", "kwargs": {}},
        "criterion_wrapper": wrapper,
        "weight": workload.LABEL_WEIGHT,
    }
    share = (1 - workload.LABEL_WEIGHT) * workload.TEMPERATURE**2 / workload.SOURCES
    sources = {
        f"source {name}": {"criterion": _kd_loss(f"heads.{name}", f"sources.{name}", alpha=0), "weight": share}
        for name in range(workload.SOURCES)
    }
    return {"labels": labels, **sources}


def _kd_loss(student_path: str, source_path: str, *, alpha: float) -> dict[str, Any]:
    return {
        "key": "KDLoss",
        "kwargs": {
            "student_module_path": student_path,
            "student_module_io": "output",
            "teacher_module_path": source_path,
            "teacher_module_io": "output",
            "temperature": workload.TEMPERATURE,
            "alpha": alpha,
        },
    }


if __name__ == "__main__":
    main()
