"""The processes that train one network together: how they find each other, and how they agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType

from mgcompile.errors import InputError, MgcompileError, lack_of_memory
from mgcompile.escaping import brief
from mgcompile.training.recipe import Recipe

__all__ = ["ElsewhereError", "accelerator_for", "by_first", "connected", "is_first", "runs_on_cpu", "share", "summed"]

LAUNCHERS = (
    "WORLD_SIZE",
    "RANK",
    "LOCAL_",
    "MASTER_",
    "PMI_",
    "MPI_",
    "OMPI_COMM_",
    "MV2_COMM_",
    "ACCELERATE_",
    "FORK_",
)
"""How variables begin by which launchers tell processes of each other, and Accelerate how to train."""
MOST_TOLD = 300
REPLACING = (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM)
"""What would take the place of the loop, or of data parallelism."""


class ElsewhereError(MgcompileError):
    """Another process has failed, and says why."""


def runs_on_cpu(device: str | None) -> bool:
    """Whether a training is on the CPU: it was asked for, or there is nothing else. Accelerate has to be told; without,
    it looks for processes that train together on GPUs alone.
    """
    return device == "cpu" or not torch.accelerator.is_available()


def is_first() -> bool:
    """Whether this process is the one that speaks, as the environment says before the processes have found each other.

    Raises `InputError` for an environment that `torchrun` does not make.
    """
    processes, rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
    if rank >= processes > 1:
        raise InputError(f"the environment has RANK={rank} and WORLD_SIZE={processes}; expected a rank below the size")
    return processes == 1 or rank == 0


def accelerator_for(device: str | None) -> Accelerator:
    """The device, and the processes as `torchrun` has started them; `device` is "cpu", or None for a GPU if there is
    one. How a training goes is the recipe's to say: what the environment tells Accelerate of it counts for nothing.

    Raises `InputError` where there are fewer GPUs than processes, or the processes do not find each other.
    """
    on_cpu = runs_on_cpu(device)
    is_first()  # what is wrong with its variables is told here
    started, here = (_number(name, 1) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if not on_cpu and here > (there := torch.accelerator.device_count()):
        raise InputError(
            f"{here} processes were started on a machine with {there} GPUs; start at most as many (torchrun "
            f"--nproc-per-node {there}), or say --device cpu"
        )
    # Statistics are the same everywhere. Weights may reach no output, as those of a grid that is dropped; where one
    # looks for them, gradients are also summed in one order from the first step on, resumed or not.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
    before = dict(os.environ)
    try:
        accelerator = Accelerator(cpu=on_cpu, mixed_precision="no", dynamo_backend="no", kwargs_handlers=[parallel])
    except (ValueError, AssertionError, ImportError, RuntimeError) as error:
        # Else what is half made would stay for whoever comes next, and what Accelerate has added to the environment.
        AcceleratorState._reset_state(reset_partial_state=True)
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        if lack_of_memory(error):
            raise
        raise _not_set_up(str(error)) from error
    if accelerator.distributed_type in REPLACING:
        raise _not_set_up(f"training is by {accelerator.distributed_type.value}, which is not used")
    if accelerator.num_processes != started:
        raise InputError(
            f"{started} processes were started (WORLD_SIZE), and this one finds {accelerator.num_processes} on "
            f"{accelerator.device.type}; start them with torchrun, or say --device cpu"
        )
    return accelerator


def _not_set_up(reason: str) -> InputError:
    names = ", ".join(sorted(name for name in os.environ if name.startswith(LAUNCHERS))) or "no variable of a launcher"
    return InputError(
        f"the processes cannot be set up as the environment says: {brief(reason, MOST_TOLD)}; it has {names}: start "
        "several with torchrun, or unset these"
    )


def _number(name: str, least: int) -> int:
    """A number that `torchrun` has set; the least where it has not started this process."""
    text = os.environ.get(name, str(least))
    if not text.isdecimal() or int(text) < least:
        what = "a number of processes" if least else "a number of this process"
        raise InputError(f"the environment has {name}={text!r}; expected {what}, as torchrun sets it")
    return int(text)


@contextmanager
def connected(accelerator: Accelerator) -> Iterator[None]:
    """A process that is gone becomes an `ElsewhereError` in those that wait for it."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or "gloo" in str(error).lower()
        if accelerator.num_processes == 1 or not lost:
            raise
        raise ElsewhereError("another process of this training has stopped; it or torchrun says why") from error


def by_first(accelerator: Accelerator, act: Callable[[], object]) -> None:
    """Let the first process act while the others wait; where it fails, they fail with an `ElsewhereError`."""
    failure = None
    if accelerator.is_main_process:
        try:
            act()
        except MgcompileError as error:
            failure = error
    failed = summed(accelerator, failure is not None)
    if failure:
        raise failure
    if failed:
        raise ElsewhereError("the first process of this training has stopped, and says why")


def summed(accelerator: Accelerator, number: int) -> int:
    """The sum of each process's number."""
    if accelerator.num_processes == 1:
        return number
    return int(accelerator.reduce(torch.tensor(number, device=accelerator.device), "sum"))


def share(recipe: Recipe, processes: int) -> int:
    """Examples of a part of a batch that one process computes. Raises `InputError` where parts do not divide."""
    if recipe.batch % (recipe.accumulate * processes):
        raise InputError(
            f"a batch of {recipe.batch} in {recipe.accumulate} parts does not divide among {processes} processes; "
            f"take a multiple of {recipe.accumulate * processes} (--batch, --accumulate)"
        )
    return recipe.batch // recipe.accumulate // processes
