"""The folder of one training: recipe, spec, figures, pictures, checkpoints. What is in it is whole or not there."""

from __future__ import annotations

import difflib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from mgcompile.errors import InputError, MgcompileError
from mgcompile.escaping import brief
from mgcompile.inputs import open_regular
from mgcompile.lowering.checkpoints import load_weights, read_checkpoint, save
from mgcompile.spec import Spec
from mgcompile.training.identity import Identity, differences
from mgcompile.training.locking import check_place, locked
from mgcompile.training.optimizers import load_state, named_state
from mgcompile.training.recipe import Recipe, given_in

__all__ = ["BOARD", "MODEL", "MOST_TOLD", "PICTURES", "Run", "writing"]

MODEL, STATE = "model.safetensors", "optimizer.safetensors"
RECIPE, SPEC = "recipe.yaml", "spec.yaml"
CHECKPOINTS, PICTURES, BOARD = "checkpoints", "pictures", "tensorboard"
WEIGHTS, DATA, LOCK = "weights.json", "data.json", ".mgcompile.lock"
INTERRUPTED = "interrupted"
"""In a checkpoint: it was written because a signal stopped the training, not because the recipe asks for one there."""
FREE = frozenset({"keep", "checkpoint_every"})
"""What may differ when a training goes on: nothing that is computed depends on it."""


MOST_TOLD = 400
"""Characters of what a file of the folder says, in a message."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A file that cannot be written becomes a `MgcompileError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise MgcompileError(f"{path}: cannot be written: {reason}") from error


@dataclass(frozen=True, slots=True)
class Run:
    """A folder with a training in it."""

    folder: Path

    @contextmanager
    def held(self, *, resume: bool) -> Iterator[None]:
        """Make the folder and hold it: no other training is in it meanwhile.

        Raises `MgcompileError` where it cannot be made or locked, and `InputError` where another training is in it, or
        it cannot be used: see `begin`.
        """
        if not (self.folder / RECIPE).exists():  # what is somebody else's gets no file of ours
            self._look(resume=resume)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / LOCK):
            yield

    def begin(
        self,
        spec: Spec,
        recipe: Recipe,
        data: Identity,
        *,
        resume: bool,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        """Make ready what is held, or see that what is in it is this training. `origin` says which weights it is to
        begin from. What begins is there once its recipe is written: see `commit`.

        Raises `MgcompileError` where writing fails, and `InputError` where it holds a training and `resume` is off, or
        one of another spec, another recipe, other data or other weights.
        """
        self._look(resume=resume)
        known = (self.folder / RECIPE).exists()
        if known:
            self._compare(spec, recipe)
            self._compare_data(data)
            self._compare_weights(origin)
        for name in (CHECKPOINTS, PICTURES, BOARD):
            if os.path.lexists(path := self.folder / name) and not path.is_dir():
                raise InputError(f"{path}: is no folder; a training keeps one there: move it away")
        with writing(self.folder):
            (self.folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
            for name in ("", CHECKPOINTS, PICTURES):
                for draft in filter(_is_draft, (self.folder / name).glob(".*")):  # of a training that was killed
                    shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
            if not known:
                (self.folder / WEIGHTS).unlink(missing_ok=True)
                shutil.rmtree(self.checkpoint(0), ignore_errors=True)
        self.write(SPEC, spec.to_yaml().encode())
        self.write(DATA, json.dumps(asdict(data), indent=1).encode())

    def commit(self, recipe: Recipe) -> None:
        """Write the recipe: with it the folder holds a training. Raises `MgcompileError`."""
        self.write(RECIPE, recipe.to_yaml().encode())

    def _look(self, *, resume: bool) -> None:
        if (self.folder / RECIPE).exists():
            if not resume:
                raise InputError(f"{self.folder}: holds a training already; --resume goes on with it")
        elif self.folder.exists() and not self._is_free():
            raise InputError(f"{self.folder}: is there and holds no training; expected a new or an empty folder")

    def _is_free(self) -> bool:
        """Whether nothing is in the folder but what is left of a training that stopped before its first step."""
        if not self.folder.is_dir():
            return False
        ours = (SPEC, CHECKPOINTS, WEIGHTS, DATA, LOCK)
        left = [path for path in self.folder.iterdir() if path.name not in ours and not _is_draft(path)]
        return not left and not any(self.steps())

    def own(self, name: str) -> Path:
        """The path of a file of the folder. Raises `InputError` where a link is there: of what it leads to, messages
        would show a part, and a file would take its place.
        """
        path = self.folder / name
        if path.is_symlink():
            raise InputError(f"{path}: is a link; a training keeps a file there: put the file itself in its place")
        return path

    def _compare(self, spec: Spec, recipe: Recipe) -> None:
        theirs = given_in(self.own(RECIPE)).data
        ours = recipe.model_dump(exclude_none=True, mode="json")
        names = dict.fromkeys([*ours, *theirs])
        if differ := [name for name in names if name not in FREE and ours.get(name) != theirs.get(name)]:
            told = brief(", ".join(f"{name} {theirs.get(name)} and not {ours.get(name)}" for name in differ), MOST_TOLD)
            raise InputError(f"{self.folder}: its recipe has {told}; go on with the same, or begin in another folder")
        with suppress(OSError), open_regular(self.own(SPEC)) as file:
            self._compare_specs(file.read().decode(errors="replace"), spec, self.folder)

    def _compare_data(self, data: Identity) -> None:
        if not (self.folder / DATA).exists():
            return
        began = self._read(DATA)
        if differ := list(differences(began.get("classes"), began.get("fingerprint"), data)):
            told = brief("; ".join(differ), MOST_TOLD)
            raise InputError(
                f"{self.folder}: began with other data: {told}; bring them back, or begin in another folder"
            )

    def _compare_weights(self, origin: Mapping[str, Any] | None) -> None:
        if origin is not None:
            began = self._read(WEIGHTS) if (self.folder / WEIGHTS).exists() else {}
            if differ := [name for name in origin if began.get(name) != origin[name]]:
                what = f"weights of another {' and another '.join(differ)}" if began else "no weights that were given"
                raise InputError(f"{self.folder}: began from {what}; leave --from away, or begin in another folder")

    def _read(self, name: str) -> dict[str, Any]:
        """What a file of the folder has, JSON. Raises `InputError` where it is damaged."""
        path = self.own(name)
        try:
            with open_regular(path) as file:
                found = json.load(file)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: damaged: {error}; move it away to go on without it") from error
        if not isinstance(found, dict):
            raise InputError(f"{path}: damaged: it holds no mapping; move it away to go on without it")
        return found

    @staticmethod
    def _compare_specs(theirs: str, spec: Spec, where: Path) -> None:
        if theirs != spec.to_yaml():
            lines = difflib.unified_diff(theirs.splitlines(), spec.to_yaml().splitlines(), lineterm="", n=0)
            told = [
                f"  {brief(line, MOST_TOLD)}" for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")
            ]
            first = "\n".join(told[:8])
            raise InputError(f"{where}: is of another spec than {spec.name}; it differs in\n{first}")

    def write(self, name: str, data: bytes) -> Path:
        """Write a file of the folder whole, and see it on the disk. Raises `MgcompileError`."""
        target = self.folder / name
        check_place(self.folder)
        draft = _draft(target)
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)
        return target

    def steps(self) -> list[int]:
        """After how many steps there are checkpoints, in order."""
        folder = self.folder / CHECKPOINTS
        names = os.listdir(folder) if folder.is_dir() else []
        return sorted(int(name) for name in names if re.fullmatch(r"\d{10}", name, re.ASCII))

    def checkpoint(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self.folder / CHECKPOINTS / f"{step:010}"

    def save(
        self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, keep: int, *, interrupted: bool = False
    ) -> Path:
        """Write what is there after `step` steps, then drop all but the last `keep` checkpoints. One that is written
        where the training was `interrupted` is beside them, until the next.

        The checkpoint is there as a whole or not at all, and those before it stay until it is. Raises `MgcompileError`.
        """
        target = self.checkpoint(step)
        check_place(self.folder)
        draft = _draft(target)
        try:
            with writing(target):
                draft.mkdir()
                try:
                    save(model, draft / MODEL)
                except MgcompileError as error:  # it names the draft, which nobody will find
                    raise MgcompileError(str(error).replace(str(draft), str(target))) from error
                state = {
                    name: tensor.detach().cpu().contiguous() for name, tensor in named_state(optimizer, model).items()
                }
                save_file(state, draft / STATE)
                if interrupted:
                    (draft / INTERRUPTED).touch()
                for file in draft.iterdir():
                    _on_disk(file)
                _on_disk(draft)
                draft.replace(target)
                _on_disk(target.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        planned = [each for each in self.steps() if not (self.checkpoint(each) / INTERRUPTED).exists()]
        for old in map(self.checkpoint, {*self.steps()} - {*planned[-keep:], step}):
            with suppress(OSError):  # away as a whole too; what cannot be removed is in nobody's way
                shutil.rmtree(old.rename(_draft(old)))
        return target

    def load(self, step: int, spec: Spec, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Bring model and optimiser to where they were after `step` steps. Raises `MgcompileError`."""
        folder = self.checkpoint(step)
        try:
            text, weights = read_checkpoint(folder / MODEL)
            if text is not None:
                self._compare_specs(text, spec, folder / MODEL)
            state: dict[str, Tensor] = read_checkpoint(folder / STATE)[1]
            load_weights(model, weights)
            if step:  # before the first there is none
                load_state(optimizer, model, state)
        except InputError:
            raise
        except MgcompileError as error:
            before = self.steps()[: self.steps().index(step)]
            advice = f"--resume goes on after step {before[-1]:,}" if before else "--resume begins again"
            raise MgcompileError(
                f"{folder}: is no checkpoint of this training: {error}; without it {advice}"
            ) from error


def _draft(target: Path) -> Path:
    """A new name beside the target, by which it is known that it was never whole."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}")


def _is_draft(path: Path) -> bool:
    return re.fullmatch(r"\..+\.[0-9a-f]{8}", path.name) is not None


def _on_disk(path: Path) -> None:
    """What is written there outlives a power cut; not every system knows this for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
