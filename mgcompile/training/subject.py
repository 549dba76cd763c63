"""A trained network beside the data of its task: what is looked at once a training is over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path

import torch
from torch import fx

from mgcompile.api import load_model
from mgcompile.errors import InputError, MgcompileError
from mgcompile.graph import Graph
from mgcompile.spec import Spec, parse_spec
from mgcompile.training.files import DataError
from mgcompile.training.fitting import Fit, fit
from mgcompile.training.recipe import Recipe, given_in, recipe_for
from mgcompile.training.runs import MODEL, RECIPE, Run
from mgcompile.training.tasks import TASKS, ClassData, Data, Settings
from mgcompile.training.tasks.classes import with_classes

__all__ = ["Subject", "open_subject"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A network in evaluation mode, the data of its task, and which of its outputs answers for the task."""

    spec: Spec
    model: fx.GraphModule
    task: str
    data: Data
    fit: Fit
    notes: tuple[str, ...] = ()
    """What is not known of them, in lines."""


def open_subject(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    task: str | None = None,
    options: Mapping[str, int | None] | None = None,
    some_classes: bool = False,
    device: torch.device | str = "cpu",
) -> Subject:
    """A network from a `.safetensors` file that has its spec in it, in inference form, and data from `folder`.

    `path` may also be the folder of a training: then its `model.safetensors` is taken, or else that of its last
    checkpoint, and its recipe says the task, and of the same task the options, where `task` and `options` do not.
    `options` are fields of `Settings`; None says nothing. Classes are those that the network was trained on, by name;
    with `some_classes` the data may lack some.

    Raises `SpecError` where network and task do not fit, `DataError` where the file or the data are missing or damaged,
    and `InputError` for other classes, and for a task, or an option of it, that is not known.
    """
    file, source = _model_file(Path(path))
    try:
        model = load_model(file, device=device, optimize="inference")
    except InputError:
        raise
    except MgcompileError as error:
        raise DataError(str(error)) from error
    spec = parse_spec(model.meta["mgcompile"]["spec"], os.fspath(file), extends=False)
    recipe = _recipe_of_data(source, spec.graph) if source else None
    name = task or (recipe.task if recipe else None)
    if name is None:
        raise InputError(f"{path}: no task is said; only the folder of a training says its own")
    if name not in TASKS:
        raise InputError(f"there is no task {name!r}; there are {', '.join(TASKS)}")
    data = TASKS[name].open(Path(folder), _settings(name, recipe, options or {}))
    notes: tuple[str, ...] = ()
    if isinstance(data, ClassData):
        classes = _trained_classes(model, file)
        if classes is None:
            notes = (
                f"{file}: does not say which classes it was trained on; those of the data are taken in their order",
            )
        else:
            try:
                data = with_classes(data, classes, some=some_classes)
            except InputError as error:
                raise InputError(f"{folder}: {error}") from None
    return Subject(spec, model, name, data, fit(spec, data, name), notes)


def _recipe_of_data(file: Path, graph: Graph) -> Recipe:
    """What a recipe says of task and data. The rest is not looked at: it was trained by, whatever one may say today."""
    source = given_in(file)
    fields = {"task", *(field.name for field in dataclass_fields(Settings))}
    return recipe_for(replace(source, data={key: each for key, each in source.data.items() if key in fields}), graph)


def _trained_classes(model: fx.GraphModule, file: Path) -> tuple[str, ...] | None:
    """The names of the classes of a training, in the order of the outputs; None where the file does not say."""
    told = model.meta["mgcompile"].get("data")
    classes = told.get("classes") if isinstance(told, Mapping) else None
    if classes is None:
        return None
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise DataError(f"{file}: damaged: what it says of its classes is no list of names; expected one, or none")
    return tuple(classes)


def _model_file(path: Path) -> tuple[Path, Path | None]:
    """The file with the weights, and that of the recipe where there is one."""
    if not path.exists():
        raise DataError(f"{path}: missing: it does not exist; expected a .safetensors file or the folder of a training")
    if not path.is_dir():
        return path, None
    recipe = path / RECIPE
    last = [Run(path).checkpoint(step) / MODEL for step in Run(path).steps()[-1:]]
    for file in (path / MODEL, *last):
        if file.is_file():
            return file, recipe if recipe.is_file() else None
    raise DataError(f"{path}: has no {MODEL} and no checkpoint; expected the folder of a training")


def _settings(name: str, recipe: Recipe | None, options: Mapping[str, int | None]) -> Settings:
    """What was said, and else what the recipe has, of the same task."""
    said = {key: value for key, value in options.items() if value is not None}
    has = TASKS[name].options
    for key in said:
        if key not in has:
            raise InputError(f"{name} has no {key} to set; of data it has {', '.join(sorted(has)) or 'none'}")
    if recipe is not None and recipe.task == name:
        kept = {field.name: getattr(recipe.settings, field.name) for field in dataclass_fields(Settings)}
        return Settings(**{**kept, **said})
    return Settings(**said)
