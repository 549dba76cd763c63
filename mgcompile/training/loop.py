"""The training loop. What a step does depends on the recipe and the step alone, so that a training that was killed goes
on to the same numbers; one process or several, the batch is the same.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from mgcompile.errors import InputError, MgcompileError
from mgcompile.lowering.checkpoints import save
from mgcompile.lowering.compiler import compile_graph
from mgcompile.spec import Spec
from mgcompile.training.evaluation import Evaluation, answer, evaluate, output, place_of
from mgcompile.training.feeding import batches, making, spread
from mgcompile.training.fitting import Fit, fit
from mgcompile.training.optimizers import make_optimizer, named_state
from mgcompile.training.recipe import Recipe
from mgcompile.training.records import Records
from mgcompile.training.runs import MODEL, Run
from mgcompile.training.schedules import learning_rate
from mgcompile.training.sheet import predictions
from mgcompile.training.synchronization import synchronize
from mgcompile.training.tasks import Data, Examples, HeldOut

__all__ = ["Diverged", "Trained", "Watcher", "train"]


class Diverged(MgcompileError):
    """The loss is no longer a finite number."""


class Watcher(Protocol):
    """Who is told how a training goes; of several processes, the first tells."""

    def started(self, step: int, recipe: Recipe, folder: Path) -> None:
        """It begins after `step` steps."""

    def stepped(self, step: int, lr: float, loss: float) -> None:
        """A step was made, the first is 1."""

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """It was evaluated after so many steps."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training: the network in evaluation mode, and how it does on the test set."""

    model: fx.GraphModule
    test: Evaluation


def train(
    spec: Spec,
    recipe: Recipe,
    data: Data,
    folder: Path | str,
    *,
    resume: bool = False,
    device: str | None = None,
    workers: int = 0,
    watcher: Watcher | None = None,
) -> Trained:
    """Train the network of a spec by a recipe, and write what comes of it into a folder.

    `device` is "cpu", or where None a GPU if there is one. With `resume` it goes on after the last checkpoint in the
    folder, or begins where there is none; the numbers are those of a training that never stopped. Under `torchrun` each
    process computes its share of every batch, and the first one writes.

    Raises `SpecError` where spec and task do not fit, `MgcompileError` for a folder that cannot be used and where
    writing fails, `DataError`, and `Diverged` that names the last good checkpoint.
    """
    run = Run(Path(folder))
    fitting = fit(spec, data, recipe.task)
    accelerator = _accelerator(device)
    place = place_of(accelerator)
    share = _share(recipe, place.processes)
    if accelerator.is_main_process:
        run.begin(spec, recipe, resume=resume)
    accelerator.wait_for_everyone()
    model, optimizer, done = _prepared(run, spec, recipe, accelerator)
    parallel = _parallel(model, accelerator)
    metrics = tuple(data.empty_score().metrics)
    records = Records(run, metrics, start=done, steps=recipe.steps) if accelerator.is_main_process else None
    told = watcher if accelerator.is_main_process else None
    if told:
        told.started(done, recipe, run.folder)

    def judge(step: int, split: HeldOut, limit: int) -> Evaluation:
        found = evaluate(
            model, data, fitting, split, accelerator=accelerator, limit=limit, batch=share, workers=workers
        )
        if records:
            records.evaluated(step, split, found.samples, found.loss, found.metrics)
            if recipe.pictures:
                records.picture(step, _picture(model, data, fitting, recipe.pictures, accelerator))
        if told:
            told.evaluated(step, found)
        return found

    with records or nullcontext(), making():
        for index, parts in batches(data, recipe, place, start=done, workers=workers):
            step, lr = index + 1, learning_rate(recipe, index)
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss = _update(
                parallel,
                optimizer,
                parts,
                data=data,
                fitting=fitting,
                accelerator=accelerator,
                stream=(recipe.seed, index),
            )
            if not math.isfinite(loss):
                raise _diverged(run, step, f"the loss is {loss}")
            if records:
                records.step(step, lr, loss)
            if told:
                told.stepped(step, lr, loss)
            last = step == recipe.steps
            if step % recipe.evaluate_every == 0 and not last:
                judge(step, data.selection, recipe.evaluate_samples)
            if records and (step % recipe.checkpoint_every == 0 or last):
                _check_finite(run, step, {**model.state_dict(), **named_state(optimizer, model)})
                records.keep()
                run.save(step, model, optimizer, recipe.keep)
        test = judge(recipe.steps, "test", recipe.test_samples or data.samples("test"))
        if accelerator.is_main_process:
            save(model, run.folder / MODEL)
    return Trained(model.eval(), test)


def _update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[Examples],
    *,
    data: Data,
    fitting: Fit,
    accelerator: Accelerator,
    stream: tuple[int, int],
) -> float:
    """One step on the parts of a batch, and its mean loss over all processes."""
    total = torch.zeros((), device=accelerator.device)
    for number, cpu in enumerate(parts):
        examples = cpu.to(accelerator.device)
        torch.manual_seed(_seed(*stream, number, accelerator.process_index))
        is_last = number == len(parts) - 1  # gradients are averaged over the processes once
        with nullcontext() if is_last else accelerator.no_sync(model):
            outputs = output(model, examples.inputs, fitting)
            loss = data.loss(outputs, examples.targets, logits=fitting.logits) / len(parts)
            torch.autograd.backward(loss)
        total += loss.detach()
    optimizer.step()
    optimizer.zero_grad()
    if accelerator.num_processes > 1:
        total = accelerator.reduce(total, "mean")
    return float(total)


def _picture(model: nn.Module, data: Data, fitting: Fit, count: int, accelerator: Accelerator) -> NDArray[np.uint8]:
    """What the network answers to some of the samples that it is watched on."""
    examples = data.held_out(data.selection, spread(data.samples(data.selection), count))
    model.eval()
    with torch.no_grad():
        outputs, logits = answer(model, examples.to(accelerator.device), fitting)
    model.train()
    return predictions(data, examples, outputs.cpu(), logits=logits)


def _seed(*parts: int) -> int:
    """What dropout draws from in one pass: nothing has to be kept of a generator for a training to go on."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _accelerator(device: str | None) -> Accelerator:
    # Statistics are the same everywhere. Weights may reach no output, as those of a grid that is dropped; where one
    # looks for them, gradients are also summed in one order from the first step on, resumed or not.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
    return Accelerator(cpu=device == "cpu", kwargs_handlers=[parallel])


def _parallel(model: fx.GraphModule, accelerator: Accelerator) -> nn.Module:
    """The model with gradients that are averaged over the processes."""
    if accelerator.num_processes == 1:
        return model
    with warnings.catch_warnings():  # PyTorch renames broadcast_buffers; older ones do not know the new name
        warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
        parallel: nn.Module = accelerator.prepare_model(model)
    return parallel


def _prepared(
    run: Run, spec: Spec, recipe: Recipe, accelerator: Accelerator
) -> tuple[fx.GraphModule, torch.optim.Optimizer, int]:
    """The model and the optimiser as the last checkpoint has them, and how many steps are done."""
    model = _model(spec, recipe, accelerator)
    optimizer = make_optimizer(recipe, model)
    done = _done(run, accelerator)
    if done:
        run.load(done, spec, model, optimizer)
    return model, optimizer, done


def _model(spec: Spec, recipe: Recipe, accelerator: Accelerator) -> fx.GraphModule:
    model = compile_graph(
        spec.graph,
        device=accelerator.device,
        seed=recipe.seed,
        torch_compile=recipe.torch_compile,
        spec_text=spec.to_yaml(),
        optimize="training" if recipe.optimize else None,
        precision=recipe.precision,
    )
    if accelerator.num_processes > 1:
        synchronize(model)
    return model


def _share(recipe: Recipe, processes: int) -> int:
    """Examples of a part of a batch that one process computes."""
    if recipe.batch % (recipe.accumulate * processes):
        raise InputError(
            f"a batch of {recipe.batch} in {recipe.accumulate} parts does not divide among {processes} processes; take "
            f"a multiple of {recipe.accumulate * processes}"
        )
    return recipe.batch // recipe.accumulate // processes


def _done(run: Run, accelerator: Accelerator) -> int:
    """How many steps are done. All processes must see the same folder."""
    done = (run.steps() or [0])[-1]
    if accelerator.num_processes > 1:
        seen = accelerator.gather(torch.tensor([done], device=accelerator.device)).tolist()
        if len(set(seen)) > 1:
            raise MgcompileError(
                f"{run.folder}: the processes see checkpoints after {', '.join(map(str, seen))} steps; the folder must "
                "be on a disk that all of them see"
            )
    return done


def _check_finite(run: Run, step: int, tensors: Mapping[str, Tensor]) -> None:
    """Raises `Diverged` for what must not come into a checkpoint."""
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise _diverged(run, step, f"{name} is not finite")


def _diverged(run: Run, step: int, reason: str) -> Diverged:
    kept = run.steps()
    last = f"the last good checkpoint is {run.checkpoint(kept[-1])}" if kept else "there is no checkpoint before it"
    return Diverged(f"step {step}: {reason}; {last}; try a lower lr")
