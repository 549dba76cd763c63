"""Commands that read specs: check, show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.console import (
    OPTIMIZE,
    TABLE_FORMATS,
    Worst,
    command,
    many_specs,
    one_spec,
    output_option,
    page,
    put,
    read,
    set_option,
    size_option,
    table_format,
    tell,
)
from mgcompile.escaping import visible

if TYPE_CHECKING:
    from mgcompile.graph import Graph

__all__ = ["check", "show"]

SPEC_FORMATS = ("yaml", "json", "graph")


@command("check", "check network.yaml", "check imagenet/r-mg-34 cifar100/r-pmg-30", "check family.yaml --set n=3")
@many_specs
@set_option
def check(specs: tuple[str, ...], params: dict[str, Any]) -> None:
    """Say all that is wrong with each SPEC, as file:line:column.

    A line on standard output for each that is right; exit status 2 if one is wrong.
    """
    worst = Worst()
    for name in specs:
        with worst.report(name):
            graph = read(name, params).graph
            graph.shapes()  # a nominal size that is too small
            levels = {node.level for node in graph}
            count = sum(node.op.parameters(*graph.input_types(node)) for node in graph.owners())
            tell(f"ok  {graph.name}: {len(graph):,} nodes, {len(levels)} levels, {count:,} parameters")
    worst.exit()


@command(
    "show",
    "show cifar100/r-pmg-30",
    "show network.yaml --expand",
    "show network.yaml --format graph",
    "show network.yaml --format graph --size 64",
    "show imagenet/r-mg-34 --passes",
    "show network.yaml --passes training --size 64 -o passes.csv",
)
@one_spec
@set_option
@click.option("--expand", is_flag=True, help="The canonical form: primitive layers, nothing left to work out.")
@click.option(
    "--passes",
    "mode",
    type=click.Choice(OPTIMIZE),
    is_flag=False,
    flag_value="inference",
    help="What each pass of an optimised model does to the graph: nodes, MACs, activation bytes.",
)
@size_option
@click.option(
    "--format",
    type=click.Choice(list(dict.fromkeys((*SPEC_FORMATS, *TABLE_FORMATS)))),
    help="yaml, json or graph; with --passes: table, json, csv or markdown. Default: what the suffix of -o says, else "
    "yaml or table.",
)
@output_option
def show(
    *,
    spec: str,
    params: dict[str, Any],
    expand: bool,
    mode: str | None,
    size: tuple[int, int] | None,
    format: str | None,
    output: str | None,
) -> None:
    """Print a SPEC as mgcompile reads it, or its graph, or what passes do to it.

    What it extends is merged in, and params are set.
    """
    if mode is None and format is None and (output or "").lower().endswith(".json"):
        format = "json"
    _refuse_options(mode, expand=expand, size=size, format=format)
    found = read(spec, params)
    if mode is not None:
        put(_passes_text(found.graph, mode, size, table_format(format, output), page(output)), output)
        return
    from mgcompile.analysis.tables import as_json

    found = found.expand() if expand else found
    if format == "graph":
        put(_graph_text(found.graph, size), output)
    else:
        put(as_json(found.data) if format == "json" else found.to_yaml(), output)


def _refuse_options(mode: str | None, *, expand: bool, size: tuple[int, int] | None, format: str | None) -> None:
    if mode is None:
        if size is not None and format != "graph":
            raise click.UsageError("--size goes with --passes or --format graph; a spec has a size of its own")
        if expand and format == "graph":
            raise click.UsageError("--expand prints a spec; its graph is the same without")
        if format not in (None, *SPEC_FORMATS):
            raise click.UsageError(f"--format {format} goes with --passes; expected one of {', '.join(SPEC_FORMATS)}")
        return
    if expand:
        raise click.UsageError("--expand prints a spec, --passes figures of its graph; choose one")
    if format not in (None, *TABLE_FORMATS):
        raise click.UsageError(f"--passes has no {format}; expected one of {', '.join(TABLE_FORMATS)}")


def _passes_text(graph: Graph, mode: str, size: tuple[int, int] | None, format: str, look: Mapping[str, Any]) -> str:
    from mgcompile.analysis import rewriting_report as report
    from mgcompile.passes.pipelines import steps

    found = report.rewriting(steps(graph, mode), mode, size)
    match format:
        case "json":
            return report.as_json(found)
        case "csv":
            return report.as_csv(found)
        case "markdown":
            return report.as_markdown(found)
    return report.as_table(found, **look)


def _graph_text(graph: Graph, size: tuple[int, int] | None) -> str:
    """A line for each node; its output's shape at an input `size`, else what it is at any."""
    from mgcompile.analysis.tables import size_text

    types: Mapping[str, object] = graph.types
    if size is not None:
        types = {name: size_text(shape) for name, shape in graph.shapes(size).items()}
    rows = [("node", "op", "level", "output", "inputs")]
    for node in graph:
        shared = f"  (weights of {node.weights})" if node.shares else ""
        inputs = ", ".join(node.inputs) + shared
        rows.append((node.name, node.op.label, str(node.level), str(types[node.name]), inputs))
    shown = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    outputs = [visible(f"output {name}: {node}") for name, node in graph.outputs.items()]
    return "\n".join([*lines, "", *outputs]) + "\n"
