"""Precision and layout: the rule on times written by hand, and real measurements of small models."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import nn

from potstill.errors import UsageError
from potstill.models import create_model
from potstill.training import compute
from potstill.training.compiling import compile_model
from potstill.training.compute import (
    CHOICES,
    ComputeChoice,
    candidates,
    choose_compute,
    measure_choices,
)

CPU = torch.device("cpu")


def small_model() -> nn.Module:
    return create_model("timm/test_efficientnet", num_classes=3)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"float32 channels_last": 1.0, "float32 contiguous": 1.7}, "float32 channels_last"),
        ({"float32 channels_last": 1.7, "float32 contiguous": 1.0}, "float32 contiguous"),
        ({"float32 channels_last": 1.0, "bfloat16 channels_last": 0.98}, "float32 channels_last"),
        ({"float32 channels_last": 1.0, "bfloat16 channels_last": 0.96}, "bfloat16 channels_last"),
        ({"float32 contiguous": 1.0, "bfloat16 channels_last": 0.5, "bfloat16 contiguous": 0.4}, "bfloat16 contiguous"),
        (
            {"bfloat16 contiguous": 1.0, "float32 contiguous": 1.0, "float32 channels_last": 1.0},
            "float32 channels_last",
        ),
    ],
)
def test_the_fastest_is_chosen_and_bfloat16_must_earn_it(seconds: dict[str, float], expected: str) -> None:
    assert choose_compute(seconds).name == expected


def test_the_choice_is_never_below_95_percent_of_the_best() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(500):
        times = (torch.rand(len(CHOICES), generator=generator) + 0.5).tolist()
        seconds = dict(zip(CHOICES, times, strict=True))
        assert min(times) / seconds[choose_compute(seconds).name] >= 0.95


@pytest.mark.parametrize(
    "seconds", [{}, {"float16 contiguous": 1.0}, {"float32 contiguous": math.nan}, {"float32 contiguous": 0.0}]
)
def test_times_that_mean_nothing_are_refused(seconds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected positive seconds"):
        choose_compute(seconds)


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(ValueError, match="margin"):
        choose_compute({"float32 contiguous": 1.0}, margin=-0.1)


def test_names_tell_choices_apart() -> None:
    every = [ComputeChoice(*each) for each in [("float32", True), ("float32", False), ("bfloat16", True)]]
    names = {each.name for each in [*every, ComputeChoice(compiled=True)]}
    assert names == {
        "float32 channels_last",
        "float32 contiguous",
        "bfloat16 channels_last",
        "float32 channels_last compiled",
    }
    assert all(CHOICES[each.name] == each for each in every)


def test_measuring_times_every_candidate_and_leaves_the_random_state_alone() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    told: list[tuple[int, int]] = []
    times = measure_choices(
        small_model,
        image_size=32,
        batch_size=12,
        device=CPU,
        choices=candidates(CPU),
        rounds=2,
        progress=lambda task, done, total: told.append((done, total)),
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert set(times.rounds) == {"float32 channels_last", "float32 contiguous", "bfloat16 channels_last"}
    assert all(min(each) > 0 and max(each) < 60 for each in times.rounds.values())
    assert len(times.rounds["float32 channels_last"]) in (1, 2)
    assert times.batch_size == 12
    assert told[-1] == (2, 2)
    assert choose_compute(times.fastest).name in times.rounds


def test_a_slow_step_is_probed_with_fewer_images(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(compute, "LONGEST_STEP", 1e-9)
    with caplog.at_level(logging.INFO):
        times = measure_choices(
            small_model, image_size=32, batch_size=64, device=CPU, choices=[ComputeChoice()], rounds=1
        )
    assert times.batch_size == compute.FIRST_ROWS
    assert "measured on 8" in caplog.text


class FakeTimes:
    """Stands for real steps: seconds by choice, and how often each was measured."""

    def __init__(self, seconds: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = seconds
        self.steps: list[str] = []
        monkeypatch.setattr(compute._Probe, "step", lambda _, choice, rows: self.take(choice))

    def take(self, choice: ComputeChoice) -> float:
        self.steps.append(choice.name)
        return self.seconds[choice.name]


def test_a_hopeless_choice_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTimes(
        {"float32 channels_last": 0.1, "float32 contiguous": 0.2, "bfloat16 channels_last": 0.5}, monkeypatch
    )
    times = measure_choices(small_model, image_size=32, batch_size=8, device=CPU, choices=candidates(CPU), rounds=4)
    assert times.fastest == times.typical == fake.seconds
    # Two steps to see how many images fit, one to warm up, then the rounds.
    assert [fake.steps.count(name) for name in fake.seconds] == [2 + 1 + 4, 1 + 4, 1 + 1]
    assert fake.steps[5:11] == [*fake.seconds, "float32 channels_last", "float32 contiguous", "float32 channels_last"]


def test_no_round_begins_after_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "BUDGET", -1.0)
    fake = FakeTimes({"float32 channels_last": 0.1}, monkeypatch)
    measure_choices(small_model, image_size=32, batch_size=8, device=CPU, choices=[ComputeChoice()], rounds=50)
    assert len(fake.steps) == 2 + 1 + compute.FEWEST_ROUNDS


class SmallMemory(nn.Module):
    """A model whose step fits into memory with at most `most` images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)
        self.most = most

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return self.layer(images).mean(dim=(2, 3))


def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does() -> None:
    def measured(most: int) -> int:
        return measure_choices(
            lambda: SmallMemory(most), image_size=8, batch_size=64, device=CPU, choices=candidates(CPU), rounds=1
        ).batch_size

    assert measured(20) == 16
    assert measured(3) == 2
    with pytest.raises(torch.OutOfMemoryError):
        measured(0)


class OnlyFloat32(nn.Module):
    """A model with an operation that has no bfloat16 form (`fails`), or whose values overflow under it."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)
        self.fails = fails

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.layer(images).mean(dim=(2, 3))
        if values.dtype == torch.float32:
            return values
        if self.fails:
            raise RuntimeError("not implemented for 'BFloat16'")
        return values / 0


@pytest.mark.parametrize(("fails", "reason"), [(True, "not implemented"), (False, "not finite")])
def test_bfloat16_that_does_not_work_is_left_out(fails: bool, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    times = measure_choices(
        lambda: OnlyFloat32(fails=fails), image_size=8, batch_size=8, device=CPU, choices=candidates(CPU), rounds=1
    )
    assert set(times.fastest) == {"float32 channels_last", "float32 contiguous"}
    assert times.rounds["bfloat16 channels_last"] == []
    assert reason in caplog.text


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="none compiled"):
        measure_choices(small_model, image_size=8, batch_size=8, device=CPU, choices=[ComputeChoice(compiled=True)])
    with pytest.raises(ValueError, match="float32 first"):
        measure_choices(
            small_model, image_size=8, batch_size=8, device=CPU, choices=[CHOICES["bfloat16 channels_last"]]
        )
    with pytest.raises(ValueError, match="batch_size and rounds"):
        measure_choices(small_model, image_size=8, batch_size=0, device=CPU, choices=[ComputeChoice()])


@pytest.mark.parametrize("name", CHOICES)
def test_a_step_under_any_choice_is_finite_and_keeps_float32_weights(name: str) -> None:
    choice = CHOICES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = small_model().to(memory_format=choice.memory_format).train()
        images = torch.randn(8, 3, 32, 32).contiguous(memory_format=choice.memory_format)
    expected = model(images)
    with choice.autocast(CPU):
        logits = model(images)
    assert logits.dtype == (torch.bfloat16 if choice.dtype == "bfloat16" else torch.float32)
    # bfloat16 has 8 significant bits, and batch statistics of 8 images magnify what is lost.
    error = (logits.float() - expected).norm() / expected.norm()
    assert error < (0.1 if choice.dtype == "bfloat16" else 1e-6)
    loss = nn.functional.cross_entropy(logits.float(), torch.arange(8) % 3)
    loss.backward()
    assert loss.isfinite()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
    assert {each.grad.dtype for each in model.parameters() if each.grad is not None} == {torch.float32}


def test_a_model_is_compiled_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def compiler(function: object, **_: object) -> object:
        calls.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    model = nn.Linear(2, 2)
    assert compile_model(model, ComputeChoice()) is model
    assert calls == []
    assert compile_model(model, ComputeChoice(compiled=True)) is model
    assert calls[-1] is model


def test_a_machine_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: object, **_: object) -> object:
        raise RuntimeError("no working C++ compiler found\nlong trace")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UsageError, match=r"--compile does not work here.*no working C\+\+ compiler found\. Install"):
        compile_model(nn.Linear(2, 2), ComputeChoice(compiled=True))
