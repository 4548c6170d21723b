"""What is known of a source without any image. A metric that ranks no better than these is not worth its time."""

from __future__ import annotations

from potstill.similarity._metric import Metric

BASELINES: dict[str, Metric] = {
    "params": Metric(float, needs=("params",)),
    "depth": Metric(float, needs=("depth",)),
    "stated-accuracy": Metric(float, needs=("stated_accuracy",)),
}
"""Parameter count; convolution and linear layers; accuracy on the source's own task as its card states it.

Bolya, Mittapalli, Hoffman, NeurIPS 2021, found depth alone a strong predictor of accuracy after transfer.
"""
