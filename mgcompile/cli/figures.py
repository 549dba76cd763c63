"""Commands that count: audit, tables, list."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.console import (
    FAILED,
    Worst,
    command,
    format_option,
    many_specs,
    optimize_option,
    output_option,
    page,
    put,
    read,
    say,
    set_option,
    size_option,
    table_format,
)

if TYPE_CHECKING:
    from mgcompile.analysis import Audit, Reconciliation
    from mgcompile.graph import Graph

__all__ = ["audit", "list_", "tables"]


@command(
    "audit",
    "audit imagenet/r-mg-34 --by level",
    "audit cifar100/mg-6 cifar100/vgg-6 --size 64x48",
    "audit network.yaml --verify",
    "audit network.yaml --by layer --depth 2 -o audit.csv",
    "audit imagenet/r-mg-34 --optimize inference --by op",
)
@many_specs
@set_option
@size_option
@click.option("--by", type=click.Choice(["layer", "level", "op"]), help="Also the sums by layer, level or operation.")
@click.option("--depth", type=click.IntRange(1), help="With --by layer: how deep into groups and repeats; 1 is not.")
@optimize_option
@format_option
@click.option("--verify", is_flag=True, help="Compare with PyTorch's and fvcore's counts; status 1 where they differ.")
@output_option
def audit(
    *,
    specs: tuple[str, ...],
    params: dict[str, Any],
    size: tuple[int, int] | None,
    by: Any,
    depth: int | None,
    optimize: Any,
    format: str | None,
    verify: bool,
    output: str | None,
) -> None:
    """Parameters, MACs, FLOPs and activation memory of each SPEC.

    Exact, for one sample, and without torch.
    --verify builds the model without memory for its weights and holds the audit against PyTorch's flop counter and
    fvcore, operation by operation; with --by, and in JSON, every operation is listed.
    """
    from mgcompile.analysis import audit_graph
    from mgcompile.passes import optimize as run_passes

    format = table_format(format, output)
    if depth is not None and by != "layer":
        raise click.UsageError("--depth goes with --by layer")
    if verify and format == "csv":
        raise click.UsageError("--verify has no CSV; use table, json or markdown")
    if verify and optimize:
        raise click.UsageError("--verify is for the network as it is written; leave --optimize away")
    worst, audits, checked = Worst(), [], []
    for name in specs:
        with worst.report(name):
            graph = run_passes(read(name, params).graph, optimize)
            audits.append(audit_graph(graph, size))
            if verify:
                checked.append(_reconciled(audits[-1], graph))
    if audits:
        put(_audit_text(audits, checked, by=by, depth=depth or 1, format=format, look=page(output)), output)
    for result in checked:
        if not result.ok:
            say(f"{result.name}: the counts differ; see what is marked DIFFERENT")
            worst.add(FAILED)
    worst.exit()


def _reconciled(figures: Audit, graph: Graph) -> Reconciliation:
    from mgcompile.analysis import verify_audit
    from mgcompile.lowering.compiler import compile_graph

    return verify_audit(figures, graph, compile_graph(graph, device="meta"))


def _audit_text(
    audits: Sequence[Audit],
    checked: Sequence[Reconciliation],
    *,
    by: Any,
    depth: int,
    format: str,
    look: Mapping[str, Any],
) -> str:
    from mgcompile.analysis import report, verification_report

    details = by is not None
    match format:
        case "csv":
            return report.as_csv(audits, by, depth=depth)
        case "json":
            text = report.as_json(audits, by, depth=depth)
            if not checked:
                return text
            both = json.loads(text) | json.loads(verification_report.as_json(checked))
            return json.dumps(both, indent=2, ensure_ascii=False) + "\n"
        case "markdown":
            parts = [report.as_markdown(audits, by, depth=depth)]
            parts += [verification_report.as_markdown(checked, details=details)] if checked else []
        case _:
            parts = [report.as_table(audits, by, depth=depth, **look)]
            parts += [verification_report.as_table(checked, details=details, **look)] if checked else []
    return "\n".join(parts)


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
