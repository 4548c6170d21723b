"""Several processes: the numbers of one, one writer, one message, one exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from potstill.data import open_target, split_digest
from potstill.training import orders
from potstill.training.batches import BatchPlan, TrainingBatches
from potstill.training.interruption import SIGNALS
from potstill.training.processes import adopt_slurm, first_host, require_same_step
from potstill.types import ViewKind

SLURM = {
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_ID": "2",
    "SLURM_JOB_NODELIST": "gpu[007-010],big1",
}


def test_srun_tasks_become_processes() -> None:
    environment = dict(SLURM)
    adopt_slurm(environment)
    assert {name: environment[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")} == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "gpu007",
    }
    assert 1024 < int(environment["MASTER_PORT"]) < 2**16
    assert environment["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))


def test_tasks_of_srun_take_the_cores_that_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads(bound_to: int, **variables: str) -> str:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(bound_to)))
        monkeypatch.setattr(os, "cpu_count", lambda: 64)
        environment = {**SLURM, **variables}
        adopt_slurm(environment)
        return environment["OMP_NUM_THREADS"]

    assert threads(64, SLURM_CPUS_PER_TASK="6") == "6"
    assert threads(1, SLURM_CPUS_PER_TASK="6") == "1"  # srun did not inherit what the batch script asked for
    assert threads(8) == "8"
    assert threads(64, SLURM_STEP_TASKS_PER_NODE="8(x100),7") == "8"
    assert threads(64, SLURM_CPUS_PER_TASK="6", OMP_NUM_THREADS="1") == "1"


def test_processes_that_never_met_are_not_waited_for_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setattr(orders, "PATIENCE", timedelta(seconds=1))
    monkeypatch.setattr(orders.signal, "signal", lambda *_: pytest.fail("signals must still be heard"))
    orders.dismiss_processes(1)


@pytest.mark.parametrize(
    "changed",
    [{"RANK": "0", "WORLD_SIZE": "2"}, {"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_STEP_NUM_TASKS": None}],
    ids=["torchrun", "one task", "batch script"],
)
def test_what_srun_did_not_start_as_several_is_left_alone(changed: dict[str, str | None]) -> None:
    environment = {name: value for name, value in {**SLURM, **changed}.items() if value is not None}
    before = dict(environment)
    adopt_slurm(environment)
    assert environment == before


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("localhost", "localhost"),
        ("n1,n2", "n1"),
        ("n[1-4]", "n1"),
        ("n[3,5-7],m1", "n3"),
        ("r[1-2]n[04-05].site,x", "r1n04.site"),
    ],
)
def test_first_host_of_a_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_one_process_agrees_with_itself() -> None:
    require_same_step(SimpleNamespace(num_processes=1), 7)  # type: ignore[arg-type]


class RowViews:
    """Images that hold nothing but their row number."""

    def views(self, rows: np.ndarray, kind: ViewKind, *, epoch: np.ndarray, draw: int) -> torch.Tensor:
        return torch.from_numpy(rows).view(-1, 1, 1, 1).expand(-1, 3, 1, 1).to(torch.uint8)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        return images.float()


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_every_image_is_seen_equally_often_by_all_processes_together(parts: int) -> None:
    plan = BatchPlan(labeled=4, pool_weak=12)
    labels = np.arange(10) % 3
    # 63 steps of 12 and 4 rows: 27 passes over the pool, 25 and a bit over the labeled images.
    batches = TrainingBatches(RowViews(), labels, pool_size=28, plan=plan, steps=63, seed=3, parts=parts)
    pool, labeled = [], []
    for step in range(63):
        taken = [batches.batch(step, part) for part in range(parts)]
        pool += [(int(p), int(r)) for each in taken for p, r in zip(each.pool_passes, each.pool_rows, strict=True)]
        labeled += [int(row) for each in taken for row in each.labeled_images[:, 0, 0, 0]]
    assert sorted(pool) == [(number, row) for number in range(27) for row in range(28)]
    counts = np.bincount(labeled, minlength=10)
    assert counts.sum() == 252
    assert counts.max() - counts.min() <= 1


# One student a line of settings; run under torchrun and in this process alike.
TRAINING = """
import json, sys
from pathlib import Path
import numpy as np
import timm, torch
from safetensors.torch import save_file
from potstill.baselines.supervised import supervised_objective
from potstill.data.views import ViewDataset
from potstill.training.batches import BatchPlan, TrainingBatches
from potstill.training.loop import train_student
from potstill.training.optimization import Optimization
from potstill.training.processes import process_count, process_number
from potstill.training.student import Student

STUDENTS = {
    "layer-norm": ("test_vit", {"img_size": 32}, "batch"),
    "frozen-batch-norm": ("test_efficientnet", {}, "frozen"),
}


def train(name, accumulation, steps=50):
    architecture, options, bn = STUDENTS[name]
    torch.manual_seed(5)
    student = Student(timm.create_model(architecture, num_classes=4, **options), {})
    labels = np.arange(40) % 4
    pixels = np.random.default_rng(0).integers(0, 256, (40, 36, 36, 3), dtype=np.uint8)
    pixels[..., 0] //= 1 + labels[:, None, None].astype(np.uint8)
    views = ViewDataset(
        pixels, [str(row) for row in range(40)], image_size=32, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0
    )
    batches = TrainingBatches(
        views, labels, pool_size=40, plan=BatchPlan(labeled=12), steps=steps, seed=0, view="crop",
        parts=process_count() * accumulation,
    )
    settings = Optimization(steps=steps, lr=0.02, bn=bn, accumulation=accumulation)
    return train_student(student, batches, supervised_objective(), settings=settings)


def write(folder, name, accumulation):
    trained = train(name, accumulation)
    if process_number() == 0:
        weights = {key: value.contiguous() for key, value in trained.model.state_dict().items()}
        save_file(weights, folder / f"{name}-{accumulation}.safetensors")
        (folder / f"{name}-{accumulation}.json").write_text(json.dumps([row["loss"] for row in trained.history]))


if __name__ == "__main__":
    for name in STUDENTS:
        for accumulation in sys.argv[2:]:
            write(Path(sys.argv[1]), name, int(accumulation))
    if process_count() > 1:
        torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def trained_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same students trained by one process, which takes each batch whole or in two parts, and by two."""
    folder = tmp_path_factory.mktemp("equal")
    script = folder / "training.py"
    script.write_text(TRAINING)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    calls = {
        "one": [sys.executable, str(script), str(folder / "one"), "1", "2"],
        "two": [*launcher, str(script), str(folder / "two"), "1"],
    }
    for name, command in calls.items():
        (folder / name).mkdir()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, timeout=100, capture_output=True)
    return {name: folder / name for name in calls}


@pytest.mark.parametrize("student", ["layer-norm", "frozen-batch-norm"])
@pytest.mark.parametrize(("folder", "accumulation"), [("two", 1), ("one", 2)], ids=["processes", "accumulation"])
def test_processes_and_accumulation_equal_one_process(
    trained_folders: dict[str, Path], student: str, folder: str, accumulation: int
) -> None:
    def read(stem: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
        return json.loads(stem.with_suffix(".json").read_text()), load_file(stem.with_suffix(".safetensors"))

    losses, weights = read(trained_folders["one"] / f"{student}-1")
    other_losses, other_weights = read(trained_folders[folder] / f"{student}-{accumulation}")
    assert len(losses) == 50
    assert losses[-1] < 0.8 * losses[0]  # something was learned, so something could differ
    np.testing.assert_allclose(other_losses, losses, atol=1e-4)
    for name, value in weights.items():
        torch.testing.assert_close(other_weights[name], value, atol=1e-4, rtol=1e-4, msg=name)


# torchrun has one exit code for all failures, so every process writes its own down.
COMMAND = """
import os, sys
from pathlib import Path
from potstill.cli import main
code = 0
try:
    main()
except SystemExit as end:
    code = end.code
finally:
    Path(os.environ["CODES"], os.environ["RANK"]).write_text(str(code))
sys.exit(code)
"""

Launch = Callable[..., "Launched"]


class Launched:
    """The command line in two processes under torchrun."""

    def __init__(self, folder: Path, arguments: tuple[object, ...]) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        script = folder / "command.py"
        script.write_text(COMMAND)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            self.process = subprocess.Popen(
                [*launcher, str(script), *map(str, arguments)],
                stdout=out,
                stderr=err,
                env={**os.environ, "OMP_NUM_THREADS": "1", "CODES": str(folder)},
                start_new_session=True,
            )

    def end(self) -> tuple[list[str], str, str]:
        """The exit codes of the processes, and what they said on stdout and stderr."""
        self.process.wait(timeout=100)
        codes = [path.read_text() for path in sorted(self._folder.glob("[0-9]"))]
        return codes, (self._folder / "out").read_text(), (self._folder / "err").read_text()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start the command line in two processes; `launch("distill", ...)`."""
    started: list[Launched] = []

    def start(*arguments: object) -> Launched:
        started.append(Launched(tmp_path / f"launch{len(started)}", arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()


def wait_for(path: Path, seconds: float = 60.0) -> None:
    started = time.monotonic()
    while not path.exists():
        assert time.monotonic() - started < seconds
        time.sleep(0.05)


def test_two_processes_are_stopped_and_one_goes_on(
    digits: Path, models: Path, tmp_path: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    command = ["distill", digits, "--output", output, "--zoo", models / "zoo.yaml", "--labels-per-class", "6"]
    command += ["--student", "timm/test_efficientnet", "--student-weights", models / "student.safetensors"]
    # 6 labeled and 14 pool images a step: as many in two equal parts as in one.
    command += ["--image-size", "32", "--steps", "250", "--batch-size", "20", "--device", "cpu", "--lr", "0.01"]
    stopped = launch(*command)
    wait_for(output / "task.json")
    time.sleep(2)
    stopped.process.send_signal(signal.SIGTERM)
    codes, out, err = stopped.end()
    assert codes == ["130", "130"]
    assert out == ""
    assert err.count("Error: Stop") == 1
    assert not (output / "results.json").exists()

    refused = launch(*command)  # without --resume
    codes, out, err = refused.end()
    assert codes == ["2", "2"]
    assert err.count("already holds a run") == 1

    from potstill.cli import main

    monkeypatch.setattr(sys, "argv", ["potstill", *map(str, command), "--resume"])
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with pytest.raises(SystemExit) as end:
        main()
    for number, handler in before.items():
        signal.signal(number, handler)
    assert end.value.code == 0
    results = json.loads((output / "results.json").read_text())
    assert results["labels_used"] == 24
    assert not (output / "task.json").exists()


def test_two_processes_write_one_run_with_the_split_of_one(
    digits: Path, models: Path, tmp_path: Path, launch: Launch
) -> None:
    output = tmp_path / "run"
    # One method diverges: that is told once, and the processes go on together.
    config = tmp_path / "config.yaml"
    config.write_text("overrides: {transfer: {lr: 1.0e+30}}")
    options = ["--zoo", models / "zoo.yaml", "--methods", "transfer,fixmatch,weighted", "--image-size", "32"]
    options += ["--config", config, "--seeds", "1"]
    options += ["--student", "timm/test_efficientnet", "--student-weights", models / "student.safetensors"]
    options += ["--steps", "6", "--batch-size", "24", "--labels-per-class", "5", "--device", "cpu", "--json"]
    codes, out, err = launch("compare", digits, "--output", output, *options).end()
    assert codes == ["0", "0"]
    printed = json.loads(out)  # one document, of one process
    assert printed == json.loads((output / "results.json").read_text())
    assert [run["status"] for run in printed["runs"]] == ["failed", "done", "done"]
    assert err.count("transfer, seed 0 failed: The loss became") == 1
    assert err.count("fixmatch, seed 0: accuracy") == 1
    expected = open_target(digits, labels_per_class=5)
    assert printed["split_sha256"] == split_digest(expected)
    assert {path.name for path in output.glob("*/student")} == {"student"}
    assert not list(output.rglob("task.json"))
