"""Commands that count many networks: tables, list."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.console import Worst, command, format_option, output_option, page, put, read, table_format

if TYPE_CHECKING:
    from mgcompile.analysis import Audit

__all__ = ["list_", "tables"]


@command("tables", "tables", "tables cifar100 mnist-seg", "tables --format csv")
@click.argument("tasks", metavar="[TASK]...", nargs=-1)
@format_option
@output_option
def tables(tasks: tuple[str, ...], format: str | None, output: str | None) -> None:
    """The paper's tables: published and computed figures.

    A line for each network, and what is known about each difference.
    TASK chooses tables, such as cifar100; all where none is named.
    """
    from mgcompile.analysis import audit_graph, compare_published, published, published_figures

    known = list(dict.fromkeys(line.task for line in published_figures()))
    if unknown := [task for task in tasks if task not in known]:
        raise click.UsageError(f"no published table of {unknown[0]!r}; there are {', '.join(known)}")
    chosen = tasks or tuple(known)
    worst, audits = Worst(), {}
    for name in dict.fromkeys(line.zoo for line in published_figures() if line.task in chosen):
        with worst.report(name):
            audits[name] = audit_graph(read(name, {}).graph)
    rows = [row for row in compare_published(audits) if row.published.task in chosen]
    match table_format(format, output):
        case "json":
            text = published.as_json(rows)
        case "csv":
            text = published.as_csv(rows)
        case "markdown":
            text = published.as_markdown(rows)
        case _:
            text = published.as_table(rows, **page(output))
    put(text, output)
    worst.exit()


@command("list", "list", "list --format json")
@format_option
@output_option
def list_(format: str | None, output: str | None) -> None:
    """The networks that ship with mgcompile.

    With their parameters, and their MACs at the nominal input size.
    """
    from mgcompile.analysis import audit_graph
    from mgcompile.spec import zoo_names

    worst, networks = Worst(), []
    for name in sorted(zoo_names(), key=_natural):
        with worst.report(name):
            spec = read(name, {})
            networks.append((name, audit_graph(spec.graph), " ".join(spec.document.description.split())))
    put(_list_text(networks, table_format(format, output), page(output)), output)
    worst.exit()


def _natural(name: str) -> list[Any]:
    """The key of an order in which mg-6 comes before mg-11."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _list_text(networks: Sequence[tuple[str, Audit, str]], format: str, look: Mapping[str, Any]) -> str:
    from mgcompile.analysis.tables import Sheet, as_csv, as_json, as_markdown, as_text, human, size_text

    exact = [(name, figures.params, figures.macs, *figures.size, about) for name, figures, about in networks]
    columns = ("network", "params", "macs", "height", "width", "description")
    if format == "csv":
        return as_csv(columns, exact)
    if format == "json":
        return as_json({"networks": [dict(zip(columns, row, strict=True)) for row in exact]})
    rows = [
        (name, human(figures.params), human(figures.macs), size_text(figures.size), about)
        for name, figures, about in networks
    ]
    heads = ("network", "params", "MACs", "input", "description")
    sheet = Sheet("", heads, tuple(rows), left=frozenset({"network", "description"}))
    return as_markdown([sheet]) if format == "markdown" else as_text([sheet], **look)
