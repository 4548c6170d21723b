"""How a student is trained: plain settings, without work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from potstill.training.compute import ComputeChoice


@dataclass(frozen=True)
class Optimization:
    """Stochastic gradient descent with Nesterov momentum, warm-up and cosine.

    `lr` is the peak; `weight_decay` spares biases and norms; `ema` is the decay of the averaged weights, which are
    the ones that are kept; `bn` says whether batch statistics are used and updated or the initial ones are kept.
    `accumulation` parts of a batch go through the student one after the other, before their gradients make one step.
    `seconds` is a limit: a run that would exceed it is shortened, schedule and all.
    """

    steps: int
    lr: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    ema: float = 0.99
    bn: Literal["batch", "frozen"] = "batch"
    accumulation: int = 1
    seconds: float | None = None
    seed: int = 0
    device: str = "cpu"
    compute: ComputeChoice = ComputeChoice()


@dataclass(frozen=True)
class Loading:
    """Who prepares batches ahead: `workers` threads (0 is one), or processes that are forked or spawned."""

    workers: int = 0
    start: Literal["thread", "fork", "spawn"] = "thread"


@dataclass(frozen=True)
class CheckpointPolicy:
    """Where and how often the state is saved; `fingerprint` must match for a run to go on."""

    path: Path
    fingerprint: str
    every_seconds: float = 60.0
