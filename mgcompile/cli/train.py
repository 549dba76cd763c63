"""The command that trains. Its flags are the fields of a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.console import TABLE_FORMATS, command, one_spec, page, put, read, say, set_option
from mgcompile.cli.evaluate import checked, evaluation_text
from mgcompile.cli.progress import progress_bar, training_progress
from mgcompile.errors import InputError, SpecError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from mgcompile.graph import Graph
    from mgcompile.training.fetching import DataSet
    from mgcompile.training.recipe import Recipe
    from mgcompile.training.transfer import Weights

__all__ = ["train"]


class _Train(click.Command):
    """Has the fields of a recipe as flags. They are made when they are asked for: what knows them imports torch."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        known = {param.name for param in self.params}
        if "steps" not in known:
            from mgcompile.training.recipe import Recipe

            place = next(index for index, param in enumerate(self.params) if param.name == "data")
            self.params[place:place] = [_flag(name, field) for name, field in Recipe.model_fields.items()]
        return super().get_params(ctx)


def _flag(name: str, field: FieldInfo) -> click.Option:
    default = field.get_default()
    told = field.description or ""
    if name == "task":
        from mgcompile.training.tasks import TASKS

        told += f" One of {', '.join(TASKS)}."
    if not field.is_required() and default is not None:
        told += f" Default: {_shown(default)}."
    metavar = {"task": "TASK", "seed": "N"}.get(name, "VALUE")
    return click.Option([f"--{name.replace('_', '-')}", name], metavar=metavar, help=told, callback=_value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _value(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
    """The text as YAML has it, a comma making a list, held to the field."""
    if text is None:
        return None
    from mgcompile.spec import parse_param
    from mgcompile.training.recipe import Recipe, problem_with

    name = str(param.name)
    listed = isinstance(Recipe.model_fields[name].get_default(), tuple)
    value = parse_param(f"{name}=[{text}]" if listed else f"{name}={text}")[1]
    if problem := problem_with(name, value):
        raise click.BadParameter(problem, ctx, param)
    return value


@command(
    "train",
    "train mnist-spatial/r-pmg-20 --task mnist-spatial --data ~/mnist -o runs/spatial",
    "train mnist-spatial/r-pmg-20 --task mnist-spatial --data ~/mnist -o runs/spatial --resume",
    "train network.yaml --recipe recipe.yaml --data ~/cifar --fetch --lr 0.05 -o runs/first",
    "train network.yaml --task cifar10 --data ~/cifar --from runs/first/model.safetensors -o runs/second",
    cls=_Train,
)
@one_spec
@set_option
@click.option("--recipe", "file", metavar="FILE", help="A YAML or JSON file with any of the following; flags win.")
@click.option("--data", metavar="FOLDER", required=True, help="Where the task's data are.")
@click.option("--fetch", is_flag=True, help="Download into that folder what is not there.")
@click.option(
    "--check-data", is_flag=True, help="Decode every picture before the first step. Else their headers are looked at."
)
@click.option("-o", "--output", metavar="FOLDER", required=True, help="Where recipe, figures and checkpoints go.")
@click.option("--resume", is_flag=True, help="Go on after the last checkpoint there; begin where there is none.")
@click.option("--from", "source", metavar="FILE", help="A .safetensors file to begin from, as far as it fits.")
@click.option(
    "--map",
    "renames",
    metavar="OLD=NEW",
    multiple=True,
    help="Names in that file that begin with OLD begin with NEW here; or a YAML file of `OLD: NEW`. Repeatable.",
)
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", help="Default: a GPU where there is one.")
@click.option(
    "--workers", type=click.IntRange(0, 256), default=0, help="Processes that make examples ahead. Default: 0."
)
@click.option("--threads", type=click.IntRange(1, 1024), help="Of PyTorch. Default: as many as it takes.")
@click.option(
    "--format", type=click.Choice(TABLE_FORMATS), default="table", help="Of the test's figures. Default: table."
)
def train(
    *,
    spec: str,
    params: dict[str, Any],
    file: str | None,
    data: str,
    fetch: bool,
    check_data: bool,
    output: str,
    resume: bool,
    source: str | None,
    renames: tuple[str, ...],
    device: str,
    workers: int,
    threads: int | None,
    format: str,
    **flags: Any,
) -> None:
    """Train the network of SPEC for a task, and test it.

    Where neither file nor flags say something, the recipe is that of the task's paper, and then the defaults below. The
    folder gets recipe.yaml, spec.yaml, training.csv,
    evaluation.csv, tensorboard/, pictures/, checkpoints/ and at the end model.safetensors. A training that was stopped,
    however hard, goes on with --resume to the same numbers. Ctrl-C and SIGTERM let it finish its step and save; once
    more stops it at once.

    --from FILE begins from the weights of another network, with another head perhaps: what was kept, renamed, reshaped,
    new and dropped is said, and is in weights.json. --map module.= takes away what names begin with.

    For several processes: torchrun --nproc-per-node 2 -m mgcompile.cli train ...
    """
    from mgcompile.lowering.machine import threads as using
    from mgcompile.training.evaluation import baseline
    from mgcompile.training.loop import Stopped
    from mgcompile.training.loop import train as run
    from mgcompile.training.processes import is_first
    from mgcompile.training.tasks import TASKS

    if renames and not source:
        raise click.UsageError("--map is for the names in a file to begin from: --from FILE")
    network = read(spec, params)
    recipe = _recipe(file, flags, network.graph)
    weights = _weights(source, renames) if source else None
    task = TASKS[recipe.task]
    if fetch:
        _fetch(task.data_set, recipe.task, data, device=None if device == "auto" else device)
    examples = task.open(Path(data), recipe.settings)
    checked(examples, decode=check_data)
    try:
        with using(threads), training_progress() as watcher:
            trained = run(
                network,
                recipe,
                examples,
                output,
                resume=resume,
                weights=weights,
                device=None if device == "auto" else device,
                workers=workers,
                watcher=watcher,
            )
    except Stopped as stopped:
        if is_first():
            say(str(stopped))
        raise click.exceptions.Exit(128 + stopped.signal) from None
    if is_first():
        text = evaluation_text(
            network.name,
            recipe.task,
            examples,
            trained.test,
            baseline(examples, "test", limit=trained.test.samples),
            crops=1,
            format=format,
            look=page(None),
        )
        put(text, None)


def _recipe(file: str | None, flags: Mapping[str, Any], graph: Graph) -> Recipe:
    """What a recipe file says, and over it the flags. What is wrong with a flag is told by its name."""
    from mgcompile.spec.source import source_of_mapping
    from mgcompile.training.recipe import given_in, recipe_for

    said = {name: value for name, value in flags.items() if value is not None}
    source = source_of_mapping(said) if file is None else given_in(file)
    try:
        return recipe_for(dataclasses.replace(source, data={**source.data, **said}), graph)
    except SpecError as error:
        places = [
            f"--{each.path.replace('_', '-')}: {each.message}" if each.path in said or file is None else str(each)
            for each in error.errors
        ]
        raise InputError("\n".join(places)) from None


def _weights(path: str, renames: tuple[str, ...]) -> Weights:
    from mgcompile.training.transfer import Weights, renames_in

    return Weights(Path(path), renames_in(renames))


def _fetch(data_set: DataSet | None, task: str, folder: str, *, device: str | None) -> None:
    from mgcompile.training.fetching import fetch
    from mgcompile.training.processes import accelerator_for

    if data_set is None:
        raise click.UsageError(f"the data of {task} cannot be fetched; --data names a folder that has them")
    with accelerator_for(device).main_process_first(), progress_bar() as progress:
        fetch(data_set, folder, progress=lambda name, done, total: progress(done, total or done, f"fetching {name}"))
