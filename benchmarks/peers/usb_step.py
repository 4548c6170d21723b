"""USB's FixMatch step with its own algorithm class and hooks (PyPI: semilearn).

Two things are left out because they need CUDA, both in its favour: the copy of the batch to the GPU and the timer that
records CUDA events. Its loader is left out as well; the views lie ready in memory, normalised.
"""

from __future__ import annotations

from typing import Any

import torch
import workload
from semilearn import get_config
from semilearn.algorithms.fixmatch import FixMatch
from torch import Tensor, nn
from workload import measure_steps, normalised, pictures, report, student_model

VARIANTS = ("fixmatch",)


class Net(nn.Module):
    """The student as USB wants a network: a mapping with logits and features."""

    def __init__(self) -> None:
        super().__init__()
        self.model = student_model()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        return {"logits": self.model.get_classifier()(features), "feat": features}


def build_net(num_classes: int, pretrained: bool = False, pretrained_path: str = "") -> nn.Module:
    """Called by the algorithm, for the student and its average."""
    if num_classes != workload.CLASSES or pretrained:
        raise ValueError(f"expected {workload.CLASSES} classes and no weights, got {num_classes} and {pretrained}")
    return Net()


class FixMatchOnCPU(FixMatch):  # type: ignore[misc]
    """Without the timer of CUDA events."""

    def set_hooks(self) -> None:
        super().set_hooks()
        self._hooks = [hook for hook in self._hooks if hook.name != "TimerHook"]
        del self.hooks_dict["TimerHook"]


def main() -> None:
    arguments = workload.parse_arguments(VARIANTS)
    many = 1_000_000  # steps: evaluation, checkpoints and log lines never fall into the measurement
    config = get_config(
        {
            "algorithm": "fixmatch",
            "dataset": "none",
            "net": workload.STUDENT,
            "num_classes": workload.CLASSES,
            "batch_size": workload.FIXMATCH_LABELED,
            "uratio": workload.FIXMATCH_RATIO,
            "num_train_iter": many,
            "num_eval_iter": many,
            "num_log_iter": many,
            "lr": workload.LR,
            "momentum": workload.MOMENTUM,
            "weight_decay": workload.WEIGHT_DECAY,
            "ema_m": workload.EMA,
            "use_cat": True,
            "amp": False,
        }
    )
    config.distributed = False
    algorithm = FixMatchOnCPU(config, build_net)
    algorithm.model.train()
    algorithm.call_hook("before_run")
    views = _views()

    def step() -> None:
        algorithm.call_hook("before_train_step")
        algorithm.out_dict, algorithm.log_dict = algorithm.train_step(**views)
        algorithm.call_hook("after_train_step")
        algorithm.it += 1

    report(arguments, measure_steps(step, arguments), packages=("semilearn",))


def _views() -> dict[str, Any]:
    labeled = workload.FIXMATCH_LABELED
    unlabeled = labeled * workload.FIXMATCH_RATIO
    images = normalised(pictures(labeled + 2 * unlabeled))
    weak, strong = images[labeled:].chunk(2)
    labels = torch.from_numpy(workload.labels(labeled))
    return {"x_lb": images[:labeled], "y_lb": labels, "x_ulb_w": weak, "x_ulb_s": strong}


if __name__ == "__main__":
    main()
