"""Commands whose result is a file: draw, compile, schema."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.console import (
    Worst,
    command,
    many_specs,
    one_spec,
    optimize_option,
    output_file,
    output_option,
    put,
    read,
    refuse_over,
    say_written,
    set_option,
    size_option,
    write,
)
from mgcompile.errors import MgcompileError

if TYPE_CHECKING:
    from mgcompile.spec import Spec

__all__ = ["compile_", "draw", "schema"]

DRAWING_FORMATS = ("svg", "png", "pdf", "dot", "html")


@command(
    "draw",
    "draw imagenet/r-mg-34 -o r-mg-34.svg",
    "draw network.yaml --detail op --no-fold -o network.pdf",
    "draw cifar100/mg-6 cifar100/mg-11 -o 'drawings/{name}.png'",
    "draw mnist-seg/u-mg-11 --optimize inference -o u-mg-11.svg",
    "draw imagenet/r-mg-34 -o r-mg-34.html",
)
@many_specs
@set_option
@click.option("--no-fold", is_flag=True, help="Draw every repeat; else repeats are drawn once, with xN.")
@click.option(
    "--detail",
    type=click.Choice(["layer", "op"]),
    default="layer",
    show_default=True,
    help="A cell for each grid that is computed, or for each operation.",
)
@optimize_option
@click.option("--format", type=click.Choice(DRAWING_FORMATS), help="Default: what the suffix of -o says, else svg.")
@click.option(
    "-o", "--output", metavar="FILE", help="A file, or for several specs a folder or a pattern with {name} in it."
)
def draw(
    *,
    specs: tuple[str, ...],
    params: dict[str, Any],
    no_fold: bool,
    detail: str,
    optimize: Any,
    format: str | None,
    output: str | None,
) -> None:
    """Draw each SPEC: a row is a level, columns are depth.

    A .html file is an interactive page that opens layers down to single operations; it needs nothing but a browser.
    Without -o the drawing of one SPEC goes to standard output.
    """
    from mgcompile import api

    targets = _drawings(specs, output, format)
    worst = Worst()
    found: dict[str, Spec] = {}
    for name in specs:  # all of them first: a drawing might take the place of one, or of what one extends
        with worst.report(name):
            found[name] = read(name, params)
    for name, (path, chosen) in zip(specs, targets, strict=True):
        if name not in found:
            continue
        with worst.report(name):
            data = api.draw(found[name], format=chosen, fold=not no_fold, detail=detail, optimize=optimize)
            if path is None:
                click.echo(data, nl=False)
            else:
                write(data, path)
    worst.exit()


def _drawings(specs: Sequence[str], output: str | None, format: str | None) -> list[tuple[str | None, str]]:
    """Where each drawing goes, and its format."""
    if output is None:
        if len(specs) > 1:
            raise click.UsageError("several drawings need -o with a folder, or a pattern with {name} in it")
        return [(None, format or "svg")]
    if os.path.isdir(output):
        output = os.path.join(output, f"{{name}}.{format or 'svg'}")
    names = ["stdin" if spec == "-" else re.sub(r"\.(yaml|yml|json)$", "", os.path.basename(spec)) for spec in specs]
    paths = [output.replace("{name}", name) for name in names]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise click.UsageError(f"several drawings would go to {twice}; name a folder, or a pattern with {{name}} in it")
    for path in paths:
        refuse_over(path, specs)
    return [(_drawing(path), format or _drawing_format(path)) for path in paths]


def _drawing(path: str) -> str:
    context = click.get_current_context()
    option = next(param for param in context.command.params if param.name == "output")
    return output_file(context, option, path) or path


def _drawing_format(path: str) -> str:
    from mgcompile.drawing import format_of

    try:
        return format_of(path)
    except MgcompileError as error:
        raise click.UsageError(str(error)) from None


def _model_file(ctx: click.Context, param: click.Parameter, path: str) -> str:
    suffix = os.path.splitext(path)[1]
    if suffix not in (".safetensors", ".py"):
        found = f"the suffix {suffix}" if suffix else "no suffix"
        raise click.BadParameter(
            f"{path}: {found}; expected .safetensors (weights and spec) or .py (source)", ctx, param
        )
    return output_file(ctx, param, path) or path


@command(
    "compile",
    "compile cifar100/r-pmg-30 --seed 1 -o r-pmg-30.safetensors",
    "compile network.yaml --set n=3 -o network.py",
)
@one_spec
@set_option
@size_option
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="For the weights: the same seed, the same weights.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16", "float64"]), help="Default: float32.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    callback=_model_file,
    help=".safetensors: initialised weights, with the spec; .py: readable PyTorch source.",
)
def compile_(
    *,
    spec: str,
    params: dict[str, Any],
    size: tuple[int, int] | None,
    seed: int | None,
    dtype: str | None,
    output: str,
) -> None:
    """Make the PyTorch model that a SPEC means, and write it."""
    source = output.endswith(".py")
    if source and (seed is not None or dtype is not None):
        raise click.UsageError("--seed and --dtype are for weights; a .py file holds none")
    found = read(spec, params)
    found = _resized(found, size) if size else found
    import torch

    from mgcompile import api

    if source:
        from mgcompile.lowering.exporting import to_source

        put(to_source(api.compile(found, device="meta")), output)
    else:
        api.save(api.compile(found, seed=seed, dtype=getattr(torch, dtype or "float32")), output)
        say_written(output)


def _resized(spec: Spec, size: tuple[int, int]) -> Spec:
    """The spec with another nominal size. Raises `ShapeError` where a grid vanishes at it."""
    from mgcompile.spec import load

    spec.graph.shapes(size)
    return load({**spec.data, "input": {**spec.data["input"], "size": list(size)}})


@command("schema", "schema -o mgcompile.schema.json")
@output_option
def schema(output: str | None) -> None:
    """The JSON Schema of specs, for completion and hints in editors.

    First line of a spec: # yaml-language-server: $schema=mgcompile.schema.json
    """
    from mgcompile.spec.schema import json_schema

    put(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", output)
