"""The loop against a plain torch loop, and its promises: same bits, resume, clear failures."""

from __future__ import annotations

import gc
import signal
import weakref
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from potstill.baselines.supervised import supervised_objective
from potstill.errors import CheckpointError, DivergedError, Interrupted
from potstill.training.batches import BatchPlan, TrainingBatches
from potstill.training.checkpoint import load_checkpoint
from potstill.training.compute import ComputeChoice
from potstill.training.interruption import SIGNALS, stop_on_signal
from potstill.training.loop import Forward, Trained, train_student
from potstill.training.optimization import CheckpointPolicy, Optimization
from potstill.training.schedule import learning_rate
from potstill.training.student import Student
from potstill.types import Batch, ViewKind

CLASSES, SIZE = 3, 32


class ColourViews:
    """Noisy images whose mean colour tells the class; noise depends on row and epoch alone."""

    def __init__(self, labels: np.ndarray) -> None:
        self._labels = labels

    def views(self, rows: np.ndarray, kind: ViewKind, *, epoch: np.ndarray, draw: int) -> torch.Tensor:
        images = [
            np.random.default_rng([int(row), int(number), draw]).normal(
                np.eye(3)[self._labels[row]][:, None, None], 0.5, (3, SIZE, SIZE)
            )
            for row, number in zip(rows, epoch, strict=True)
        ]
        return torch.from_numpy(np.clip(50 * np.stack(images) + 100, 0, 255).astype(np.uint8))

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        return (images.float() - 100) / 50


def make_student(name: str = "test_efficientnet", sources: dict[str, int] | None = None) -> Student:
    torch.manual_seed(5)
    return Student(timm.create_model(name, num_classes=CLASSES), sources or {})


def make_batches(steps: int) -> TrainingBatches:
    labels = np.arange(12) % CLASSES
    return TrainingBatches(ColourViews(labels), labels, pool_size=12, plan=BatchPlan(labeled=9), steps=steps, seed=0)


def train(steps: int = 6, **options: object) -> Trained:
    settings = Optimization(steps=steps, lr=0.05, ema=float(options.pop("ema", 0.9)), bn=options.pop("bn", "batch"))  # type: ignore[arg-type]
    student = options.pop("student", None) or make_student()
    return train_student(student, make_batches(steps), supervised_objective(), settings=settings, **options)  # type: ignore[arg-type]


def same_bits(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_equals_a_plain_loop_without_averaging() -> None:
    trained = train(steps=5, ema=0.0)
    reference = make_student().model.to(memory_format=torch.channels_last).train()
    decayed = [each for each in reference.parameters() if each.ndim > 1]
    spared = [each for each in reference.parameters() if each.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": spared, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 5e-4}],
        lr=0.05,
        momentum=0.9,
        nesterov=True,
    )
    batches = make_batches(5)
    for step in range(5):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 5, peak=0.05)
        batch = batches.batch(step)
        images = (batch.labeled_images.float() - 100) / 50
        loss = nn.functional.cross_entropy(reference(images), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(trained.model.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_learns_and_counts_images() -> None:
    trained = train(steps=40)
    assert trained.history[-1]["loss"] < 0.5 * trained.history[0]["loss"]
    assert trained.images_seen == trained.images_trained == 40 * 9
    assert not trained.model.training
    rows = np.arange(12)
    views = ColourViews(rows % CLASSES)
    images = views.views(rows, "plain", epoch=np.full(12, 99), draw=0)
    with torch.inference_mode():
        assert (trained.model(views.normalise(images)).argmax(1).numpy() == rows % CLASSES).mean() >= 0.9


def test_same_bits_twice_and_the_callers_random_state_is_untouched() -> None:
    student, other = make_student(), make_student()
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = train(student=student)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_bits(first.model, train(student=other).model)


@pytest.mark.parametrize("stop_after", [1, 3, 6])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, stop_after: int) -> None:
    whole = train()
    policy = CheckpointPolicy(tmp_path / "last.safetensors", fingerprint="a")
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted, match=f"after step {stop_after} of 6"):
        train(checkpoints=policy, should_stop=lambda: next(calls) == stop_after)
    resumed = train(checkpoints=policy)
    assert same_bits(whole.model, resumed.model)
    drop = ("seconds",)
    rows = [[{k: v for k, v in row.items() if k not in drop} for row in each.history] for each in (whole, resumed)]
    assert rows[0] == rows[1]


def test_a_request_that_comes_after_the_last_step_is_followed_too() -> None:
    handlers = [signal.getsignal(number) for number in SIGNALS]

    def late(error: Exception | None = None) -> None:
        with stop_on_signal() as should_stop:
            train(steps=1, should_stop=should_stop)
            signal.raise_signal(signal.SIGTERM)
            if error:
                raise error

    with pytest.raises(Interrupted):
        late()
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    with pytest.raises(Interrupted):  # a comparison goes on after a student that diverged
        late(DivergedError())
    with pytest.raises(CheckpointError):
        late(CheckpointError())
    with pytest.raises(DivergedError), stop_on_signal():
        raise DivergedError
    with stop_on_signal() as should_stop:
        assert not should_stop()


def test_weights_that_are_not_finite_take_no_checkpoints_place(tmp_path: Path) -> None:
    policy = CheckpointPolicy(tmp_path / "last.safetensors", fingerprint="a", every_seconds=0.0)

    def diverging(student: Forward, batch: Batch) -> dict[str, torch.Tensor]:
        loss = student(batch.labeled_images).logits.square().mean()
        calls.append(None)
        return {"loss": loss * (float("nan") if len(calls) > 250 else 1.0)}

    calls: list[None] = []
    settings = Optimization(steps=400, lr=1e-3)  # the history has every fourth step
    with pytest.raises(DivergedError):
        train_student(make_student(), make_batches(400), diverging, settings=settings, checkpoints=policy)
    saved = load_checkpoint(policy.path, fingerprint="a")
    assert saved is not None
    assert saved.step == 250
    assert all(tensor.isfinite().all() for tensor in saved.tensors.values())


def test_a_trained_student_is_not_kept() -> None:
    student = make_student()
    gone = weakref.ref(student)
    train(steps=1, student=student)
    del student
    gc.collect()
    assert gone() is None


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    with pytest.raises(Interrupted):
        train(checkpoints=CheckpointPolicy(path, fingerprint="a"), should_stop=lambda: True)
    with pytest.raises(CheckpointError, match="another configuration"):
        train(checkpoints=CheckpointPolicy(path, fingerprint="b"))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        train(checkpoints=CheckpointPolicy(path, fingerprint="a"))


def test_frozen_batch_statistics_stay_and_affine_parameters_move() -> None:
    initial = make_student().model.state_dict()
    trained = train(bn="frozen", ema=0.0).model.state_dict()
    means = [name for name in initial if name.endswith("running_mean")]
    assert means
    assert all(torch.equal(initial[name], trained[name]) for name in means)
    scales = [name.replace("running_mean", "weight") for name in means]
    assert any(not torch.equal(initial[name], trained[name]) for name in scales)


def test_average_lies_between_start_and_end() -> None:
    start = make_student().model.state_dict()["classifier.weight"]
    end = train(ema=0.0).model.state_dict()["classifier.weight"]
    averaged = train(ema=0.9).model.state_dict()["classifier.weight"]
    assert 0 < torch.norm(averaged - end) < torch.norm(start - end)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    def broken(student: object, batch: object) -> dict[str, torch.Tensor]:
        return {"loss": torch.tensor(float("nan"), requires_grad=True)}

    with pytest.raises(DivergedError, match=r"loss became nan at step 1. Lower --lr"):
        train_student(make_student(), make_batches(3), broken, settings=Optimization(steps=3))


def test_source_heads_train_with_the_student_and_are_left_out_of_the_result() -> None:
    student = make_student(sources={"a.b/c": 4})
    before = student.source_heads.weight.clone()

    def objective(forward: Forward, batch: Batch) -> dict[str, torch.Tensor]:
        outputs = forward(batch.labeled_images, 2)
        assert outputs.source_logits.shape == (len(batch.labels) - 2, 4)
        return {"loss": outputs.source_logits.square().mean() + outputs.logits.square().mean()}

    trained = train_student(student, make_batches(2), objective, settings=Optimization(steps=2))
    assert not torch.equal(student.source_heads.weight, before)
    assert not [name for name in trained.model.state_dict() if "source" in name]


def test_joined_source_heads_start_as_single_layers_would() -> None:
    joined = make_student(sources={"a": 4, "b": 3}).source_heads
    torch.manual_seed(5)
    timm.create_model("test_efficientnet", num_classes=CLASSES)
    first, second = nn.Linear(joined.in_features, 4), nn.Linear(joined.in_features, 3)
    assert torch.equal(joined.weight, torch.cat([first.weight, second.weight]))
    assert torch.equal(joined.bias, torch.cat([first.bias, second.bias]))


def test_accumulated_parts_equal_the_whole_batch_with_frozen_statistics() -> None:
    def trained(parts: int) -> Trained:
        labels = np.arange(12) % CLASSES
        plan = BatchPlan(labeled=8)
        batches = TrainingBatches(ColourViews(labels), labels, pool_size=12, plan=plan, steps=4, seed=0, parts=parts)
        settings = Optimization(steps=4, lr=0.05, bn="frozen", accumulation=parts)
        return train_student(make_student(), batches, supervised_objective(), settings=settings)

    whole, cut = trained(1), trained(4)
    for row, other in zip(whole.history, cut.history, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-5)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(cut.model.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_batches_in_the_wrong_number_of_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="expected batches in 2 parts"):
        train_student(
            make_student(), make_batches(2), supervised_objective(), settings=Optimization(steps=2, accumulation=2)
        )


@pytest.mark.parametrize("channels_last", [False, True])
def test_images_and_weights_lie_in_the_chosen_layout(channels_last: bool) -> None:
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    student = make_student()
    seen: list[bool] = []
    stem = student.model.conv_stem
    stem.register_forward_pre_hook(
        lambda conv, given: seen.append(
            given[0].is_contiguous(memory_format=wanted) and conv.weight.is_contiguous(memory_format=wanted)
        )
    )
    settings = Optimization(steps=2, compute=ComputeChoice("float32", channels_last))
    train_student(student, make_batches(2), supervised_objective(), settings=settings)
    assert seen == [True, True]
