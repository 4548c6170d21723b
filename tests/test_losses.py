import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from potstill.losses import (
    consistency_loss,
    cross_entropy,
    soft_cross_entropy,
    soft_target_losses,
    weighted_sum,
)
from potstill.types import DenseTargets, TopKTargets


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def finite_difference(function, point, step=1e-2):
    """Central differences of a scalar function, element by element."""
    gradient = torch.zeros_like(point)
    for place in range(point.numel()):
        shift = torch.zeros(point.numel())
        shift[place] = step
        shift = shift.reshape(point.shape)
        gradient.view(-1)[place] = (function(point + shift) - function(point - shift)) / (2 * step)
    return gradient


def gradient_of(function, point):
    point = point.clone().requires_grad_()
    function(point).backward()
    return point.grad


def test_cross_entropy_by_hand():
    logits, labels = random(5, 4), torch.tensor([0, 3, 2, 1, 1])
    expected = -sum(math.log(logits[i].exp()[labels[i]] / logits[i].exp().sum()) for i in range(5)) / 5
    assert cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_cross_entropy_by_hand(temperature):
    logits, target = random(3, 6), random(3, 6, seed=1).softmax(dim=1)
    expected = 0.0
    for row, probs in zip(logits.double() / temperature, target.double(), strict=True):
        expected -= (probs * (row - row.exp().sum().log())).sum().item() / 3
    result = soft_cross_entropy(logits, target, temperature=temperature)
    assert result.item() == pytest.approx(temperature**2 * expected, rel=1e-5)
    from_log = soft_cross_entropy(logits, target.log(), temperature=temperature, log_target=True)
    assert from_log.item() == pytest.approx(result.item(), rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_agreement_gives_no_gradient(temperature):
    logits = random(4, 7)
    target = (logits / temperature).softmax(dim=1)
    gradient = gradient_of(lambda x: soft_cross_entropy(x, target, temperature=temperature), logits)
    assert gradient.abs().max() < 1e-6


def test_gradient_is_that_of_kl():
    logits, target = random(4, 7), random(4, 7, seed=1).softmax(dim=1)
    ours = gradient_of(lambda x: soft_cross_entropy(x, target, temperature=2.0), logits)
    kl = gradient_of(lambda x: 4 * functional.kl_div((x / 2).log_softmax(dim=1), target, reduction="batchmean"), logits)
    torch.testing.assert_close(ours, kl)


def test_size_of_the_gradient_survives_temperature():
    # For high temperature the gradient tends to (z - v) / Z over centred logits (Hinton et al., equation 4).
    student, source = random(1, 5), random(1, 5, seed=1)
    expected = (student - student.mean() - source + source.mean()) / 5
    for temperature in (100.0, 1000.0):
        target = (source / temperature).softmax(dim=1)
        gradient = gradient_of(lambda x, t=temperature, q=target: soft_cross_entropy(x, q, temperature=t), student)
        torch.testing.assert_close(gradient, expected, atol=2e-2, rtol=0)


def test_gradients_equal_finite_differences():
    logits, labels, target = random(3, 4), torch.tensor([0, 2, 3]), random(3, 4, seed=1).softmax(dim=1)
    weak = 3 * random(3, 4, seed=2)
    for function in (
        lambda x: cross_entropy(x, labels),
        lambda x: soft_cross_entropy(x, target, temperature=2.0),
        lambda x: consistency_loss(weak, x, threshold=0.8)[0],
    ):
        torch.testing.assert_close(
            gradient_of(function, logits), finite_difference(function, logits), atol=1e-3, rtol=0
        )


def test_consistency_by_hand():
    weak = torch.tensor([[5.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 6.0], [1.0, 1.0, 1.0]])
    strong = random(4, 3)
    log_probs = strong.log_softmax(dim=1)
    loss, share = consistency_loss(weak, strong, threshold=0.95)
    assert loss.item() == pytest.approx(-(log_probs[0, 0] + log_probs[2, 2]).item() / 4, rel=1e-6)
    assert share.item() == 0.5


def test_consistency_without_a_confident_image_is_zero_and_differentiable():
    strong = random(4, 3).requires_grad_()
    loss, share = consistency_loss(torch.zeros(4, 3), strong, threshold=0.95)
    loss.backward()
    assert loss.item() == share.item() == 0.0
    assert strong.grad.abs().max() == 0


def test_no_gradient_into_targets():
    weak, strong = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    consistency_loss(weak, strong, threshold=0.0)[0].backward()
    soft_cross_entropy(strong, weak.softmax(dim=1), temperature=1.0).backward()
    assert weak.grad is None


def test_weight_zero_removes_the_gradient():
    used, unused = random(3).requires_grad_(), random(3, seed=1).requires_grad_()
    total = weighted_sum([(0.25, used.sum()), (0.0, unused.sum() * float("nan"))])
    total.backward()
    assert total.item() == pytest.approx(0.25 * used.sum().item())
    assert unused.grad is None
    torch.testing.assert_close(used.grad, torch.full((3,), 0.25))


@pytest.mark.parametrize("weights", [(), (0.0, 0.0), (1.0, -0.5), (1.0, float("nan"))])
def test_weights_that_make_no_sum(weights):
    with pytest.raises(ValueError, match="expected weights >= 0"):
        weighted_sum([(weight, torch.tensor(1.0)) for weight in weights])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_are_float32_and_do_not_overflow(dtype):
    logits = torch.tensor([[60_000.0, -60_000.0]]).to(dtype)
    labels, target = torch.tensor([1]), torch.tensor([[0.5, 0.5]])
    for loss in (
        cross_entropy(logits, labels),
        soft_cross_entropy(logits, target, temperature=0.5),
        consistency_loss(logits, logits, threshold=0.5)[0],
    ):
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="one label for each of 2 rows"):
        cross_entropy(torch.zeros(2, 3), torch.tensor([1]))
    with pytest.raises(ValueError, match="both at least 1"):
        cross_entropy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="expected target of shape"):
        soft_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 4), temperature=1.0)
    with pytest.raises(ValueError, match="temperature > 0"):
        soft_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0.0)
    with pytest.raises(ValueError, match="expected weak_logits of shape"):
        consistency_loss(torch.zeros(1, 3), torch.zeros(2, 3), threshold=0.5)


def spread(target):
    """A top-k target written out over all classes."""
    others = target.num_classes - target.probs.shape[1]
    rest = (1 - target.probs.sum(dim=1, keepdim=True)) / max(1, others)
    return rest.expand(-1, target.num_classes).scatter(1, target.indices, target.probs)


def likeliest(probs, k):
    values, indices = probs.topk(k, dim=1)
    return TopKTargets(indices, values, probs.shape[1])


@pytest.mark.parametrize("confident", [False, True])
def test_many_sources_at_once_equal_one_at_a_time(confident):
    classes, temperatures, rows = (5, 9, 30, 4), (1.0, 2.0, 4.0, 0.5), 7
    dense = [random(rows, each, seed=each).softmax(dim=1) for each in classes]
    targets = [DenseTargets(dense[0]), DenseTargets(dense[1]), likeliest(dense[2], 6), likeliest(dense[3], 4)]
    if confident:
        targets = [replace(each, confidence=random(rows, seed=9).abs()) for each in targets]
    weights, logits = torch.tensor([0.1, 0.4, 0.3, 0.2]), 3 * random(rows, sum(classes))

    def reference(logits):
        total = 0.0
        blocks = torch.split(logits.double(), classes, dim=1)
        for block, target, temperature, weight in zip(blocks, targets, temperatures, weights, strict=True):
            probs = (spread(target) if isinstance(target, TopKTargets) else target.probs).double()
            losses = -(probs * torch.log_softmax(block / temperature, dim=1)).sum(dim=1)
            total = total + weight * temperature**2 * (losses * (target.confidence if confident else 1.0)).mean()
        return total

    def ours(logits):
        return soft_target_losses(logits, targets, temperatures=temperatures) @ weights

    assert ours(logits).item() == pytest.approx(reference(logits).item(), rel=1e-6)
    torch.testing.assert_close(gradient_of(ours, logits), gradient_of(reference, logits).float(), rtol=1e-5, atol=1e-7)


def test_one_source_equals_the_single_loss():
    logits, probs = random(3, 6), random(3, 6, seed=1).softmax(dim=1)
    (many,) = soft_target_losses(logits, [DenseTargets(probs)], temperatures=[2.0])
    assert many.item() == pytest.approx(soft_cross_entropy(logits, probs, temperature=2.0).item(), rel=1e-6)


def test_agreement_with_every_source_gives_no_gradient():
    logits = random(4, 7)
    targets = [DenseTargets((block / 3).softmax(dim=1)) for block in torch.split(logits, (3, 4), dim=1)]
    gradient = gradient_of(lambda z: soft_target_losses(z, targets, temperatures=[3.0, 3.0]).sum(), logits)
    assert gradient.abs().max() < 1e-7


@pytest.mark.parametrize(
    ("shape", "temperatures", "message"),
    [
        ((2, 5), [1.0], "expected logits of 4 classes"),
        ((3, 4), [1.0], "expected 3 rows"),
        ((2, 4), [0.0], "temperatures > 0"),
        ((2, 4), [1.0, 1.0], "1 temperatures|and 2"),
        ((0, 4), [1.0], "both at least 1"),
    ],
)
def test_wrong_targets_are_named(shape, temperatures, message):
    with pytest.raises(ValueError, match=message):
        soft_target_losses(torch.zeros(shape), [DenseTargets(torch.full((2, 4), 0.25))], temperatures=temperatures)
