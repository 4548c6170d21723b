"""Which number format and memory layout a student trains fastest in: measured on this machine, never assumed.

On a CPU, channels-last convolutions are faster than contiguous ones for most models, and bfloat16 is faster for models
of large matrix products and slower for depthwise convolutions. No rule of thumb holds on every machine.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from potstill.allocation import keep_freed_memory
from potstill.convolutions import repeatable_convolutions
from potstill.types import Progress, no_progress

logger = logging.getLogger(__name__)

Dtype = Literal["float32", "bfloat16"]
Result = TypeVar("Result")

LONGEST_STEP = 1.0
"""Seconds: a probing batch is made so small that a step takes no longer."""
BUDGET = 12.0
"""Seconds after which no further round begins, once there were FEWEST_ROUNDS."""
FEWEST_ROUNDS = 2
FIRST_ROWS = 8
HOPELESS = 3.0
"""A choice that is so many times slower than the best after one round is not measured again."""


@dataclass(frozen=True)
class ComputeChoice:
    """How a student's forward and backward pass is computed. Weights and optimiser state are float32 whatever it says.

    `dtype` is that of `torch.autocast`; `channels_last` says how images and convolution weights lie in memory;
    `compiled` asks for `torch.compile`, which is never chosen by measurement.

    >>> ComputeChoice().name
    'float32 channels_last'
    """

    dtype: Dtype = "float32"
    channels_last: bool = True
    compiled: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as torch names it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def name(self) -> str:
        """Dtype and layout in words, for tables and records."""
        layout = "channels_last" if self.channels_last else "contiguous"
        return f"{self.dtype} {layout}{' compiled' if self.compiled else ''}"

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of the forward pass; it does nothing for float32."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.dtype == "bfloat16")


@dataclass(frozen=True)
class ComputeTimes:
    """Seconds of training steps of `batch_size` images: those of each round, by the name of the choice.

    A choice that does not work has no rounds.

    >>> times = ComputeTimes({"float32 contiguous": (0.3, 0.2, 0.9), "bfloat16 contiguous": ()}, batch_size=64)
    >>> times.fastest, times.typical
    ({'float32 contiguous': 0.2}, {'float32 contiguous': 0.3})
    """

    rounds: Mapping[str, Sequence[float]]
    batch_size: int

    @property
    def fastest(self) -> dict[str, float]:
        """The fastest round of each choice that works: with which one choices are compared.

        Another process can only add to a time, so on a busy machine the minimum tells more about the choice, and the
        median more about the neighbours.
        """
        return {name: min(seconds) for name, seconds in self.rounds.items() if seconds}

    @property
    def typical(self) -> dict[str, float]:
        """The median round of each choice that works: what a step takes on this machine as busy as it is."""
        return {name: statistics.median(seconds) for name, seconds in self.rounds.items() if seconds}


FLOAT32_CONTIGUOUS = ComputeChoice("float32", channels_last=False)
FLOAT32_CHANNELS_LAST = ComputeChoice("float32", channels_last=True)
BFLOAT16_CONTIGUOUS = ComputeChoice("bfloat16", channels_last=False)
BFLOAT16_CHANNELS_LAST = ComputeChoice("bfloat16", channels_last=True)
CHOICES = {
    choice.name: choice
    for choice in (FLOAT32_CHANNELS_LAST, FLOAT32_CONTIGUOUS, BFLOAT16_CHANNELS_LAST, BFLOAT16_CONTIGUOUS)
}


def candidates(device: torch.device) -> tuple[ComputeChoice, ...]:
    """The choices that are worth measuring on a kind of device: bfloat16 only where the hardware may gain from it."""
    if device.type == "cpu":
        return FLOAT32_CHANNELS_LAST, FLOAT32_CONTIGUOUS, BFLOAT16_CHANNELS_LAST
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return tuple(CHOICES.values())
    return FLOAT32_CHANNELS_LAST, FLOAT32_CONTIGUOUS


def measure_choices(
    make_model: Callable[[], nn.Module],
    *,
    image_size: int,
    batch_size: int,
    device: torch.device,
    choices: Sequence[ComputeChoice],
    rounds: int = 5,
    progress: Progress = no_progress,
) -> ComputeTimes:
    """Time training steps (forward and backward on random images) of a model in each of several choices.

    The choices take turns, so that a busy moment hurts all alike. Where a step of `batch_size` images would last longer
    than LONGEST_STEP, fewer are used; the result says how many. A bfloat16 choice that the model cannot run, or that
    gives a loss that is not finite, gets no rounds, with a warning. A choice that is HOPELESS after one round gets no
    more. Takes about BUDGET seconds at most, or three steps of each choice where those take longer. The global random
    state is left as it was.

    Args:
        make_model: gives a new model with float32 weights on the CPU; called once for each layout.
        image_size: side S of the images `(B, 3, S, S)`.
        batch_size: largest number of images in a step.
        device: where to measure.
        choices: what to compare, a float32 one first, none of them compiled.
        rounds: at least 1; fewer are made when the budget is spent.
        progress: told after each round.

    Raises:
        ValueError: no choices, not float32 first, a compiled one, or a batch size or number of rounds below 1.
        FloatingPointError: the loss is not finite in float32.
        RuntimeError: a float32 step fails.
    """
    if not choices or choices[0].dtype != "float32" or any(choice.compiled for choice in choices):
        raise ValueError(f"expected choices, float32 first, none compiled, got {[choice.name for choice in choices]}")
    if batch_size < 1 or rounds < 1:
        raise ValueError(f"expected batch_size and rounds >= 1, got {batch_size} and {rounds}")
    started = time.monotonic()
    if device.type == "cpu":
        keep_freed_memory()  # as training does
    with torch.random.fork_rng([device] if device.type == "cuda" else []), repeatable_convolutions(device):
        torch.manual_seed(0)
        probe = _Probe(make_model, image_size, device, choices)
        first = min(FIRST_ROWS, batch_size)
        _, rows = _fitting(first, lambda some: _probing_rows(probe, choices[0], batch_size, some))
        if rows < batch_size:
            logger.info("A step of %d images is slow here; precision and layout are measured on %d.", batch_size, rows)
        rows, left = _fitting(rows, lambda some: [choice for choice in choices if _works(probe, choice, some)])
        seconds: dict[str, list[float]] = {choice.name: [] for choice in choices}
        for number in range(rounds):
            if number >= FEWEST_ROUNDS and time.monotonic() - started > BUDGET:
                break
            for choice in left:
                seconds[choice.name].append(probe.step(choice, rows))
            best = min(min(seconds[choice.name]) for choice in left)
            left = [choice for choice in left if min(seconds[choice.name]) <= HOPELESS * best]
            progress("measure precision and layout", number + 1, rounds)
        progress("measure precision and layout", rounds, rounds)
    return ComputeTimes(seconds, rows)


def choose_compute(seconds: Mapping[str, float], *, margin: float = 0.03) -> ComputeChoice:
    """The fastest choice, but float32 unless bfloat16 is faster by more than `margin`.

    So the choice has at least 1 / (1 + margin) of the best speed, and no digits are given away for nothing.

    Args:
        seconds: time of a step by the name of the choice, for example `ComputeTimes.fastest`.
        margin: >= 0.

    Raises:
        ValueError: nothing was measured, a name is unknown, a time is not positive and finite, or `margin` is negative.

    >>> choose_compute({"float32 channels_last": 1.02, "bfloat16 channels_last": 1.0}).name
    'float32 channels_last'
    """
    if not seconds or not all(name in CHOICES and 0 < each < math.inf for name, each in seconds.items()):
        raise ValueError(f"expected positive seconds by names out of {list(CHOICES)}, got {dict(seconds)}")
    if not margin >= 0:
        raise ValueError(f"expected margin >= 0, got {margin}")
    handicap = {name: each * (1 + margin if CHOICES[name].dtype == "bfloat16" else 1) for name, each in seconds.items()}
    # Names in a fixed order: a tie must not depend on the order in which things were measured.
    return CHOICES[min((name for name in CHOICES if name in handicap), key=handicap.__getitem__)]


class _Probe:
    """Models in both layouts, and training steps of them."""

    def __init__(
        self,
        make_model: Callable[[], nn.Module],
        image_size: int,
        device: torch.device,
        choices: Sequence[ComputeChoice],
    ) -> None:
        # One model for each layout: converting a model back and forth leaves traces in the strides of 1 x 1 and
        # depthwise kernels, from which convolutions guess the layout.
        self._models = {
            each: make_model().to(device).to(memory_format=each).train()
            for each in dict.fromkeys(choice.memory_format for choice in choices)
        }
        self._image_size = image_size
        self._device = device

    def step(self, choice: ComputeChoice, rows: int) -> float:
        """Seconds of one forward and backward pass. Raises FloatingPointError if the loss is not finite."""
        size = self._image_size
        images = torch.randn(rows, 3, size, size).to(self._device).contiguous(memory_format=choice.memory_format)
        model = self._models[choice.memory_format]
        self._wait()
        started = time.perf_counter()
        with choice.autocast(self._device):
            logits: Tensor = model(images)
        loss = logits.float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self._wait()
        seconds = time.perf_counter() - started
        model.zero_grad(set_to_none=True)
        if not bool(loss.detach().isfinite()):
            raise FloatingPointError(f"the loss of {choice.name} is not finite")
        return seconds

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _probing_rows(probe: _Probe, choice: ComputeChoice, batch_size: int, first: int) -> int:
    """How many images a step may have without lasting longer than LONGEST_STEP; at least `first`, which it tries."""
    # The second of two steps: the first one of a process also loads and tunes kernels.
    per_image = min(probe.step(choice, first) for _ in range(2)) / first
    return min(batch_size, max(first, int(LONGEST_STEP / per_image)))


def _fitting(rows: int, attempt: Callable[[int], Result]) -> tuple[int, Result]:
    """What an attempt with some rows gives, and with how many: half of them whenever they do not fit into memory."""
    while True:
        try:
            return rows, attempt(rows)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            rows //= 2
            logger.info("So many images do not fit into the device's memory; precision is measured on %d.", rows)


def _works(probe: _Probe, choice: ComputeChoice, rows: int) -> bool:
    """One step to warm up. float32 must work; bfloat16 is an offer that a model or device may not be able to take."""
    try:
        probe.step(choice, rows)
    except torch.OutOfMemoryError:
        raise  # it is one of the RuntimeErrors
    except (RuntimeError, FloatingPointError) as error:
        if choice.dtype == "float32":
            raise
        logger.warning("The student does not train in %s (%s); it is left out.", choice.name, error)
        return False
    return True
