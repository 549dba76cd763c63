"""Commands that read specs: check, show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.console import Worst, command, many_specs, one_spec, output_option, put, read, set_option

if TYPE_CHECKING:
    from mgcompile.graph import Graph

__all__ = ["check", "show"]


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
            click.echo(f"ok  {graph.name}: {len(graph):,} nodes, {len(levels)} levels, {count:,} parameters")
    worst.exit()


@command("show", "show cifar100/r-pmg-30", "show network.yaml --expand", "show network.yaml --format graph")
@one_spec
@set_option
@click.option("--expand", is_flag=True, help="The canonical form: primitive layers, nothing left to work out.")
@click.option("--format", type=click.Choice(["yaml", "json", "graph"]), default="yaml", show_default=True)
@output_option
def show(spec: str, params: dict[str, Any], expand: bool, format: str, output: str | None) -> None:
    """Print a SPEC as mgcompile reads it, or its graph.

    What it extends is merged in, and params are set.
    """
    found = read(spec, params).expand() if expand else read(spec, params)
    if format == "graph":
        put(_graph_text(found.graph), output)
    else:
        as_json = format == "json"
        put(json.dumps(found.data, indent=2, ensure_ascii=False) + "\n" if as_json else found.to_yaml(), output)


def _graph_text(graph: Graph) -> str:
    """A line for each node."""
    rows = [("node", "op", "level", "output", "inputs")]
    for node in graph:
        shared = f"  (weights of {node.weights})" if node.shares else ""
        inputs = ", ".join(node.inputs) + shared
        rows.append((node.name, node.op.label, str(node.level), str(graph.types[node.name]), inputs))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    outputs = [f"output {name}: {node}" for name, node in graph.outputs.items()]
    return "\n".join([*lines, "", *outputs]) + "\n"
