"""Mixup: one forward pass on mixed images, and the loss of the mixed targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from potstill.baselines.supervised import supervised_objective
from potstill.distillation.objective import source_space_objective
from potstill.training.mixing import mixed
from potstill.training.student import StudentOutputs
from potstill.types import Batch, DenseTargets, SoftTargets, TopKTargets

LABELED, POOL, CLASSES = 5, 6, 4
SOURCES = {"dense": 3, "top-k": 9}
WEIGHTS, TEMPERATURES = (0.25, 0.75), (1.5, 2.0)


class LinearStudent(nn.Module):
    """Linear in the pixels; remembers the images of every call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.target = nn.Linear(12, CLASSES)
        self.sources = nn.Linear(12, sum(SOURCES.values()))
        self.calls: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor, labeled: int | None = None) -> StudentOutputs:
        self.calls.append(images)
        features = images.flatten(1)
        pool = features[len(features) if labeled is None else labeled :]
        return StudentOutputs(features, self.target(features), self.sources(pool))


def batch_of(*, pool: bool) -> Batch:
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    listed = np.argsort(rng.random((POOL, 9)), axis=1)[:, :2]
    probs = torch.from_numpy(rng.dirichlet(np.ones(3), POOL)[:, :2]).float()
    answers = (
        DenseTargets(torch.randn(POOL, 3).softmax(dim=1), confidence=torch.rand(POOL)),
        TopKTargets(torch.from_numpy(listed), probs, num_classes=9),
    )
    return Batch(
        labeled_images=torch.randn(LABELED, 3, 2, 2),
        labels=torch.randint(0, CLASSES, (LABELED,)),
        pool_rows=torch.arange(POOL) + 10 if pool else None,
        pool_weak=torch.randn(POOL, 3, 2, 2) if pool else None,
        pool_strong=None,
        pool_passes=torch.arange(POOL) + 20 if pool else None,
        answers=answers if pool else (),
    )


def spread(targets: SoftTargets) -> torch.Tensor:
    """All Z probs times confidence, `(M, Z)` float64."""
    probs = targets.probs.double()
    if isinstance(targets, TopKTargets):
        rest = (1 - probs.sum(dim=1, keepdim=True)) / (targets.num_classes - probs.shape[1])
        probs = rest.repeat(1, targets.num_classes).scatter(1, targets.indices, probs)
    return probs if targets.confidence is None else probs * targets.confidence.double()[:, None]


def draws(alpha: float, seed: int, *, pool: bool) -> tuple[float, torch.Tensor, torch.Tensor]:
    """What the objective draws under a seed, in its order."""
    torch.manual_seed(seed)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    return share, torch.randperm(LABELED), torch.randperm(POOL) if pool else torch.empty(0)


def soft_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return -(target * logits.double().log_softmax(dim=1)).sum(dim=1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_are_mixed_like_images(smoothing: float) -> None:
    student, batch = LinearStudent(), batch_of(pool=False)
    share, partner, _ = draws(0.7, 5, pool=False)
    torch.manual_seed(5)
    loss = mixed(supervised_objective(label_smoothing=smoothing), alpha=0.7)(student, batch)["loss"]
    images = share * batch.labeled_images + (1 - share) * batch.labeled_images[partner]
    assert len(student.calls) == 1
    torch.testing.assert_close(student.calls[0], images)
    labels = functional.one_hot(batch.labels, CLASSES).double() * (1 - smoothing) + smoothing / CLASSES
    reference = soft_loss(student.target(images.flatten(1)), share * labels + (1 - share) * labels[partner])
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)


def test_answers_are_mixed_like_images_and_so_are_the_gradients() -> None:
    student, batch = LinearStudent(), batch_of(pool=True)
    share, partner, pool_partner = draws(0.7, 6, pool=True)
    torch.manual_seed(6)
    objective = source_space_objective(WEIGHTS, label_weight=0.3, temperatures=TEMPERATURES)
    terms = mixed(objective, alpha=0.7)(student, batch)
    terms["loss"].backward()
    gradients = [parameter.grad.clone() for parameter in student.parameters()]
    student.zero_grad()

    labeled = share * batch.labeled_images + (1 - share) * batch.labeled_images[partner]
    pool = share * batch.pool_weak + (1 - share) * batch.pool_weak[pool_partner]
    assert len(student.calls) == 1
    torch.testing.assert_close(student.calls[0], torch.cat([labeled, pool]))
    labels = functional.one_hot(batch.labels, CLASSES).double()
    supervised = soft_loss(student.target(labeled.flatten(1)), share * labels + (1 - share) * labels[partner])
    blocks = student.sources(pool.flatten(1)).split(list(SOURCES.values()), dim=1)
    distilled = 0
    for weight, temperature, block, answer in zip(WEIGHTS, TEMPERATURES, blocks, batch.answers, strict=True):
        target = share * spread(answer) + (1 - share) * spread(answer)[pool_partner]
        distilled = distilled + weight * temperature**2 * soft_loss(block / temperature, target)
    reference = 0.3 * supervised + 0.7 * distilled
    reference.backward()
    assert terms["supervised"].item() == pytest.approx(supervised.item(), rel=1e-5)
    assert terms["distilled"].item() == pytest.approx(distilled.item(), rel=1e-5)
    assert terms["loss"].item() == pytest.approx(reference.item(), rel=1e-5)
    for ours, parameter in zip(gradients, student.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_draw_depends_on_the_global_seed_alone_and_changes_from_call_to_call() -> None:
    objective, batch = mixed(supervised_objective(), alpha=1.0), batch_of(pool=False)

    def losses(seed: int) -> list[float]:
        student = LinearStudent()
        torch.manual_seed(seed)
        return [objective(student, batch)["loss"].item() for _ in range(2)]

    assert losses(1) == losses(1)
    assert len({*losses(1), *losses(2)}) == 4


def test_shares_follow_the_beta_distribution() -> None:
    """An image of ones and one of zeros become the share and what it leaves of 1, or stay as they are."""
    pair = replace(batch_of(pool=False), labeled_images=torch.ones(2, 3, 2, 2), labels=torch.tensor([0, 1]))
    pair.labeled_images[1] = 0
    objective, shares = mixed(supervised_objective(), alpha=0.6), []
    student = LinearStudent()
    torch.manual_seed(0)
    while len(shares) < 600:
        objective(student, pair)
        first, second = student.calls[-1][:, 0, 0, 0].tolist()
        if second != 0:
            assert first + second == pytest.approx(1)
            shares.append(first)
    assert stats.kstest(shares, stats.beta(0.6, 0.6).cdf).pvalue > 0.01


def test_mixed_images_keep_their_memory_format() -> None:
    batch, student = batch_of(pool=False), LinearStudent()
    images = batch.labeled_images.contiguous(memory_format=torch.channels_last)
    mixed(supervised_objective(), alpha=1.0)(student, replace(batch, labeled_images=images))
    assert student.calls[0].is_contiguous(memory_format=torch.channels_last)


def test_what_cannot_be_mixed_is_refused() -> None:
    for alpha in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="alpha > 0"):
            mixed(supervised_objective(), alpha=alpha)
    two_views = replace(batch_of(pool=True), pool_strong=torch.randn(POOL, 3, 2, 2))
    with pytest.raises(ValueError, match="without strong views"):
        mixed(supervised_objective(), alpha=1.0)(LinearStudent(), two_views)
