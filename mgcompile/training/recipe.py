"""Recipes: how a network is trained. What a file and flags leave open is what the task's paper did."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from mgcompile.errors import Problem, SpecError
from mgcompile.graph import Graph
from mgcompile.graph.ops import Sum
from mgcompile.spec.fields import Fixed, Option, choice, integer, real, wrong
from mgcompile.spec.problems import validation_problems
from mgcompile.spec.source import Source, read_source, source_of_mapping
from mgcompile.spec.writing import dump
from mgcompile.training.optimizers import OPTIMIZERS
from mgcompile.training.schedules import SCHEDULES
from mgcompile.training.tasks import TASKS, Settings, Task

__all__ = ["Recipe", "given_in", "problem_with", "recipe_for"]

MOST = 2**31 - 1

FALLING = ("exponential", "cosine", "one-cycle")
"""The schedules that end at `final_lr`."""
READERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "schedule": {"drops": ("step",), "drop_factor": ("step",), "final_lr": FALLING, "warmup": ("one-cycle",)},
    "optimizer": {"momentum": ("sgd",), "nesterov": ("sgd",)},
}
"""The fields that not every schedule and optimiser reads, and which do."""


def _fixed(option: Option) -> Fixed:
    return Fixed(option.check, option.schema)


def _task(value: Any) -> str:
    if not isinstance(value, str) or value not in TASKS:  # those that are registered by now
        raise wrong(f"one of {', '.join(TASKS)}", value)
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong("true or false", value)
    return value


def _parts(value: Any) -> tuple[float, ...]:
    check = real(0, 1).check
    if not isinstance(value, list | tuple):
        raise wrong("a list of parts of the training, such as [0.3, 0.6]", value)
    return tuple(check(part) for part in value)


Truth = Annotated[bool, Fixed(_truth, {"type": "boolean"})]
Count = Annotated[int, _fixed(integer(1, MOST))]
Side = Annotated[int, _fixed(integer(1, 4096))]
Rate = Annotated[float, _fixed(real(1e-12, 1e6))]
Part = Annotated[float, _fixed(real(0, 1))]
Parts = Annotated[tuple[float, ...], Fixed(_parts, {"type": "array", "items": {"type": "number"}})]


class Recipe(BaseModel):
    """How a network is trained. Each field is a key of a recipe file and a flag of `mgcompile train`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)

    task: Annotated[str, Fixed(_task, {"type": "string"})] = Field(description="What it is trained for.")
    seed: Annotated[int, _fixed(integer(0, 2**63 - 1))] = Field(0, description="Of weights, order and augmentation.")

    steps: Count = Field(description="Updates of the weights.")
    batch: Annotated[int, _fixed(integer(1, 65536))] = Field(64, description="Examples of a step, on all processes.")
    accumulate: Annotated[int, _fixed(integer(1, 65536))] = Field(
        1, description="Parts that a batch is computed in, one after the other; each has batch statistics of its own."
    )

    optimizer: Annotated[str, _fixed(choice(*OPTIMIZERS))] = Field("sgd", description="What makes the steps.")
    lr: Rate = Field(0.1, description="Learning rate, at its largest.")
    momentum: Part = Field(0.9, description="Of sgd.")
    nesterov: Truth = Field(False, description="Nesterov's momentum, of sgd.")
    weight_decay: Annotated[float, _fixed(real(0, 1e3))] = Field(0.0, description="Of all weights.")
    schedule: Annotated[str, _fixed(choice(*SCHEDULES))] = Field(
        "constant", description="How the learning rate goes. The paper's: step for residual networks, else exponential."
    )
    drops: Parts = Field((0.3, 0.6, 0.8), description="Parts of the steps after which `step` lowers the rate.")
    drop_factor: Annotated[float, _fixed(real(1e-6, 1))] = Field(0.2, description="By which `step` lowers it.")
    final_lr: Rate = Field(1e-4, description="Where exponential, cosine and one-cycle end.")
    warmup: Part = Field(0.3, description="Part of the steps in which one-cycle rises.")

    size: Side | None = Field(None, description="Side of the input in pixels. Default: the paper's.")
    digit: Annotated[int, _fixed(integer(1, 28))] | None = Field(
        None, description="Side of MNIST's digits, a divisor of 28: means over squares."
    )
    resize: Side | None = Field(None, description="Side to which pictures are brought before they are cropped.")
    samples: Annotated[int, _fixed(integer(1, 10_000_000))] | None = Field(
        None, description="How many different samples to train on. Default: the paper's."
    )

    precision: Annotated[str, _fixed(choice("fp32", "bf16"))] = Field(
        "fp32", description="What convolutions compute in; weights stay in fp32."
    )
    optimize: Truth = Field(True, description="Train the rewritten network, channels-last: the same in less time.")
    torch_compile: Truth = Field(False, description="Run it through torch.compile.")

    evaluate_every: Count = Field(1_000, description="Steps between evaluations, each with a picture.")
    evaluate_samples: Count = Field(
        1_000, description="Held-out samples at most, of those evaluations; at equal distances."
    )
    test_samples: Count | None = Field(None, description="Test samples at most, at the end. Default: all.")
    checkpoint_every: Count = Field(1_000, description="Steps between checkpoints.")
    keep: Annotated[int, _fixed(integer(1, 1_000_000))] = Field(2, description="Checkpoints that are kept, the last.")
    pictures: Annotated[int, _fixed(integer(0, 64))] = Field(8, description="Held-out samples on a picture.")

    @model_validator(mode="after")
    def _agrees(self) -> Recipe:
        if found := dict(_contradictions(self)):
            raise PydanticCustomError("contradiction", "{text}", {"text": "; ".join(found.values()), "found": found})
        return self

    @property
    def settings(self) -> Settings:
        """What the task's data are told."""
        return Settings(**{field.name: getattr(self, field.name) for field in dataclass_fields(Settings)})

    def to_yaml(self) -> str:
        """As a file that says everything; what is None is left out."""
        return dump(self.model_dump(exclude_none=True, mode="json"))


def recipe_for(given: Source | Mapping[str, Any], graph: Graph) -> Recipe:
    """What was said, and for the rest what was published for the task: with the schedule that the paper has for a
    residual network, which is one that adds, or for another.

    Raises `SpecError` with all mistakes.
    """
    source = given if isinstance(given, Source) else source_of_mapping(given)
    data = source.data
    name = data.get("task")
    task = TASKS.get(name) if isinstance(name, str) else None  # what is no task is refused below
    published: dict[str, Any] = {"steps": 1}  # without a task that is known, no more is to be said of them
    if task is not None:
        residual = any(isinstance(node.op, Sum) for node in graph)
        published = {"schedule": "step" if residual else "exponential", **task.published}
        published.setdefault("checkpoint_every", published.get("evaluate_every", 1_000))
    if "evaluate_every" in data:
        published["checkpoint_every"] = data["evaluate_every"]
    try:
        recipe = Recipe.model_validate({**published, **data})
    except ValidationError as error:
        raise SpecError([*_wrong(error, source), *_unfit(source, task)]) from None
    if problems := [*_unfit(source, task), *_unread(source, recipe, published)]:
        raise SpecError(problems)
    return recipe


def _wrong(error: ValidationError, source: Source) -> Iterator[Problem]:
    """Each mistake at its place; where fields contradict each other, at one of them."""
    first = error.errors(include_url=False)[0]
    if first["type"] != "contradiction":
        yield from validation_problems(error, source, (), Recipe)
        return
    for field, text in first["ctx"]["found"].items():
        mark = source.locate((field,), key=True)
        yield Problem(mark.file, mark.line, mark.column, field, text)


def _contradictions(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Fields that cannot be meant together: one of them, and what is wrong, with the flags of both."""
    batch, parts, lr, final = recipe.batch, recipe.accumulate, recipe.lr, recipe.final_lr
    if batch % parts:
        multiple = "--batch has to be a multiple of --accumulate"
        yield "accumulate", f"a batch of {batch} cannot be computed in {parts} equal parts; {multiple}"
    if recipe.schedule in FALLING and final > lr:
        rise = f"would rise from {lr:g} (--lr) to {final:g} (--final-lr)"
        yield "lr", f"the rate of schedule {recipe.schedule} {rise}; set final_lr to the same or less"
    if recipe.schedule == "one-cycle" and recipe.warmup == 1:
        rise = f"would rise to the last step (--warmup 1) and never fall to {final:g} (--final-lr)"
        yield "warmup", f"the rate of schedule one-cycle {rise}; take a part below 1"
    if recipe.schedule == "step" and (outside := [part for part in recipe.drops if part in (0, 1)]):
        when = "before the first step" if outside[0] == 0 else "after the last step"
        yield "drops", f"the rate would be lowered {when} (--drops {outside[0]:g}); take parts between 0 and 1"
    if recipe.optimizer == "sgd" and recipe.nesterov and not recipe.momentum:
        yield "nesterov", "Nesterov's momentum (--nesterov true) of 0 (--momentum 0) is none; set either otherwise"


def _unread(source: Source, recipe: Recipe, published: Mapping[str, Any]) -> Iterator[Problem]:
    """Fields that were set, and that the schedule or the optimiser does not read. What is so by default is no mistake:
    the recipe in the folder of a training says everything.
    """

    def found(field: str, message: str) -> Iterator[Problem]:
        default = Recipe.model_fields[field].get_default()
        if field in source.data and getattr(recipe, field) not in (default, published.get(field, default)):
            mark = source.locate((field,), key=True)
            yield Problem(mark.file, mark.line, mark.column, field, message)

    for chooser, readers in READERS.items():
        chosen = getattr(recipe, chooser)
        for field, has in readers.items():
            if chosen not in has:
                yield from found(field, f"{chooser} {chosen} (--{chooser}) has no {field}; {', '.join(has)} has")


def _unfit(source: Source, task: Task | None) -> Iterator[Problem]:
    """Options that a task does not have."""
    for field in dataclass_fields(Settings):
        if task and field.name in source.data and field.name != "seed" and field.name not in task.options:
            mark = source.locate((field.name,), key=True)
            has = ", ".join(sorted(task.options)) or "none"
            message = f"{task.name} has no such option; of data it has {has}"
            yield Problem(mark.file, mark.line, mark.column, field.name, message)


def problem_with(field: str, value: Any) -> str:
    """What is wrong with the value of a field; empty where nothing is."""
    kind = get_type_hints(Recipe, include_extras=True)[field]
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        return str(error.errors(include_url=False)[0]["msg"])
    return ""


def given_in(path: str | os.PathLike[str]) -> Source:
    """What a recipe file says. Raises `SpecError`."""
    try:
        return read_source(path)
    except SpecError as error:
        told = [replace(problem, message=problem.message.replace("`layers`", "`steps`")) for problem in error.errors]
        raise SpecError(told) from None
