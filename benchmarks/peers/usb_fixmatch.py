"""Train a student by USB's FixMatch (PyPI: semilearn) on batches that were written beforehand; print its accuracy.

    python usb_fixmatch.py FOLDER      # called by ../suite/fixmatch_check.py, in USB's own environment

The loss, the hook that masks by confidence, the parameter groups of the optimizer, the exponential average of the
weights and its evaluation are USB's. Its loader, its schedule and its timer, which needs CUDA, are left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors.torch import load_file, save_file
from semilearn import get_config
from semilearn.algorithms.fixmatch import FixMatch
from torch import Tensor, nn


class FixMatchOnCPU(FixMatch):  # type: ignore[misc]
    """Without the timer of CUDA events."""

    def set_hooks(self) -> None:
        super().set_hooks()
        self._hooks = [hook for hook in self._hooks if hook.name != "TimerHook"]
        del self.hooks_dict["TimerHook"]


class Net(nn.Module):
    """A timm model as USB wants a network: a mapping with logits and features."""

    def __init__(self, exercise: dict[str, Any], folder: Path) -> None:
        super().__init__()
        self.model = timm.create_model(exercise["model"], num_classes=exercise["classes"])
        self.model.load_state_dict(load_file(folder / "initial.safetensors"))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        return {"logits": self.model.get_classifier()(features), "feat": features}


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    exercise = json.loads((folder / "exercise.json").read_text(encoding="utf-8"))
    rates = exercise["learning_rates"]
    config = get_config(
        {
            "algorithm": "fixmatch",
            "dataset": "none",
            "net": exercise["model"],
            "num_classes": exercise["classes"],
            "batch_size": exercise["labeled"],
            "uratio": exercise["ratio"],
            "num_train_iter": 10 * len(rates),  # so that it never evaluates: there is no loader
            "num_eval_iter": 10 * len(rates),
            "num_log_iter": 10 * len(rates),
            "lr": max(rates),
            "momentum": exercise["momentum"],
            "weight_decay": exercise["weight_decay"],
            "ema_m": exercise["ema"],
            "use_cat": True,
            "amp": False,
            "p_cutoff": exercise["threshold"],
            "hard_label": True,
            "ulb_loss_ratio": 1.0,
        }
    )
    config.distributed = False
    algorithm = FixMatchOnCPU(config, lambda num_classes, **options: Net(exercise, folder))
    algorithm.model.train()
    algorithm.call_hook("before_run")

    def normalised(images: npt.NDArray[np.uint8]) -> Tensor:
        mean, std = (torch.tensor(exercise[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
        return ((torch.from_numpy(images).float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    # The schedule steps once a step; ours takes its place, so that both go down alike.
    algorithm.scheduler = torch.optim.lr_scheduler.LambdaLR(
        algorithm.optimizer, lambda step: rates[min(step, len(rates) - 1)] / max(rates)
    )
    looks = []
    for step in range(len(rates)):
        with np.load(folder / "batches" / f"{step}.npz") as arrays:
            views = {
                "x_lb": normalised(arrays["labeled"]),
                "y_lb": torch.from_numpy(arrays["labels"]),
                "x_ulb_w": normalised(arrays["weak"]),
                "x_ulb_s": normalised(arrays["strong"]),
            }
        if step in exercise["looks"]:
            state = {name: value.clone() for name, value in algorithm.model.model.state_dict().items()}
            save_file(state, folder / f"look-{step}.safetensors")
        algorithm.call_hook("before_train_step")
        algorithm.out_dict, algorithm.log_dict = algorithm.train_step(**views)
        algorithm.call_hook("after_train_step")
        if step in exercise["looks"]:
            names = ("sup_loss", "unsup_loss", "total_loss")
            looks.append([float(algorithm.log_dict[f"train/{name}"]) for name in names])
        algorithm.it += 1
    with np.load(folder / "test.npz") as arrays:
        images, labels = normalised(arrays["images"]), arrays["labels"]
    found: dict[str, Any] = {"looks": looks}
    for name, model in (("usb", algorithm.ema_model), ("usb_without_average", algorithm.model)):
        model.eval()
        with torch.inference_mode():
            predicted = torch.cat([model(part)["logits"].argmax(dim=1) for part in images.split(128)])
        found[name] = float((predicted.numpy() == labels).mean())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
