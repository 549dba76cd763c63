"""The command that finds the params of a spec for a budget: fit."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.console import (
    LARGEST_BATCH,
    command,
    one_spec,
    output_file,
    page,
    put,
    read,
    refuse_over,
    say,
    set_option,
    size_option,
    write,
)
from mgcompile.errors import MgcompileError, ShapeError, SpecError

if TYPE_CHECKING:
    from mgcompile.analysis.budget import Budget, Kept
    from mgcompile.analysis.fitting import Axis, Fit, Measure, Point
    from mgcompile.spec import Spec

__all__ = ["fit"]

LARGEST = 1_000_000
"""The largest value that is looked at where one param varies and nothing bounds it."""
AROUND = 4
"""So many times smaller and larger than they are, params are looked at where several vary and nothing bounds them."""
FORMATS = ("table", "json", "markdown")
BUDGETS = {
    "params": "9M",
    "macs": "500M",
    "flops": "1.1G",
    "activations": "40MiB",
    "memory": "100MiB",
    "training-memory": "2GiB",
}
"""An example for each figure that can be limited."""


def _limit(ctx: click.Context, param: click.Parameter, text: str | None) -> Budget | None:
    if text is None:
        return None
    from mgcompile.analysis.budget import parse_budget

    try:
        return parse_budget(f"{param.opts[0].removeprefix('--')}={text}")
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _limits(function: Callable[..., None]) -> Callable[..., None]:
    """An option for each figure that can be limited."""
    for figure, example in reversed(BUDGETS.items()):
        name = f"limit_{figure.replace('-', '_')}"
        option = click.option(f"--{figure}", name, metavar="N", callback=_limit, help=f"Budget, such as {example}.")
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The least and the greatest value to look at; None where nothing is said."""

    least: int | None = None
    most: int | None = None

    @property
    def lower(self) -> tuple[int, ...]:
        return () if self.least is None else (self.least,)

    @property
    def upper(self) -> tuple[int, ...]:
        return () if self.most is None else (self.most,)

    def holds(self, value: int) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        least = [f"at least {self.least}"] if self.least is not None else []
        return " and ".join([*least, *([f"at most {self.most}"] if self.most is not None else [])])


def _ranges(ctx: click.Context, param: click.Parameter, texts: Sequence[str]) -> dict[str, _Bounds]:
    found = {}
    for text in texts:
        match = re.fullmatch(r"([A-Za-z_]\w*)=(-?\d{1,9})?:(-?\d{1,9})?", text, re.ASCII)
        if not match:
            raise click.BadParameter(f"{text!r}; expected NAME=LOW:HIGH such as width=8:256", ctx, param)
        least, most = (None if side is None else int(side) for side in match.groups()[1:])
        if least is not None and most is not None and least > most:
            raise click.BadParameter(f"{text!r}: {least} is more than {most}", ctx, param)
        found[match[1]] = _Bounds(least, most)
    return found


def _steps(ctx: click.Context, param: click.Parameter, texts: Sequence[str]) -> dict[str, int]:
    found = {}
    for text in texts:
        match = re.fullmatch(r"([A-Za-z_]\w*)=([1-9]\d{0,8})", text, re.ASCII)
        if not match:
            raise click.BadParameter(f"{text!r}; expected NAME=N such as width=8", ctx, param)
        found[match[1]] = int(match[2])
    return found


def _spec_file(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    if path is not None and not path.endswith((".yaml", ".yml", ".json")):
        raise click.BadParameter(f"{path}: expected .yaml, .yml or .json: a spec", ctx, param)
    return output_file(ctx, param, path)


@command(
    "fit",
    "fit imagenet/r-mg-34 --vary width --macs 500M",
    "fit cifar100/r-mg-12 --vary n --vary width --params 9M --macs 200M",
    "fit network.yaml --vary width --memory 64MiB --batch 8 --step width=8 --range width=8:256 -o fitted.yaml",
)
@one_spec
@click.option("--vary", metavar="NAME", multiple=True, required=True, help="An integer param to choose. Repeatable.")
@_limits
@set_option
@size_option
@click.option(
    "--batch",
    type=click.IntRange(1, LARGEST_BATCH),
    metavar="N",
    help="Batch size, for --memory and --training-memory. Default: 1.",
)
@click.option(
    "--range",
    "ranges",
    metavar="NAME=LOW:HIGH",
    multiple=True,
    callback=_ranges,
    help="Look at values from LOW to HIGH alone. Repeatable.",
)
@click.option(
    "--step", "steps", metavar="NAME=N", multiple=True, callback=_steps, help="Multiples of N alone. Repeatable."
)
@click.option("--format", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    callback=_spec_file,
    help="Write a spec with the params set: one that extends SPEC where that lies below it, else a whole one.",
)
def fit(
    *,
    spec: str,
    vary: tuple[str, ...],
    params: dict[str, Any],
    size: tuple[int, int] | None,
    batch: int | None,
    ranges: dict[str, _Bounds],
    steps: dict[str, int],
    format: str,
    output: str | None,
    **limits: Budget | None,
) -> None:
    """Choose params of a SPEC so that its figures are within budgets.

    One param: its largest value within all budgets. Several: the combination that comes closest to a budget; among
    equals the one that changes all params by the most equal factors.
    The search takes figures to grow with params, and checks that on what it looks at.
    """
    from mgcompile.analysis import fitting
    from mgcompile.analysis.budget import check_budgets
    from mgcompile.analysis.fitting_report import out_of_reach

    budgets = [budget for budget in limits.values() if budget is not None]
    if not budgets:
        raise click.UsageError(f"there is no budget; expected one of {', '.join(f'--{name}' for name in BUDGETS)}")
    if batch is not None and not {budget.figure for budget in budgets} & {"memory", "training-memory"}:
        raise click.UsageError("--batch goes with --memory or --training-memory; other figures are of one sample")
    batch = batch or 1
    found = read(spec, params)
    if output is not None:
        refuse_over(output, found.source.files)
    found.graph.shapes(size)  # a size that is too small
    axes = _axes(found, tuple(dict.fromkeys(vary)), params, ranges, steps)
    measure = _measure(found, axes, budgets, size, batch)
    try:
        result = fitting.fit(axes, measure, [budget.limit for budget in budgets])
    except fitting.IndependentError as error:
        figures = " nor ".join(budget.figure for budget in budgets)
        hint = f"leave --vary {error.axis.name} away" if len(axes) > 1 else "vary another param"
        raise click.UsageError(f"{spec}: {error} ({figures}); {hint}") from None
    except fitting.OutOfReachError as error:
        raise MgcompileError(f"{spec}: {out_of_reach(error, axes, budgets)}") from None
    except fitting.SearchError as error:
        raise MgcompileError(f"{spec}: {error} (--range, --step)") from None
    chosen = _loaded(found, axes, result.chosen)
    kept = check_budgets(chosen.graph, budgets, size, batch=batch)
    file = None if output is None else _file(spec, chosen, axes, kept, output=output, size=size)
    put(_text(chosen.name, axes, kept, result, size=size or chosen.graph.size, format=format), None)
    if file is not None and output is not None:
        _write(file, output, format)


# --- What is looked at


def _axes(
    spec: Spec,
    names: Sequence[str],
    params: Mapping[str, Any],
    ranges: Mapping[str, _Bounds],
    steps: Mapping[str, int],
) -> list[Axis]:
    declared = spec.params
    for name in names:
        if name not in declared:
            near = get_close_matches(name, declared, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise click.UsageError(
                f"--vary {name}: {spec.name} has no such param; {hint}it has {', '.join(declared) or 'none'}"
            )
        if name in params:
            raise click.UsageError(f"--vary {name} and --set {name}: a param is chosen or set; leave one away")
        if type(declared[name]) is not int:
            shown = json.dumps(declared[name], ensure_ascii=False, default=str)
            raise click.UsageError(f"--vary {name}: expected a param that is an integer; it is {shown}")
    for option, given in (("--range", ranges), ("--step", steps)):
        if stray := [name for name in given if name not in names]:
            raise click.UsageError(f"{option} {stray[0]}: it does not vary; expected one of {', '.join(names)}")
    several = len(names) > 1
    return [_axis(spec, name, ranges.get(name, _Bounds()), steps.get(name, 1), several) for name in names]


def _axis(spec: Spec, name: str, bounds: _Bounds, step: int, several: bool) -> Axis:
    from mgcompile.analysis.fitting import Axis

    param, default = spec.document.params[name], spec.params[name]
    allowed = _Bounds(
        None if param.min is None else ceil(param.min),
        None if param.max is None else floor(param.max),
    )
    for bound in (bounds.least, bounds.most):
        if bound is not None and not allowed.holds(bound):
            raise click.UsageError(f"--range {name}: {bound} is not allowed; the spec says {allowed}")
    if param.choices is not None:
        choices = sorted({value for value in param.choices if type(value) is int})
        low, high = choices[0], choices[-1]
    elif several:
        low, high = (-(-default // AROUND), default * AROUND) if default > 0 else (default, default + AROUND)
        low, high = max([low, *allowed.lower]), min([high, *allowed.upper])
    else:
        low, high = (*allowed.lower, min(1, default))[0], (*allowed.upper, max(LARGEST, default))[0]
    low, high = (*bounds.lower, low)[0], (*bounds.upper, high)[0]
    if param.choices is not None:
        values: Sequence[int] = [value for value in choices if low <= value <= high and value % step == 0]
    else:
        values = range(-(-low // step) * step, high + 1, step)
    if not values:
        multiples = f" is a multiple of {step}" if step > 1 else " is left"
        raise click.UsageError(f"--vary {name}: no value from {low} to {high}{multiples}")
    return Axis(name, values, default)


def _measure(
    spec: Spec, axes: Sequence[Axis], budgets: Sequence[Budget], size: tuple[int, int] | None, batch: int
) -> Measure:
    from mgcompile.analysis.budget import figures_of
    from mgcompile.spec import load

    wanted = [budget.figure for budget in budgets]

    def measure(values: tuple[int, ...]) -> tuple[int, ...] | None:
        settings = dict(zip([axis.name for axis in axes], values, strict=True))
        try:
            figures = figures_of(load(spec, params=settings).graph, wanted, size, batch=batch)
        except (SpecError, ShapeError):
            return None
        return tuple(figures[figure] for figure in wanted)

    return measure


def _loaded(spec: Spec, axes: Sequence[Axis], point: Point) -> Spec:
    from mgcompile.spec import load

    return load(spec, params={axis.name: value for axis, value in zip(axes, point.values, strict=True)})


# --- What is said and written


def _text(
    name: str, axes: Sequence[Axis], kept: Sequence[Kept], result: Fit, *, size: tuple[int, int], format: str
) -> str:
    from mgcompile.analysis import tables
    from mgcompile.analysis.fitting_report import fit_record, fit_sheets

    match format:
        case "json":
            return tables.as_json(fit_record(name, size, axes, kept, result))
        case "markdown":
            return tables.as_markdown(fit_sheets(name, size, axes, kept, result))
        case _:
            return tables.as_text(fit_sheets(name, size, axes, kept, result), **page(None))


def _file(
    name: str,
    chosen: Spec,
    axes: Sequence[Axis],
    kept: Sequence[Kept],
    *,
    output: str,
    size: tuple[int, int] | None,
) -> str:
    """A spec that extends the given one where it may, and else says it whole, with the params set. Raises `SpecError`
    where it could not be read back.
    """
    from mgcompile.analysis.tables import as_json, size_text
    from mgcompile.spec import parse_spec
    from mgcompile.spec.expressions import names_in
    from mgcompile.spec.writing import dump

    title = chosen.document.name
    told = names_in(title)  # such a name follows its params by itself
    new = [axis.name for axis in axes if chosen.params[axis.name] != axis.default and axis.name not in told]
    about = ", ".join(f"{each.budget} ({each.found:,})" for each in kept)
    data: dict[str, Any] = {
        "version": 1,
        "name": " ".join([title, *(f"{param}=${{{param}}}" for param in new)]),
        "description": f"Fitted to {about} at an input of {size_text(size or chosen.graph.size)}.",
    }
    base = None if name == "-" else _base(name, output)
    if base is None:
        data = {**chosen.data, **data}
    else:
        data["extends"] = base
        data["params"] = {key: {"default": value} for key, value in chosen.overrides.items()}
    if size is not None:
        data["input"] = {**data.get("input", {}), "size": list(size)}
    text = as_json(data) if output.endswith(".json") else dump(data)
    if parse_spec(text, output).graph.nodes != chosen.graph.nodes:
        raise MgcompileError(f"{output}: `extends: {data.get('extends')}` leads to another spec from there than {name}")
    return text


def _base(name: str, output: str) -> str | None:
    """What the spec `name` is called in a file `output`; None where a spec there may not extend it."""
    from mgcompile.spec import zoo_names

    if not os.path.lexists(name) and name in zoo_names():
        return name
    # Both without symbolic links, for `..` goes up from where a link leads to.
    base = os.path.relpath(os.path.realpath(name), os.path.realpath(os.path.dirname(output) or os.curdir))
    return None if base.split(os.sep)[0] == os.pardir or os.path.isabs(base) else base.replace(os.sep, "/")


def _write(text: str, path: str, format: str) -> None:
    if format == "table":
        write(text.encode(), path)
        return
    from mgcompile.outputs import write_file

    write_file(path, text.encode())
    say(f"wrote {path}")  # standard output is for a program
