"""Who prepares batches must not matter: threads, forked or spawned processes, few or many."""

import hashlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from potstill.data import FileSquares, PackedSquares, ViewDataset
from potstill.errors import DataError, UnknownNameError, UsageError
from potstill.training.loader import prepared_batches
from potstill.training.optimization import Loading

sys.path.insert(0, str(Path(__file__).parent))  # spawned processes get it too and import what they unpickle

from batch_makers import Numbers, ViewBatches

KEYS = [(step, part) for step in range(4) for part in range(2)]
LOADINGS = [
    Loading(0),
    Loading(4),
    Loading(1, "fork"),
    Loading(4, "fork"),
    Loading(0, "fork"),
    Loading(1, "spawn"),
    Loading(4, "spawn"),
]
FORKED_AND_SPAWNED = [Loading(2, "fork"), Loading(2, "spawn")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    flower = load_sample_image("flower.jpg")
    for k in range(12):
        Image.fromarray(flower[15 * k : 15 * k + 60, 20 * k : 20 * k + 90]).save(folder / f"{k}.jpg", quality=90)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def packed(files, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "a.npy"
    np.save(path, FileSquares(files, side=40).take(np.arange(len(files))))
    return PackedSquares(np.load(path, mmap_mode="r"))


def views_of(squares):
    ids = [str(k) for k in range(len(squares))]
    return ViewDataset(squares, ids, image_size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), seed=1, flip=True)


def digest(batches, loading):
    sha = hashlib.sha256()
    with prepared_batches(batches, iter(KEYS), loading=loading) as prepared:
        for batch in prepared:
            assert batch.pool_weak.is_contiguous(memory_format=torch.channels_last)
            assert len(batch.answers) == 1
            for tensor in astuple(batch)[:5]:
                sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def test_batches_do_not_depend_on_who_prepares_them(files, packed):
    decoding = FileSquares(files, side=40)
    expected = hashlib.sha256()
    for key in KEYS:
        for tensor in astuple(ViewBatches(views_of(packed)).batch(*key))[:5]:
            expected.update(tensor.contiguous().numpy().tobytes())
    for loading in LOADINGS:
        squares = packed if loading.workers != 4 else decoding
        assert digest(ViewBatches(views_of(squares)), loading) == expected.hexdigest(), loading


@pytest.mark.parametrize("loading", [Loading(2), Loading(2, "fork")])
def test_answers_are_attached_by_one_thread_of_this_process(packed, loading):
    batches = ViewBatches(views_of(packed))
    digest(batches, loading)
    assert set(batches.answering) == set(KEYS)
    assert {process for process, _ in batches.answering.values()} == {os.getpid()}
    (thread,) = {thread for _, thread in batches.answering.values()}
    assert thread is not threading.current_thread()


def test_every_tensor_of_a_pinned_batch_is_pinned(packed, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda values: pinned.append(values) or values)
    with prepared_batches(ViewBatches(views_of(packed)), KEYS[:1], loading=Loading(1), pinned=True) as prepared:
        (batch,) = prepared
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    tensors += [value for each in batch.answers for value in vars(each).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) >= 5
    assert {id(each) for each in pinned} == {id(each) for each in tensors}


@pytest.mark.parametrize("loading", [Loading(3), Loading(3, "fork")])
def test_workers_compute_with_one_torch_thread_and_touch_no_setting_of_this_process(loading):
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    random_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    try:
        with prepared_batches(Numbers(), [(step, 0) for step in range(5)], loading=loading) as prepared:
            assert [batch.labels[2].item() for batch in prepared] == [1] * 5
            later = []
            thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
            thread.start()
            thread.join()
        assert later == [2]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)] == handlers
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


@pytest.mark.parametrize("workers", [0, 2])
def test_few_batches_wait_in_memory(workers):
    batches = Numbers()
    with prepared_batches(batches, ((step, 0) for step in itertools.count()), loading=Loading(workers)) as prepared:
        next(prepared)
        time.sleep(0.1)
        assert len(batches.made) == 1 + max(1, workers) + 1


@pytest.mark.parametrize("loading", [Loading(0), Loading(2), Loading(2, "fork")])
def test_an_error_comes_in_the_place_of_its_batch(loading):
    with prepared_batches(Numbers(fail_at=2), [(step, 0) for step in range(9)], loading=loading) as prepared:
        assert [next(prepared).labels[0].item() for _ in range(2)] == [0, 1]
        with pytest.raises(DataError, match="step 2 cannot be read"):
            next(prepared)
    assert_nobody_is_left()


@pytest.mark.parametrize("loading", [Loading(2), Loading(2, "fork"), Loading(1, "spawn")])
def test_leaving_early_ends_everybody(loading):
    def take_three():
        endless = ((step, 0) for step in itertools.count())
        with prepared_batches(Numbers(delay=0.01), endless, loading=loading) as prepared:
            assert [next(prepared).labels[0].item() for _ in range(3)] == [0, 1, 2]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_three()
    assert_nobody_is_left()


def assert_nobody_is_left():
    assert multiprocessing.active_children() == []
    assert [thread.name for thread in threading.enumerate() if "loader" in thread.name] == []


@pytest.mark.parametrize("loading", FORKED_AND_SPAWNED)
def test_signals_to_the_group_leave_workers_alone_but_death_is_noticed(loading):
    endless = ((step, 0) for step in itertools.count())
    with prepared_batches(Numbers(), endless, loading=loading) as prepared:
        workers = [process.pid for process in multiprocessing.active_children()]
        assert len(workers) == 2
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # spawned workers are still starting up
            for worker in workers:
                os.kill(worker, number)
        makers = {next(prepared).labels[1].item() for _ in range(20)}
        assert makers <= set(workers)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        with pytest.raises(UsageError, match=r"A process that prepares batches died.*fewer --workers"):
            list(itertools.islice(prepared, 20))
    assert_nobody_is_left()


ORPHANS = """
import itertools, multiprocessing, sys
sys.path.insert(0, {folder!r})
from batch_makers import Numbers
from potstill.training.loader import prepared_batches
from potstill.training.optimization import Loading

if __name__ == "__main__":
    endless = ((step, 0) for step in itertools.count())
    with prepared_batches(Numbers(), endless, loading=Loading(2, {start!r})) as prepared:
        next(prepared)
        print(*[process.pid for process in multiprocessing.active_children()], flush=True)
        while True:
            next(prepared)
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_killed_process_end(start, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(ORPHANS.format(folder=str(Path(__file__).parent), start=start))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        workers = [int(word) for word in process.stdout.readline().split()]
        process.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_unknown_ways_to_start():
    with (
        pytest.raises(UnknownNameError, match="Unknown way to start workers on this system 'forkk'"),
        prepared_batches(Numbers(), [], loading=Loading(2, "forkk")),
    ):
        pass


def test_no_keys_no_batches():
    with prepared_batches(Numbers(), [], loading=Loading()) as prepared:
        assert list(prepared) == []
