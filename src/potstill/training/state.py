"""Everything that changes while a student trains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from timm.optim import param_groups_weight_decay  # type: ignore[attr-defined]
from torch import Tensor, nn

from potstill.allocation import keep_freed_memory
from potstill.training.averaging import WarmingAverage
from potstill.training.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from potstill.training.compiling import compile_model
from potstill.training.optimization import Optimization
from potstill.training.processes import accelerator_for
from potstill.training.recording import record_features
from potstill.training.student import Student, StudentOutputs, freeze_batch_norm


class TrainingState:
    """A student on its device with optimiser, averaged weights and history.

    `step` counts finished steps of `steps`; `seconds` is the time that they took, over all sittings; `pace` is that of
    TimeLimit. `memory` is an objective that remembers earlier batches.
    """

    def __init__(self, student: Student, settings: Optimization, *, memory: nn.Module | None = None) -> None:
        self.accelerator = accelerator_for(settings.device)
        if self.accelerator.device.type == "cpu":
            keep_freed_memory()
        self.student = student.to(device=self.accelerator.device).train()
        if settings.bn == "frozen":
            freeze_batch_norm(self.student)
        self.student.model.to(memory_format=settings.compute.memory_format)
        if settings.bn == "batch" and self.accelerator.num_processes > 1 and self.accelerator.device.type == "cuda":
            self.student.model = convert_sync_batchnorm(self.student.model)  # type: ignore[no-untyped-call]
        self.optimizer = torch.optim.SGD(
            param_groups_weight_decay(self.student, settings.weight_decay),
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=True,
            # One pass over the weights: with 8,000 source classes the plain form takes 25 times as long.
            fused=True,
        )
        # Source heads are thrown away in the end, so only the model is averaged.
        self.average = WarmingAverage(self.student.model, settings.ema)
        # The process wrapper is for the forward pass only: weights are read and saved through the bare student.
        wrapped = self.accelerator.prepare_model(self.student)
        self.accelerator.free_memory()  # it would keep every student that it ever prepared
        self._module: Callable[..., StudentOutputs] = compile_model(wrapped, settings.compute)
        self._compute = settings.compute
        self._recordable = (
            self.accelerator.device.type == "cuda"
            and self.accelerator.num_processes == 1
            and settings.accumulation == 1
            and settings.compute.dtype == "float32"
            and not settings.compute.compiled
        )
        self._memory = nn.Module() if memory is None else memory.to(self.accelerator.device)
        self.step = 0
        self.steps = settings.steps
        self.seconds = 0.0
        self.pace: tuple[int, float] = (0, 0.0)
        self.history: list[dict[str, float]] = []

    def forward(self, images: Tensor, labeled: int | None = None) -> StudentOutputs:
        """The student in its measured precision; what it returns is used in float32."""
        # A convolution follows the layout of its images, whatever that of its weights.
        laid_out = images.contiguous(memory_format=self._compute.memory_format)
        if self._recordable and self.student.recorded is None:
            self.student.recorded = record_features(self.student.model, laid_out)
            self._recordable = self.student.recorded is not None
        with self._compute.autocast(self.accelerator.device):
            return self._module(laid_out, labeled)

    def gradients_of_one_process(self, more_to_come: bool) -> AbstractContextManager[None]:
        """While `more_to_come`, gradients add up here; those of other processes join with the last."""
        if more_to_come and isinstance(self._module, nn.Module):
            waiting: AbstractContextManager[None] = self.accelerator.no_sync(self._module)
            return waiting
        return nullcontext()

    def averaged_model(self) -> nn.Module:
        """The timm model with averaged weights, on the CPU, in evaluation mode."""
        model: nn.Module = copy.deepcopy(self.average.module).cpu().eval()
        return model

    def is_finite(self) -> bool:
        """Whether no weight is infinite or not a number."""
        return bool(torch.stack([weight.isfinite().all() for weight in self.student.parameters()]).all())

    def checkpoint(self) -> Checkpoint:
        """A snapshot; its tensors are those of the state, not copies."""
        parts = {
            "student.": self.student.state_dict(),
            "average.": self.average.state_dict(),
            "optimizer.": optimizer_tensors(self.optimizer),
            "objective.": self._memory.state_dict(),
        }
        tensors = {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}
        return Checkpoint(self.step, self.steps, self.seconds, self.pace, self.history, tensors)

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a snapshot; None is the beginning."""
        if checkpoint is None:
            return
        self.student.load_state_dict(checkpoint.part("student."))
        self.average.load_state_dict(checkpoint.part("average."))
        restore_optimizer(self.optimizer, checkpoint.part("optimizer."))
        self._memory.load_state_dict(checkpoint.part("objective."))
        self.step, self.steps = checkpoint.step, checkpoint.steps
        self.seconds, self.pace, self.history = checkpoint.seconds, checkpoint.pace, list(checkpoint.history)
