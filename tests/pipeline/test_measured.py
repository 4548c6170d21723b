"""What was measured is kept and found again: for the same student, sizes and machine, and for nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from potstill.errors import UsageError
from potstill.pipeline import measured
from potstill.pipeline.measured import step_seconds, student_compute
from potstill.training.compute import ComputeChoice, ComputeTimes

STUDENT = "timm/test_efficientnet"


class Measurements:
    """Stands for `measure_choices`: gives written times and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, make_model: object, **asked: Any) -> ComputeTimes:
        self.asked.append(asked)
        times = {
            "float32 channels_last": (0.27, 0.3, 0.4),
            "float32 contiguous": (0.3,),
            "bfloat16 channels_last": (0.1, 0.1),
            "bfloat16 contiguous": (),
        }
        return ComputeTimes({each.name: times[each.name] for each in asked["choices"]}, asked["batch_size"] // 2)


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> Measurements:
    fake = Measurements()
    monkeypatch.setattr(measured, "measure_choices", fake)
    return fake


def chosen(cache_dir: Path, **changes: Any) -> ComputeChoice:
    arguments: dict[str, Any] = {"student": STUDENT, "image_size": 32, "batch_size": 16, "device": "cpu", **changes}
    return student_compute(arguments.pop("student"), arguments.pop("image_size"), cache_dir=cache_dir, **arguments)


def test_a_choice_is_measured_once(tmp_path: Path, measurements: Measurements) -> None:
    first = chosen(tmp_path)
    assert first == ComputeChoice("bfloat16", channels_last=True)
    assert chosen(tmp_path) == first
    assert chosen(tmp_path, compiled=True) == ComputeChoice("bfloat16", channels_last=True, compiled=True)
    assert len(measurements.asked) == 1
    assert len(list((tmp_path / "measured").iterdir())) == 1


@pytest.mark.parametrize("changes", [{"image_size": 64}, {"batch_size": 8}, {"student": "timm/test_resnet"}])
def test_another_student_or_size_is_measured_anew(
    changes: dict[str, Any], tmp_path: Path, measurements: Measurements
) -> None:
    chosen(tmp_path)
    chosen(tmp_path, **changes)
    assert len(measurements.asked) == 2
    chosen(tmp_path)
    assert len(measurements.asked) == 2


def test_another_number_of_threads_or_version_is_measured_anew(
    tmp_path: Path, measurements: Measurements, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(tmp_path)
    with monkeypatch.context() as patch:
        threads = torch.get_num_threads()
        patch.setattr(torch, "get_num_threads", lambda: threads + 1)
        chosen(tmp_path)
    assert len(measurements.asked) == 2
    environment = measured.environment_record()
    environment["packages"]["torch"] = "99.0"
    monkeypatch.setattr(measured, "environment_record", lambda: environment)
    chosen(tmp_path)
    assert len(measurements.asked) == 3


def test_what_was_asked_for_is_used_without_measuring(tmp_path: Path, measurements: Measurements) -> None:
    assert chosen(tmp_path, precision="bfloat16", memory_format="contiguous").name == "bfloat16 contiguous"
    assert chosen(tmp_path, precision="float32", memory_format="channels-last").name == "float32 channels_last"
    assert chosen(tmp_path, precision="bfloat16").name == "bfloat16 channels_last"
    assert measurements.asked == []
    assert list(tmp_path.iterdir()) == []


def test_one_measurement_serves_every_request(tmp_path: Path, measurements: Measurements) -> None:
    assert chosen(tmp_path, precision="float32").name == "float32 channels_last"
    assert chosen(tmp_path, memory_format="channels-last").name == "bfloat16 channels_last"
    assert chosen(tmp_path, memory_format="contiguous").name == "float32 contiguous"
    assert len(measurements.asked) == 1


def seconds(cache_dir: Path, choice: ComputeChoice) -> float:
    return step_seconds(STUDENT, 32, batch_size=16, device="cpu", cache_dir=cache_dir, choice=choice)


def test_seconds_of_a_step_are_the_median_scaled_to_the_batch(tmp_path: Path, measurements: Measurements) -> None:
    chosen(tmp_path)
    assert seconds(tmp_path, ComputeChoice()) == pytest.approx(0.3 * 2)
    assert seconds(tmp_path, ComputeChoice(compiled=True)) == pytest.approx(0.3 * 2)
    assert len(measurements.asked) == 1


def test_a_precision_that_does_not_train_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_float32(make_model: object, **asked: Any) -> ComputeTimes:
        return ComputeTimes({each.name: (0.1,) * (each.dtype == "float32") for each in asked["choices"]}, 16)

    monkeypatch.setattr(measured, "measure_choices", only_float32)
    monkeypatch.setattr(measured, "candidates", lambda device: tuple(measured.CHOICES.values()))
    assert chosen(tmp_path).dtype == "float32"
    with pytest.raises(UsageError, match="does not train in bfloat16 here"):
        chosen(tmp_path, precision="bfloat16")


def test_times_of_a_busy_machine_decide_nothing_and_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def uneven(make_model: object, **asked: Any) -> ComputeTimes:
        calls.append(1)
        # contiguous looks fastest, but its rounds differ by a factor of five
        base = {each.name: 0.4 if each.channels_last else 0.1 for each in asked["choices"]}
        return ComputeTimes({name: (each, 5 * each, 6 * each) for name, each in base.items()}, 16)

    monkeypatch.setattr(measured, "measure_choices", uneven)
    assert chosen(tmp_path).name == "float32 channels_last"
    assert "was busy" in caplog.text
    assert str(tmp_path) not in caplog.text
    chosen(tmp_path)
    assert len(calls) == 2


def test_a_choice_that_does_not_train_is_named(tmp_path: Path, measurements: Measurements) -> None:
    chosen(tmp_path)
    for _ in range(2):
        with pytest.raises(UsageError, match="does not train in bfloat16 contiguous"):
            seconds(tmp_path, ComputeChoice("bfloat16", channels_last=False))
    # It was measured together with the others, once.
    assert [len(asked["choices"]) for asked in measurements.asked] == [3, 4]
    chosen(tmp_path)
    assert len(measurements.asked) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b'{"body":{},"crc32":1}', b"[1]"])
def test_a_damaged_file_is_measured_again(
    damage: bytes, tmp_path: Path, measurements: Measurements, caplog: pytest.LogCaptureFixture
) -> None:
    first = chosen(tmp_path)
    (file,) = (tmp_path / "measured").iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage)
    assert chosen(tmp_path) == first
    assert "made again" in caplog.text
    assert str(tmp_path) not in caplog.text
    assert len(measurements.asked) == 2
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    "change", [{"key": {}}, {"rounds": {"float32 contiguous": [-1.0]}}, {"rounds": None}, {"images": 0}]
)
def test_a_file_that_says_something_else_is_measured_again(
    change: dict[str, Any], tmp_path: Path, measurements: Measurements, caplog: pytest.LogCaptureFixture
) -> None:
    chosen(tmp_path)
    (file,) = (tmp_path / "measured").iterdir()
    measured.write_record(file, {**measured.read_record(file), **change})
    chosen(tmp_path)
    assert len(measurements.asked) == 2
    assert "made again" in caplog.text


def test_a_real_measurement_gives_one_of_the_candidates(tmp_path: Path) -> None:
    told: list[str] = []
    choice = chosen(tmp_path, progress=lambda task, done, total: told.append(task))
    assert choice.name in {"float32 channels_last", "float32 contiguous", "bfloat16 channels_last"}
    assert chosen(tmp_path) == choice
    assert set(told) == {"measure precision and layout"}
    assert 0 < seconds(tmp_path, choice) < 60
