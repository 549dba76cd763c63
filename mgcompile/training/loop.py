"""The training loop. What a step does depends on the recipe and the step alone, so that a training that was killed goes
on to the same numbers; one process or several, the batch is the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from mgcompile.errors import InputError, MgcompileError
from mgcompile.lowering.checkpoints import save
from mgcompile.lowering.compiler import compile_graph
from mgcompile.spec import Spec
from mgcompile.training.evaluation import Evaluation, answer, evaluate, output, place_of
from mgcompile.training.feeding import batches, making, spread
from mgcompile.training.fitting import Fit, check_norms, fit
from mgcompile.training.locking import check_place
from mgcompile.training.optimizers import make_optimizer, named_state
from mgcompile.training.processes import accelerator_for, by_first, connected, share, summed
from mgcompile.training.recipe import Recipe
from mgcompile.training.records import Records
from mgcompile.training.runs import MODEL, WEIGHTS, Run
from mgcompile.training.schedules import learning_rate
from mgcompile.training.sheet import predictions
from mgcompile.training.stopping import Asked, Stopped, asked_to_stop
from mgcompile.training.synchronization import synchronize
from mgcompile.training.tasks import Data, Examples, HeldOut
from mgcompile.training.transfer import Weights, begin_from, record_of

__all__ = ["Diverged", "Stopped", "Trained", "Watcher", "Weights", "train"]


class Diverged(MgcompileError):
    """The loss is no longer a finite number."""


class Watcher(Protocol):
    """Who is told how a training goes; of several processes, the first tells."""

    def transferred(self, record: Mapping[str, Any]) -> None:
        """Weights were given to begin from; the record is what `weights.json` has of them."""

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
    weights: Weights | Path | str | None = None,
    device: str | None = None,
    workers: int = 0,
    watcher: Watcher | None = None,
) -> Trained:
    """Train the network of a spec by a recipe, and write what comes of it into a folder, which no other training may
    use meanwhile.

    `device` is "cpu", or where None a GPU if there is one. With `resume` it goes on after the last checkpoint in the
    folder, or begins where there is none; the numbers are those of a training that never stopped. `weights` are those
    of another network to begin from, whose report goes to `weights.json` and to the watcher. Under `torchrun` each
    process computes its share of every batch, and the first one writes. SIGTERM, SIGINT and SIGHUP let it finish the
    step and save; a second one stops at once.

    Raises `SpecError` where spec, recipe and task do not fit, `InputError` for a folder that is in use or holds another
    training and for weights of which nothing fits, `MgcompileError` for a folder that cannot be used and where writing
    fails, `DataError`, `Stopped` after a signal, and `Diverged` that names the last good checkpoint.
    """
    given = Weights(Path(weights)) if isinstance(weights, str | Path) else weights
    fitting = fit(spec, data, recipe.task)
    check_norms(spec, data, recipe)
    accelerator = accelerator_for(device)
    part = share(recipe, accelerator.num_processes)
    with asked_to_stop() as asked, connected(accelerator), ExitStack() as held:
        run, told = Run(Path(folder)), watcher if accelerator.is_main_process else None
        model, optimizer, done = _ready(
            run, spec, recipe, data, accelerator, held=held, resume=resume, weights=given, told=told
        )
        records = _records(run, recipe, data, done) if accelerator.is_main_process else None
        if told:
            told.started(done, recipe, run.folder)
        training = _Training(
            run=run,
            recipe=recipe,
            data=data,
            fitting=fitting,
            accelerator=accelerator,
            model=model,
            parallel=_parallel(model, accelerator),
            optimizer=optimizer,
            done=done,
            part=part,
            workers=workers,
            asked=asked,
            records=records,
            told=told,
        )
        with records or nullcontext(), making():
            training.go()
            test = training.judge(recipe.steps, "test", recipe.test_samples or data.samples("test"))
            if test is None:
                raise training.stopped(recipe.steps)
            if accelerator.is_main_process:
                check_place(run.folder)
                save(model, run.folder / MODEL)
    return Trained(model.eval(), test)


def _records(run: Run, recipe: Recipe, data: Data, done: int) -> Records:
    metrics = tuple(data.empty_score().metrics)
    return Records(run, metrics, start=done, steps=recipe.steps, evaluate_every=recipe.evaluate_every)


def _ready(
    run: Run,
    spec: Spec,
    recipe: Recipe,
    data: Data,
    accelerator: Accelerator,
    *,
    held: ExitStack,
    resume: bool,
    weights: Weights | None,
    told: Watcher | None,
) -> tuple[fx.GraphModule, torch.optim.Optimizer, int]:
    """Hold the folder and make it ready; the model and the optimiser as the last checkpoint has them, and how many
    steps are done.
    """

    def hold() -> None:
        origin = weights.origin if weights else None
        held.enter_context(run.held(resume=resume))
        run.begin(spec, recipe, data.identity, resume=resume, origin=origin)

    def commit() -> None:
        if weights and not run.steps():
            record = record_of(weights, begin_from(model, weights))
            run.write(WEIGHTS, json.dumps(record, indent=1).encode())
            run.save(0, model, optimizer, recipe.keep)
            if told:
                told.transferred(record)
        elif not run.steps() and (run.folder / WEIGHTS).exists():
            raise InputError(f"{run.folder}: began from other weights, and has no checkpoint; say --from FILE again")
        run.commit(recipe)

    by_first(accelerator, hold)
    model = _model(spec, recipe, accelerator)
    model.meta["mgcompile"]["data"] = asdict(data.identity)
    optimizer = make_optimizer(recipe, model)
    by_first(accelerator, commit)
    done = _done(run, recipe, accelerator)
    if run.steps():
        run.load(done, spec, model, optimizer)
    return model, optimizer, done


@dataclass(frozen=True, slots=True)
class _Training:
    """A training under way, `done` steps of which are done: its steps, its evaluations, its checkpoints. `records` and
    `told` are those of the first process; `part` is how many samples are computed at once.
    """

    run: Run
    recipe: Recipe
    data: Data
    fitting: Fit
    accelerator: Accelerator
    model: fx.GraphModule
    parallel: nn.Module
    optimizer: torch.optim.Optimizer
    done: int
    part: int
    workers: int
    asked: Asked
    records: Records | None
    told: Watcher | None

    def go(self) -> None:
        """All steps that are left. Raises `Stopped`."""
        recipe, place = self.recipe, place_of(self.accelerator)
        missing = self.records is not None and self.records.lacks_evaluation
        stop = summed(self.accelerator, bool(self.asked)) > 0
        if summed(self.accelerator, missing) and not stop:  # a signal came before it was made
            stop = self._watch(self.done)
        if stop and self.done < recipe.steps:
            raise self.stopped(self.done)
        for index, parts in batches(self.data, recipe, place, start=self.done, workers=self.workers):
            step = index + 1
            last = step == recipe.steps
            stop = self._step(index, parts) and not last
            if step % recipe.evaluate_every == 0 and not last and not stop:
                stop = self._watch(step)
            planned = step % recipe.checkpoint_every == 0 or last
            if planned or stop:
                self._save(step, interrupted=not planned)
            if stop:
                raise self.stopped(step)

    def _step(self, index: int, parts: Sequence[Examples]) -> bool:
        """Make a step; whether a signal has come to any process."""
        step, lr = index + 1, learning_rate(self.recipe, index)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss, stop = _update(
            self.parallel,
            self.optimizer,
            parts,
            data=self.data,
            fitting=self.fitting,
            accelerator=self.accelerator,
            stream=(self.recipe.seed, index),
            asked=self.asked,
        )
        if not math.isfinite(loss):
            raise _diverged(self.run, step, f"the loss is {loss}")
        if self.records:
            self.records.step(step, lr, loss)
        if self.told:
            self.told.stepped(step, lr, loss)
        return stop

    def _save(self, step: int, *, interrupted: bool) -> None:
        if self.records:
            _check_finite(self.run, step, {**self.model.state_dict(), **named_state(self.optimizer, self.model)})
            self.records.keep()
            self.run.save(step, self.model, self.optimizer, self.recipe.keep, interrupted=interrupted)

    def _watch(self, step: int) -> bool:
        """Evaluate what it is watched on; whether a signal came before that was done."""
        return self.judge(step, self.data.selection, self.recipe.evaluate_samples) is None

    def judge(self, step: int, split: HeldOut, limit: int) -> Evaluation | None:
        """Evaluate after a step, and record it; None where a signal came before that was done."""
        data, accelerator = self.data, self.accelerator
        found = evaluate(
            self.model,
            data,
            self.fitting,
            split,
            accelerator=accelerator,
            limit=limit,
            batch=self.part,
            workers=self.workers,
            asked=self.asked,
        )
        if found.samples < min(limit, data.samples(split)):
            return None
        if self.records:
            if count := self.recipe.pictures:
                self.records.picture(step, _picture(self.model, data, self.fitting, count, accelerator))
            # The last: where it is written, nothing of the evaluation is missing.
            self.records.evaluated(step, split, found.samples, found.loss, found.metrics)
        if self.told:
            self.told.evaluated(step, found)
        return found

    def stopped(self, step: int) -> Stopped:
        """What is raised after so many steps, all of which are saved."""
        number = self.asked.signal or signal.SIGTERM
        after = f"after step {step:,}, and that is saved" if step else "before the first step"
        name = signal.Signals(number).name
        return Stopped(f"{self.run.folder}: stopped by {name} {after}; the same command with --resume goes on", number)


def _update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[Examples],
    *,
    data: Data,
    fitting: Fit,
    accelerator: Accelerator,
    stream: tuple[int, int],
    asked: Asked,
) -> tuple[float, bool]:
    """One step on the parts of a batch: its mean loss over all processes, and whether one of them was asked to stop."""
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
    if accelerator.num_processes == 1:
        return float(total), bool(asked)
    sums = accelerator.reduce(torch.stack([total, torch.full_like(total, float(bool(asked)))]), "sum").tolist()
    return sums[0] / accelerator.num_processes, sums[1] > 0


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


def _parallel(model: fx.GraphModule, accelerator: Accelerator) -> nn.Module:
    """The model with gradients that are averaged over the processes."""
    if accelerator.num_processes == 1:
        return model
    with warnings.catch_warnings():  # PyTorch renames broadcast_buffers; older ones do not know the new name
        warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
        parallel: nn.Module = accelerator.prepare_model(model)
    return parallel


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


def _done(run: Run, recipe: Recipe, accelerator: Accelerator) -> int:
    """How many steps are done. All processes must see the same folder."""
    steps = run.steps()
    if accelerator.num_processes > 1:
        last = torch.tensor([steps[-1] if steps else -1], device=accelerator.device)
        seen = accelerator.gather(last).tolist()
        if len(set(seen)) > 1:
            raise MgcompileError(
                f"{run.folder}: the processes see checkpoints after {', '.join(map(str, seen))} steps (-1 is none); "
                "the folder must be on a disk that all of them see"
            )
    done = steps[-1] if steps else 0
    if done > recipe.steps:
        raise InputError(
            f"{run.checkpoint(done)}: is a checkpoint after {done:,} steps, and the recipe has {recipe.steps:,}; "
            "move it away to go on without it"
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
