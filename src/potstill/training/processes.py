"""The process that trains, and those beside it: one Accelerator a process, started by torchrun, SLURM or alone.

torch and Accelerate are imported where they are used: the command line asks this module how many processes there are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from potstill.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others in one place: they read the same caches before the first step."""

FIRST_PORT, PORTS = 20_000, 10_000


@cache
def accelerator_for(device: str) -> Accelerator:
    """The process's one Accelerator: device, backward and process information; precision is the loop's business.

    Raises:
        UsageError: the process already trains on another kind of device, or one GPU is named for several processes.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    if device.startswith("cuda:"):
        if process_count() > 1:
            raise UsageError(f"{process_count()} processes cannot share '{device}'. Use --device cuda: each takes one.")
        torch.cuda.set_device(device)
    accelerator = Accelerator(
        cpu=device == "cpu", mixed_precision="no", kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)]
    )
    if accelerator.device.type != torch.device(device).type:
        raise UsageError(f"Asked to train on {device}, but this process already trains on {accelerator.device}.")
    return accelerator


def process_count() -> int:
    """Number of processes that train together, as their launcher says; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """Number of this process among them, from 0; the one with number 0 writes."""
    return int(os.environ.get("RANK", "0"))


def adopt_slurm(environment: MutableMapping[str, str] = os.environ) -> None:
    """Translate the variables of `srun` with several tasks to those of torchrun, which everything else reads.

    A launcher's own variables are left alone, and so is a batch script, which runs once whatever its number of tasks.

    Args:
        environment: changed in place.
    """
    # A batch script has SLURM_NTASKS and SLURM_PROCID too; only srun says how many tasks its step has.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks <= 1 or "RANK" in environment:
        return
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "localhost")
    job = int(environment.get("SLURM_JOB_ID", "0")) + int(environment.get("SLURM_STEP_ID", "0"))
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["WORLD_SIZE"] = str(tasks)
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    environment.setdefault("MASTER_ADDR", first_host(nodes))
    environment.setdefault("MASTER_PORT", str(FIRST_PORT + job % PORTS))
    environment.setdefault("OMP_NUM_THREADS", str(_cores_of_task(environment)))


def _cores_of_task(environment: Mapping[str, str]) -> int:
    """Cores that a task of srun may keep busy: those it is bound to, at most as many as it was promised, and its share
    of the machine where nothing was promised and it is not bound."""
    cores = len(os.sched_getaffinity(0))
    if "SLURM_CPUS_PER_TASK" in environment:
        return min(cores, int(environment["SLURM_CPUS_PER_TASK"]))
    beside = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))  # 8(x100),7
    return max(1, cores // int(beside.group())) if beside and cores == os.cpu_count() else cores


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list.

    >>> first_host("gpu[007-009,12],login"), first_host("a1,a2"), first_host("rack[2-3]n[05,07]")
    ('gpu007', 'a1', 'rack2n05')
    """
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])*", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group() if first else nodes)


def agree(accelerator: Accelerator, *values: float) -> tuple[float, ...]:
    """The largest of every value over all processes, the same in each."""
    if accelerator.num_processes == 1:
        return values
    import torch

    told = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
    return tuple(told.tolist())


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes, the same in each; the tensor itself where there is one."""
    import torch

    if process_count() == 1 or not torch.distributed.is_initialized():
        return values
    total = values.clone()
    torch.distributed.all_reduce(total)
    return total / process_count()


def require_same_step(accelerator: Accelerator, step: int) -> None:
    """Raise CheckpointError in every process unless all go on from the same step."""
    last, first = agree(accelerator, step, -step)
    if last != -first:
        raise CheckpointError(
            f"The processes found checkpoints of different steps ({-first:.0f} to {last:.0f}). "
            "They must all see the same --output directory, so put it on a disk that all machines share."
        )
