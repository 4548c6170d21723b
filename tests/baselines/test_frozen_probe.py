"""The probe written into a student's head answers like the probe."""

from __future__ import annotations

import numpy as np
import timm
import torch

from potstill.baselines.frozen_probe import put_probe_head
from potstill.models import features_of
from potstill.probes import fit_probe, probe_logits


def test_model_answers_like_the_probe_on_its_features() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    images = torch.randn(30, 3, 32, 32)
    with torch.inference_mode():
        features = features_of(model, images).numpy()
    labels = np.arange(30) % 3
    put_probe_head(model, features, labels, num_classes=3)
    with torch.inference_mode():
        answers = model(images).numpy()
    expected = probe_logits(fit_probe(features, labels, 3), features)
    np.testing.assert_allclose(answers, expected, atol=1e-3 * np.abs(expected).max())
