"""Batches for the tests of the loader, in a module that spawned processes can import."""

import os
import threading
import time

import numpy as np
import torch

from potstill.errors import DataError
from potstill.types import Batch, DenseTargets


class ViewBatches:
    """All kinds of views of six images a batch; answers that say who attached them."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.answering = {}

    def __getstate__(self):
        return {"dataset": self.dataset, "answering": {}}

    def batch(self, step, part):
        rows = (np.arange(6) + 3 * step + part) % len(self.dataset)
        epoch = np.arange(6) // 4 + step
        plain, weak, strong = (self.dataset.views(rows, kind, epoch=epoch) for kind in ("crop", "weak", "strong"))
        return Batch(plain, torch.tensor([step, part]), torch.from_numpy(rows), weak, strong, torch.from_numpy(epoch))

    def with_answers(self, batch):
        self.answering[tuple(batch.labels.tolist())] = (os.getpid(), threading.current_thread())
        return Batch(**{**vars(batch), "answers": (DenseTargets(torch.zeros(6, 2)),)})


class Numbers:
    """Batches that hold nothing but their step, the process that made them, and its number of torch threads."""

    def __init__(self, fail_at=None, delay=0.0):
        self.fail_at, self.delay = fail_at, delay
        self.made = []

    def __getstate__(self):
        return {**vars(self), "made": []}

    def batch(self, step, part):
        time.sleep(self.delay)
        if step == self.fail_at:
            raise DataError(f"step {step} cannot be read")
        self.made.append(step)
        values = torch.tensor([step, os.getpid(), torch.get_num_threads()])
        return Batch(torch.zeros(1), values, None, None, None)

    def with_answers(self, batch):
        return batch
