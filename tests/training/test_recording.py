"""The recorded backbone: equal to the plain one on a GPU, and done without where it cannot be had."""

from __future__ import annotations

import copy
import logging

import pytest
import timm
import torch
from torch import nn

from potstill.models import features_of
from potstill.training.recording import RecordedFeatures, record_features


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model("test_efficientnet", num_classes=3).train()


def test_a_model_that_cannot_be_recorded_is_left_as_it_was(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def warm_up_and_fail(module: nn.Module, images: tuple[torch.Tensor, ...], **options: object) -> None:
        module(*images)  # which changes the running statistics
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", warm_up_and_fail)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        assert record_features(model, torch.ones(4, 3, 32, 32)) is None
    assert "not recorded" in caplog.text
    assert "operation not permitted when stream is capturing" in caplog.text
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs are recorded on a GPU")
def test_the_recorded_backbone_has_the_features_gradients_and_statistics_of_the_plain_one(model: nn.Module) -> None:
    plain = model.cuda()
    other = copy.deepcopy(plain)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)).cuda()
    recorded = RecordedFeatures(other, images)
    for step in range(3):
        expected, found = features_of(plain, images + step), recorded(images + step)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        expected.square().sum().backward()
        found.square().sum().backward()
    for (name, one), two in zip(plain.named_parameters(), other.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(two.grad, one.grad, rtol=1e-2, atol=1e-3, msg=name)
    for (name, one), two in zip(plain.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4, msg=name)
    with pytest.raises(ValueError, match="recorded for batches"):
        recorded(images[:4])
