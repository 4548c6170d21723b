"""One small supervised training loop, shared by the sources and the generic student."""

from __future__ import annotations

import time
from pathlib import Path

import timm
import torch
from augment import Variation, plain_pictures, vary_pictures
from parts import Part
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

MEAN = STD = 0.5
WARMUP = 0.05  # share of the steps


def normalise(images: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1], in the memory order that convolutions on a CPU like best."""
    return ((images - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def train_classifier(
    part: Part,
    architecture: str,
    variation: Variation,
    *,
    passes: int,
    seed: int,
    start: nn.Module | None = None,
    lr: float = 3e-3,
    batch: int = 128,
    progress: bool = True,
) -> nn.Module:
    """A timm model with a classifier over `part.classes` (over pictures, when the part has no classes).

    `passes` counts varied pictures. AdamW, weight decay 0.05, warm-up and cosine; weights of an exponential moving
    average are returned, with its batch-norm statistics.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    classes = int(part.labels.max()) + 1
    model = start or timm.create_model(architecture, num_classes=classes)
    model = model.to(memory_format=torch.channels_last).train()
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98), use_buffers=True
    )
    pictures, labels = torch.from_numpy(part.images), torch.from_numpy(part.labels)
    steps = max(1, passes // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=WARMUP, anneal_strategy="cos", cycle_momentum=False
    )
    order = torch.empty(0, dtype=torch.int64)
    begun, running = time.time(), 0.0
    for step in range(steps):
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(len(labels), generator=generator)])
        rows, order = order[:batch], order[batch:]
        loss = F.cross_entropy(model(normalise(vary_pictures(pictures[rows], variation, generator))), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        running = loss.item() if step == 0 else 0.95 * running + 0.05 * loss.item()
        if progress and (step + 1) % 500 == 0:
            print(f"  step {step + 1}/{steps}  loss {running:.3f}  {time.time() - begun:.0f} s", flush=True)
    return average.module.eval()


@torch.inference_mode()
def pooled_features(model: nn.Module, images: Tensor, batch: int = 512) -> Tensor:
    """Pooled penultimate activations `(N, D)` of normalised images."""
    chunks = (model.forward_features(chunk) for chunk in images.split(batch))
    return torch.cat([model.forward_head(chunk, pre_logits=True) for chunk in chunks])


@torch.inference_mode()
def accuracy_on(model: nn.Module, part: Part) -> float:
    """Top-1 accuracy on the plain pictures of a part."""
    pictures, labels = torch.from_numpy(part.images), torch.from_numpy(part.labels)
    hits = 0
    for rows in torch.arange(len(labels)).split(512):
        hits += int((model(normalise(plain_pictures(pictures[rows]))).argmax(1) == labels[rows]).sum())
    return hits / len(labels)


def save_half(model: nn.Module, path: Path, *, classifier: bool) -> None:
    """Float16 safetensors of the state dict; without a classifier the keys of the head's linear layer are left out."""
    if not classifier:
        model.reset_classifier(0)
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    save_file(state, path)
    path.chmod(0o644)  # safetensors writes files that only their owner may read
