"""The processes that train one network together: how they find each other, and how they agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from mgcompile.errors import InputError, MgcompileError
from mgcompile.training.recipe import Recipe

__all__ = ["ElsewhereError", "accelerator_for", "by_first", "connected", "runs_on_cpu", "share", "summed"]


class ElsewhereError(MgcompileError):
    """Another process has failed, and says why."""


def runs_on_cpu(device: str | None) -> bool:
    """Whether a training is on the CPU: it was asked for, or there is nothing else. Accelerate has to be told; without,
    it looks for processes that train together on GPUs alone.
    """
    return device == "cpu" or not torch.accelerator.is_available()


def accelerator_for(device: str | None) -> Accelerator:
    """The device, and the processes as `torchrun` has started them; `device` is "cpu", or None for a GPU if there is
    one.

    Raises `InputError` where there are fewer GPUs than processes, or the processes do not find each other.
    """
    on_cpu = runs_on_cpu(device)
    started, here = (_number(name) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if not on_cpu and here > (there := torch.accelerator.device_count()):
        raise InputError(
            f"{here} processes were started on a machine with {there} GPUs; start at most as many (torchrun "
            f"--nproc-per-node {there}), or say --device cpu"
        )
    # Statistics are the same everywhere. Weights may reach no output, as those of a grid that is dropped; where one
    # looks for them, gradients are also summed in one order from the first step on, resumed or not.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
    accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=[parallel])
    if accelerator.num_processes != started:
        raise InputError(
            f"{started} processes were started (WORLD_SIZE), and this one finds {accelerator.num_processes} on "
            f"{accelerator.device.type}; start them with torchrun, or say --device cpu"
        )
    return accelerator


def _number(name: str) -> int:
    """A number that `torchrun` has set; 1 where it has not started this process."""
    text = os.environ.get(name, "1")
    if not text.isdecimal() or not int(text):
        raise InputError(f"the environment has {name}={text!r}; expected a number of processes, as torchrun sets it")
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
