"""timm's training step with its own task classes: supervised, and distilled from one live source.

The step is that of timm's published training script, without its loader, averaged weights and schedule: the task's
loss, backward, optimiser. Images lie ready in memory, normalised.
"""

from __future__ import annotations

import statistics

import torch
import workload
from timm.optim import create_optimizer_v2
from timm.task import ClassificationTask, LogitDistillationTask
from torch import nn
from workload import Arguments, measure_steps, normalised, pictures, report, source_model, student_model

VARIANTS = ("supervised", "supervised-channels-last", "kd-light", "kd-light-channels-last", "kd-heavy")


def main() -> None:
    arguments = workload.parse_arguments(VARIANTS)
    channels_last = arguments.variant.endswith("channels-last")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    compute = "float32 channels_last" if channels_last else "float32 contiguous"
    images = normalised(pictures(workload.BATCH)).contiguous(memory_format=layout)
    labels = torch.from_numpy(workload.labels(workload.BATCH))
    student = student_model().to(memory_format=layout)
    source = _source(arguments)
    forward = None
    if source is None:
        task = ClassificationTask(student, criterion=nn.CrossEntropyLoss(), verbose=False)
    else:
        source.to(memory_format=layout)
        task = LogitDistillationTask(
            student,
            source,
            criterion=nn.CrossEntropyLoss(),
            task_loss_weight=workload.LABEL_WEIGHT,
            temperature=workload.TEMPERATURE,
            verbose=False,
        )
        with torch.no_grad():
            forward = statistics.median(measure_steps(lambda: source(images), arguments))
    task.train()
    optimizer = create_optimizer_v2(
        student, opt="sgd", lr=workload.LR, weight_decay=workload.WEIGHT_DECAY, momentum=workload.MOMENTUM
    )

    def step() -> None:
        task(images, labels)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    report(arguments, measure_steps(step, arguments), packages=(), compute=compute, source_forward=forward)


def _source(arguments: Arguments) -> nn.Module | None:
    if "kd" not in arguments.variant:
        return None
    name = workload.HEAVY_SOURCE if "heavy" in arguments.variant else workload.LIGHT_SOURCE
    return source_model(name, workload.CLASSES)


if __name__ == "__main__":
    main()
