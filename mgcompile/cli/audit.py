"""The command that says what a network costs: audit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from mgcompile.cli.console import (
    FAILED,
    LARGEST_BATCH,
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
    from mgcompile.analysis.budget import Budget, Kept
    from mgcompile.analysis.tables import Sheet
    from mgcompile.cli.audit_parts import Part
    from mgcompile.graph import Graph

__all__ = ["Asked", "audit_"]

BYTES = {"fp32": 4, "bf16": 2, "fp64": 8}
"""Bytes of a number of each type."""

OPTIMIZERS = ("none", "sgd", "sgd-momentum", "adam")

PARTS = ("receptive_field", "memory", "roofline")
"""The flags, which are also the keys in JSON."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be found of each network."""

    size: tuple[int, int] | None
    by: Any
    depth: int | None
    optimize: Any
    receptive_field: bool
    memory: bool
    roofline: bool
    machine: str | None
    batch: int | None
    dtype: Literal["fp32", "bf16", "fp64"]
    optimizer: Any
    budgets: tuple[Budget, ...]
    verify: bool
    format: str

    def check(self) -> None:
        """Raises `UsageError` where options do not go together."""
        if self.depth is not None and self.by != "layer":
            raise click.UsageError("--depth goes with --by layer")
        if self.verify and self.format == "csv":
            raise click.UsageError("--verify has no CSV; use table, json or markdown")
        if self.verify and self.optimize:
            raise click.UsageError("--verify is for the network as it is written; leave --optimize away")
        flags = [f"--{flag.replace('_', '-')}" for flag in PARTS if getattr(self, flag)]
        if self.format == "csv" and len(flags) > 1:
            raise click.UsageError(
                f"CSV holds one table, and {' and '.join(flags)} are {len(flags)}; use table, json or markdown"
            )
        if self.format == "csv" and self.by and (self.memory or self.roofline):
            lines = "network" if self.memory else "operation"
            raise click.UsageError(f"{flags[0]} as CSV has a line for each {lines}; leave --by away")
        if self.format == "csv" and self.receptive_field and self.by in ("op", "node"):
            raise click.UsageError(f"--receptive-field has no sums by {self.by}; use --by layer or --by level")
        if self.machine and not self.roofline:
            raise click.UsageError("--machine goes with --roofline")
        limited = {budget.figure for budget in self.budgets}
        if self.batch is not None and not (self.memory or self.roofline or limited & {"memory", "training-memory"}):
            found = "--batch goes with --memory, --roofline or --max of a memory; other figures are of one sample"
            raise click.UsageError(found)
        if self.optimizer and not (self.memory or "training-memory" in limited):
            raise click.UsageError("--optimizer goes with --memory or --max training-memory=...")

    @property
    def bytes_per_element(self) -> int:
        return BYTES[self.dtype]

    @property
    def training(self) -> dict[str, Any]:
        """What memories depend on."""
        optimizer = self.optimizer or "sgd-momentum"
        return {"batch": self.batch or 1, "bytes_per_element": self.bytes_per_element, "optimizer": optimizer}

    @property
    def grouping(self) -> dict[str, Any]:
        return {"by": self.by, "depth": self.depth or 1}


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found of one network: `parts` in the order of those that were asked for."""

    audit: Audit
    parts: tuple[Any, ...]
    budgets: tuple[Kept, ...]
    reconciliation: Reconciliation | None


def _budgets(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> tuple[Budget, ...]:
    if not texts:
        return ()
    from mgcompile.analysis.budget import parse_budget

    try:
        budgets = tuple(map(parse_budget, texts))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    (figure, times), *_ = Counter(budget.figure for budget in budgets).most_common(1)
    if times > 1:
        raise click.BadParameter(f"{times} limits for {figure}; expected one", ctx, param)
    return budgets


@command(
    "audit",
    "audit imagenet/r-mg-34 --by level",
    "audit cifar100/mg-6 cifar100/vgg-6 --size 64x48",
    "audit imagenet/r-mg-34 --memory --batch 32 --optimizer adam",
    "audit cifar100/r-pmg-30 --receptive-field --by level",
    "audit network.yaml --roofline --machine machine.json",
    "audit network.yaml --max params=9M --max memory=2GiB",
    "audit network.yaml --verify",
    "audit network.yaml --by layer --depth 2 -o audit.csv",
    "audit imagenet/r-mg-34 --optimize inference --by op",
    "audit network.yaml --by node --format json",
)
@many_specs
@set_option
@size_option
@click.option(
    "--by",
    type=click.Choice(["layer", "level", "op", "node"]),
    help="Also the sums by layer, level or kind of operation; node: every single operation, with its shape.",
)
@click.option("--depth", type=click.IntRange(1), help="With --by layer: how deep into groups and repeats; 1 is not.")
@optimize_option
@click.option("--receptive-field", is_flag=True, help="Also what outputs see of the image, and from which depth on.")
@click.option("--memory", is_flag=True, help="Also the memory of inference and training, and where its peak is.")
@click.option("--roofline", is_flag=True, help="Also bytes moved, FLOPs a byte, and the time predicted from peaks.")
@click.option("--machine", metavar="FILE", help="With --roofline: peaks by `mgcompile machine`. Default: those kept.")
@click.option("--batch", type=click.IntRange(1, LARGEST_BATCH), help="Of memory, roofline and limits. Default: 1.")
@click.option("--dtype", type=click.Choice(list(BYTES)), default="fp32", show_default=True, help="Of all numbers.")
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), help="Of the weights. Default: sgd-momentum.")
@click.option(
    "--max",
    "budgets",
    metavar="FIGURE=LIMIT",
    multiple=True,
    callback=_budgets,
    help="Status 1 where a figure is over: params, macs, flops, activations, memory, training-memory. Repeatable.",
)
@format_option
@click.option("--verify", is_flag=True, help="Compare with PyTorch's and fvcore's counts; status 1 where they differ.")
@output_option
def audit_(
    *,
    specs: tuple[str, ...],
    params: dict[str, Any],
    format: str | None,
    output: str | None,
    **options: Any,
) -> None:
    """Parameters, MACs, FLOPs and activation memory of each SPEC.

    Exact, for one sample, and without torch.
    --verify builds the model without memory for its weights and holds the audit against PyTorch's flop counter and
    fvcore, operation by operation; with --by, and in JSON, every operation is listed.
    A CSV holds one table: that of --receptive-field, --memory or --roofline in place of the audit's.
    """
    asked = Asked(format=table_format(format, output), **options)
    asked.check()
    parts: Mapping[str, Part] = {}
    if any(getattr(asked, flag) for flag in PARTS):
        from mgcompile.cli.audit_parts import parts_of

        parts = parts_of(asked)
    worst, found = Worst(), []
    for name in specs:
        with worst.report(name):
            found.append(_find(read(name, params).graph, asked, parts))
    if found:
        put(_text(found, asked, parts, page(output)), output)
    for each in found:
        for kept in each.budgets:
            if not kept.ok:
                say(kept.message)
                worst.add(FAILED)
        if each.reconciliation and not each.reconciliation.ok:
            say(f"{each.audit.name}: the counts differ; see what is marked DIFFERENT")
            worst.add(FAILED)
    worst.exit()


def _find(graph: Graph, asked: Asked, parts: Mapping[str, Part]) -> _Found:
    from mgcompile.analysis import audit_graph
    from mgcompile.passes import optimize

    graph = optimize(graph, asked.optimize)
    figures = audit_graph(graph, asked.size, bytes_per_element=asked.bytes_per_element)
    found = tuple([part.find(graph, asked) for part in parts.values()])
    budgets: tuple[Kept, ...] = ()
    if asked.budgets:
        from mgcompile.analysis.budget import check_budgets

        budgets = check_budgets(graph, asked.budgets, asked.size, **asked.training)
    return _Found(figures, found, budgets, _reconciled(figures, graph) if asked.verify else None)


def _reconciled(figures: Audit, graph: Graph) -> Reconciliation:
    from mgcompile.analysis import verify_audit
    from mgcompile.lowering.compiler import compile_graph

    return verify_audit(figures, graph, compile_graph(graph, device="meta"))


def _text(found: Sequence[_Found], asked: Asked, parts: Mapping[str, Part], look: Mapping[str, Any]) -> str:
    from mgcompile.analysis import report, tables, verification_report

    audits = [each.audit for each in found]
    checked = [each.reconciliation for each in found if each.reconciliation]
    sheets = list(_sheets(found, asked, parts))
    details = asked.by is not None
    match asked.format:
        case "csv":
            for part in parts.values():  # one at most
                return part.csv([each.parts[0] for each in found], asked)
            return report.as_csv(audits, **asked.grouping)
        case "json":
            return tables.as_json(_document(found, asked, parts))
        case "markdown":
            texts = [report.as_markdown(audits, **asked.grouping)]
            texts += [tables.as_markdown(sheets)] if sheets else []
            texts += [verification_report.as_markdown(checked, details=details)] if checked else []
        case _:
            texts = [report.as_table(audits, **asked.grouping, **look)]
            texts += [tables.as_text(sheets, **look)] if sheets else []
            texts += [verification_report.as_table(checked, details=details, **look)] if checked else []
    return "\n".join(texts)


def _document(found: Sequence[_Found], asked: Asked, parts: Mapping[str, Part]) -> dict[str, Any]:
    """What JSON holds: the audits, and inside of each what else was asked for."""
    from mgcompile.analysis import report, verification_report

    document: dict[str, Any] = json.loads(report.as_json([each.audit for each in found], **asked.grouping))
    for part in parts.values():
        document["conventions"] |= part.conventions
    for record, each in zip(document["audits"], found, strict=True):
        for (key, part), figures in zip(parts.items(), each.parts, strict=True):
            record[key] = part.record(figures, asked)
        if asked.budgets:
            from mgcompile.analysis.budget import budget_record

            record["budgets"] = budget_record(each.budgets)
    if checked := [each.reconciliation for each in found if each.reconciliation]:
        document |= json.loads(verification_report.as_json(checked))
    return document


def _sheets(found: Sequence[_Found], asked: Asked, parts: Mapping[str, Part]) -> Iterator[Sheet]:
    """What else was asked for, network by network; what the figures mean once, at the end."""
    remarks: dict[Sheet, None] = {}
    for each in found:
        for part, figures in zip(parts.values(), each.parts, strict=True):
            for sheet in part.sheets(figures, asked):
                if sheet.rows:
                    yield sheet
                else:
                    remarks[sheet] = None
    if asked.budgets:
        from mgcompile.analysis.budget import budget_sheet

        yield budget_sheet([kept for each in found for kept in each.budgets])
    yield from remarks
