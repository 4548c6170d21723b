"""Loss functions of logits. All compute in float32 and return a scalar tensor that carries a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from potstill.types import DenseTargets, SoftTargets


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of labeled images, `mean_B -log softmax(logits)[label]`.

    With smoothing s the target is (1 - s) times the label plus s spread evenly over all C classes, the label's own
    included (Szegedy et al., CVPR 2016, arXiv 1512.00567, section 7).

    Args:
        logits: `(B, C)`, any floating dtype; cast to float32.
        labels: `(B,)` int64 in 0..C-1.
        smoothing: s in [0, 1).

    Returns:
        Scalar float32 >= 0, in nats.

    Raises:
        ValueError: shapes do not fit, B = 0 (the mean of nothing would be NaN), or s is outside its range.

    >>> cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([1])).item()  # log 2
    0.693147...
    """
    _require_rows(logits, "logits")
    if labels.shape != logits.shape[:1]:
        raise ValueError(
            f"expected one label for each of {len(logits)} rows of logits, got shape {tuple(labels.shape)}"
        )
    if not 0 <= smoothing < 1:
        raise ValueError(f"expected smoothing in [0, 1), got {smoothing}")
    return functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def soft_cross_entropy(
    student_logits: Tensor, target: Tensor, *, temperature: float, log_target: bool = False
) -> Tensor:
    """Distillation loss `T^2 * mean_B CE(target, softmax(student_logits / T))`.

    Soft cross-entropy is KL divergence plus the entropy of the target, so the gradient is that of KL: zero where the
    student agrees. The gradient by a logit is (softmax(student_logits / T) - target) / T before the factor; T^2 keeps
    it at the same size when T changes (Hinton, Vinyals, Dean, arXiv 1503.02531, section 2.1). The factor is part of
    the returned value.

    Args:
        student_logits: `(B, Z)`, any floating dtype, NOT yet divided by T; cast to float32.
        target: `(B, Z)` probs, ALREADY at temperature T, rows summing to 1; no gradient flows into it.
        temperature: T > 0.
        log_target: True if `target` holds log_probs.

    Returns:
        Scalar float32 >= 0, in nats times T^2.

    Raises:
        ValueError: shapes do not fit, B = 0, or T is not positive.

    >>> soft_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]), temperature=2.0).item()  # 4 log 2
    2.772588...
    """
    _require_rows(student_logits, "student_logits")
    if target.shape != student_logits.shape:
        raise ValueError(f"expected target of shape {tuple(student_logits.shape)}, got {tuple(target.shape)}")
    if not temperature > 0:
        raise ValueError(f"expected temperature > 0, got {temperature}")
    probs = target.detach().float().exp() if log_target else target.detach().float()
    return functional.cross_entropy(student_logits.float() / temperature, probs) * temperature**2


def soft_target_losses(logits: Tensor, targets: Sequence[SoftTargets], *, temperatures: Sequence[float]) -> Tensor:
    """`soft_cross_entropy` of many sources at once, `T_s^2 * mean_B c_s CE(q_s, softmax(z_s / T_s))` for each.

    The gradient is computed with the loss, in one pass over the logits, and top-k targets are never spread out: with
    p = softmax(z / T) and the rest of a target's mass even over Z - K classes, u each, the loss is
    `-sum_K (q - u) log p - u sum_Z log p` and its gradient by z is `T c (p - q) / B`. 28 sources cost little more than
    their matrix product.

    Args:
        logits: `(B, Z_1 + ... + Z_S)`, blocks in the order of the targets, NOT divided by T; cast to float32.
        targets: S of them, ALREADY softened at their T; no gradient flows into them.
        temperatures: T_s > 0.

    Returns:
        `(S,)` float32, in nats times T^2. Can be differentiated once.

    Raises:
        ValueError: shapes do not fit, B = 0, no targets, or a temperature that is not positive.

    >>> coin = DenseTargets(torch.tensor([[0.5, 0.5]]))
    >>> soft_target_losses(torch.zeros(1, 4), [coin, coin], temperatures=[2.0, 1.0])  # 4 log 2, log 2
    tensor([2.7726, 0.6931])
    """
    _require_rows(logits, "logits")
    classes = [target.num_classes for target in targets]
    if not targets or sum(classes) != logits.shape[1] or len(temperatures) != len(targets):
        raise ValueError(
            f"expected logits of {sum(classes)} classes and {len(targets)} temperatures for {len(targets)} targets, "
            f"got {logits.shape[1]} and {len(temperatures)}"
        )
    if any(len(target.probs) != len(logits) for target in targets):
        raise ValueError(f"expected {len(logits)} rows in every target, got {[len(each.probs) for each in targets]}")
    if not all(temperature > 0 for temperature in temperatures):
        raise ValueError(f"expected temperatures > 0, got {list(temperatures)}")
    losses: Tensor = _SoftTargetLosses.apply(logits.float(), tuple(targets), tuple(temperatures))
    return losses


class _SoftTargetLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: tuple[SoftTargets, ...], temperatures: tuple[float, ...]) -> Tensor:
        gradient = torch.empty_like(logits)
        losses = logits.new_empty(len(targets))
        classes = [target.num_classes for target in targets]
        blocks = zip(torch.split(logits, classes, dim=1), torch.split(gradient, classes, dim=1), strict=True)
        for number, (block, slope) in enumerate(blocks):
            target, temperature = targets[number], temperatures[number]
            log_probs = torch.log_softmax(block / temperature if temperature != 1 else block, dim=1)
            torch.exp(log_probs, out=slope)
            rows = _subtract_target(target, log_probs, slope)
            if target.confidence is not None:
                rows = rows * target.confidence
                slope *= target.confidence[:, None]
            slope *= temperature / len(logits)
            losses[number] = rows.mean() * temperature**2
        ctx.save_for_backward(gradient)
        ctx.classes = classes
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        classes = torch.tensor(ctx.classes, device=upstream.device)
        return gradient * upstream.repeat_interleave(classes, output_size=gradient.shape[1]), None, None


def _subtract_target(target: SoftTargets, log_probs: Tensor, slope: Tensor) -> Tensor:
    """Take the target's probs from `slope`, `(B, Z)` probs of the student, in place; the cross-entropy `(B,)`."""
    if isinstance(target, DenseTargets):
        slope -= target.probs
        return -(target.probs * log_probs).sum(dim=1)
    others = max(1, target.num_classes - target.probs.shape[1])
    rest = ((1 - target.probs.sum(dim=1, keepdim=True)) / others).clamp(min=0)
    above = target.probs - rest
    slope -= rest
    slope.scatter_add_(1, target.indices, -above)
    return -(above * log_probs.gather(1, target.indices)).sum(dim=1) - rest[:, 0] * log_probs.sum(dim=1)


def consistency_loss(weak_logits: Tensor, strong_logits: Tensor, *, threshold: float) -> tuple[Tensor, Tensor]:
    """FixMatch's unlabeled loss: the confident answer for the weak view is the label of the strong view.

    `mean_B 1[max q >= threshold] CE(argmax q, softmax(strong_logits))` with q = softmax(weak_logits) (Sohn et al.,
    NeurIPS 2020, arXiv 2001.07685, equation 4). The mean is over all B images, not over the confident ones.

    Args:
        weak_logits: `(B, C)`, any floating dtype; no gradient flows into it.
        strong_logits: `(B, C)` of the same images; cast to float32.
        threshold: tau in [0, 1].

    Returns:
        The loss, scalar float32 >= 0, and the share of images that were confident enough, scalar in [0, 1].

    Raises:
        ValueError: shapes do not fit or B = 0.

    >>> loss, share = consistency_loss(torch.tensor([[9.0, 0.0], [0.1, 0.0]]), torch.zeros(2, 2), threshold=0.95)
    >>> loss.item(), share.item()  # (log 2 + 0) / 2
    (0.346573..., 0.5)
    """
    _require_rows(strong_logits, "strong_logits")
    if weak_logits.shape != strong_logits.shape:
        raise ValueError(f"expected weak_logits of shape {tuple(strong_logits.shape)}, got {tuple(weak_logits.shape)}")
    confidence, pseudo_labels = weak_logits.detach().float().softmax(dim=1).max(dim=1)
    confident = (confidence >= threshold).float()
    losses = functional.cross_entropy(strong_logits.float(), pseudo_labels, reduction="none")
    return (losses * confident).mean(), confident.mean()


def weighted_sum(terms: Iterable[tuple[float, Tensor]]) -> Tensor:
    """Sum of weight times loss. A term of weight 0 is left out: it sends no gradient, not even 0 times NaN.

    Args:
        terms: pairs of a weight >= 0 and a scalar loss.

    Raises:
        ValueError: a weight is negative or NaN, or no weight is positive (nothing would be trained).

    >>> weighted_sum([(0.5, torch.tensor(4.0)), (0.0, torch.tensor(float("nan")))]).item()
    2.0
    """
    pairs = list(terms)
    weights = [weight for weight, _ in pairs]
    if not all(weight >= 0 for weight in weights) or not any(weight > 0 for weight in weights):
        raise ValueError(f"expected weights >= 0, at least one of them positive, got {weights}")
    return torch.stack([weight * loss for weight, loss in pairs if weight > 0]).sum()


def _require_rows(logits: Tensor, name: str) -> None:
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"expected {name} of shape (images, classes), both at least 1, got {tuple(logits.shape)}")
