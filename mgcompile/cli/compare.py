"""Commands that set networks beside each other: compare, plot."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.console import (
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
    write,
)
from mgcompile.errors import MgcompileError, ShapeError, SpecError

if TYPE_CHECKING:
    from mgcompile.analysis import Published
    from mgcompile.analysis.changes import Diff
    from mgcompile.analysis.comparison import Profile
    from mgcompile.drawing.plots import PlotFormat, Point
    from mgcompile.graph import Graph
    from mgcompile.spec import Spec

__all__ = ["compare", "plot"]

PLOT_FORMATS = ("svg", "png", "html")
COSTS = {"macs": "MACs", "params": "parameters"}
METRICS = {"accuracy": "error", "top-5": "top5_error", "iou": "iou"}
"""The figure that is published for each."""
TASKS = {
    "cifar100": "CIFAR-100",
    "imagenet-10crop": "ImageNet, 10 crops",
    "imagenet-1crop": "ImageNet, 1 crop",
    "mnist-seg": "MNIST, segmentation",
    "mnist-spatial": "MNIST, spatial",
}


@command(
    "compare",
    "compare cifar100/mg-11 cifar100/vgg-11 cifar100/r-mg-22",
    "compare cifar100/mg-11 cifar100/mg-16 --diff",
    "compare imagenet/r-mg-34 imagenet/resnet-34-c --batch 32 --by layer",
    "compare old.yaml new.yaml --set width=32 --format markdown -o change.md",
)
@many_specs
@set_option
@size_option
@click.option(
    "--batch", type=click.IntRange(1, LARGEST_BATCH), default=1, show_default=True, help="Batch size, for the memory."
)
@optimize_option
@click.option(
    "--by", type=click.Choice(["level", "layer"]), help="The sums by level (the tables' default) or by layer."
)
@click.option("--diff", is_flag=True, help="Of two specs: which layers differ, and by how much.")
@click.option("--depth", type=click.IntRange(1), help="With --diff: how deep into groups and repeats; 1 is not.")
@format_option
@output_option
def compare(
    *,
    specs: tuple[str, ...],
    params: dict[str, Any],
    size: tuple[int, int] | None,
    batch: int,
    optimize: Any,
    by: Any,
    diff: bool,
    depth: int | None,
    format: str | None,
    output: str | None,
) -> None:
    """All figures of each SPEC beside those of the first.

    Parameters, MACs, FLOPs, activations, memory, receptive field and depth, and how many times as much as of the first;
    then by level. --set goes to each SPEC that has the param.
    """
    from mgcompile.analysis.changes import diff_graphs
    from mgcompile.analysis.comparison import compare_graphs

    format = table_format(format, output)
    if len(specs) < 2:
        raise click.UsageError(f"one spec, {specs[0]}, has nothing to be compared with; name two or more")
    if diff and len(specs) != 2:
        raise click.UsageError(f"--diff is between two specs; there are {len(specs)}")
    if depth is not None and not diff:
        raise click.UsageError("--depth goes with --diff")
    if diff and format == "csv" and by is not None:
        raise click.UsageError("--diff as CSV has a line for each layer; leave --by away, or take another format")
    if depth is not None and format in ("csv", "json"):
        raise click.UsageError(f"--depth groups layers for people; --diff as {format} has a record for each layer")
    graphs = _graphs(specs, params, optimize)
    profiles = compare_graphs(graphs, size, batch=batch)
    found = diff_graphs(graphs[0][1], graphs[1][1], size) if diff else None
    put(_comparison_text(profiles, found, by=by, depth=depth or 1, format=format, look=page(output)), output)


def _comparison_text(
    profiles: Sequence[Profile], diff: Diff | None, *, by: Any, depth: int, format: str, look: Mapping[str, Any]
) -> str:
    from mgcompile.analysis import comparison_report as report

    match format:
        case "csv":
            return report.as_csv(profiles, diff, by=by)
        case "json":
            return report.as_json(profiles, diff, by=by)
        case "markdown":
            return report.as_markdown(profiles, diff, by=by, depth=depth)
        case _:
            return report.as_table(profiles, diff, by=by, depth=depth, **look)


def _graphs(specs: Sequence[str], params: Mapping[str, Any], optimize: Any = None) -> list[tuple[str, Graph]]:
    """The graph of each spec beside its name, or what the user called it where others have that name too.

    Says what is wrong with each spec, then exits.
    """
    from mgcompile.passes import optimize as run_passes

    worst, found, known = Worst(), [], set[str]()
    for name in specs:
        with worst.report(name):
            spec = _read(name, params)
            known |= set(spec.document.params)
            found.append((name, run_passes(spec.graph, optimize)))
    worst.exit()
    for param in params:
        if param not in known:
            near = get_close_matches(param, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"they have {', '.join(sorted(known)) or 'none'}"
            raise click.BadParameter(f"none of the specs has a param {param!r}; {hint}", param_hint="'--set'")
    names = [graph.name for _, graph in found]
    return [(graph.name if names.count(graph.name) == 1 else name, graph) for name, graph in found]


def _read(name: str, params: Mapping[str, Any]) -> Spec:
    """The spec with those of the params that it has."""
    from mgcompile.spec import parse_spec
    from mgcompile.spec.source import MAX_BYTES

    text = sys.stdin.buffer.read(MAX_BYTES + 1) if name == "-" and sys.stdin is not None else None

    def attempt(given: Mapping[str, Any]) -> Spec:
        return read(name, given) if text is None else parse_spec(text, "<stdin>", params=given)

    try:
        return attempt(params)
    except SpecError as error:
        # A param may have no value but that of --set, so the spec cannot be asked for its params beforehand.
        said = [problem.message for problem in error.errors]
        has = {param: params[param] for param in params if not any(_unknown(param) in text for text in said)}
        if len(has) == len(params):
            raise
    return attempt(has)


def _unknown(param: str) -> str:
    return f"--set {param}: the spec has no such param"


@command(
    "plot",
    "plot macs cifar100 -o pareto.svg",
    "plot params mnist-seg --metric iou -o iou.html",
    "plot receptive-field cifar100/vgg-21 cifar100/mg-21 cifar100/pmg-30 -o fields.svg",
)
@click.argument("what", metavar="WHAT", type=click.Choice([*COSTS, "receptive-field"]))
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@set_option
@size_option
@click.option("--metric", type=click.Choice(list(METRICS)), help="With macs and params. Default: accuracy.")
@click.option("--scale", type=click.Choice(["log", "linear"]), help="Of MACs, parameters, pixels. Default: log.")
@click.option("--format", type=click.Choice(PLOT_FORMATS), help="Default: what the suffix of -o says, else svg.")
@output_option
def plot(
    *,
    what: str,
    names: tuple[str, ...],
    params: dict[str, Any],
    size: tuple[int, int] | None,
    metric: str | None,
    scale: str | None,
    format: Any,
    output: str | None,
) -> None:
    """Plot what networks achieve against what they cost, or how far they see.

    WHAT macs, params: NAME is one of the paper's tasks, such as cifar100; the accuracy published for each network
    against its computed MACs or parameters, with the Pareto front.
    WHAT receptive-field: NAMEs are SPECs; the receptive field against depth.
    """
    chosen = format or _plot_format(output)
    if what in COSTS:
        if size is not None or params:
            raise click.UsageError("--size and --set go with receptive-field; published figures are of given networks")
        if len(names) != 1:
            raise click.UsageError(f"{what} takes one task; there are {len(names)}")
        data = _accuracy_plot(names[0], what, metric or "accuracy", chosen, log=scale != "linear")
    else:
        if metric is not None:
            raise click.UsageError("--metric goes with macs and params")
        data = _field_plot(_graphs(names, params), size, chosen, log=scale != "linear")
    if output is None:
        click.echo(data, nl=False)
    else:
        write(data, output)


def _plot_format(output: str | None) -> PlotFormat:
    from mgcompile.drawing.plots import plot_format

    try:
        return plot_format(output) if output is not None else "svg"
    except MgcompileError as error:
        raise click.UsageError(str(error)) from None


def _accuracy_plot(task: str, cost: str, metric: str, format: PlotFormat, *, log: bool) -> bytes:
    from mgcompile.analysis import audit_graph, published_figures
    from mgcompile.drawing.plots import scatter_plot

    known = list(dict.fromkeys(line.task for line in published_figures()))
    if task not in known:
        near = get_close_matches(task, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise click.UsageError(f"no published table of {task!r}; {hint}")
    lines = [line for line in published_figures() if line.task == task]
    shown = [line for line in lines if getattr(line, METRICS[metric]) is not None]
    if not shown:
        there = [name for name, column in METRICS.items() if any(getattr(line, column) is not None for line in lines)]
        raise click.UsageError(f"no {metric} is published for {task}; there is {', '.join(there)}")
    if missing := [line.model for line in lines if line not in shown]:
        say(f"{task}: no {metric} is published for {', '.join(missing)}")
    figures = [getattr(audit_graph(read(line.zoo, {}).graph), cost) for line in shown]
    unit, word = (10**9, "billions") if min(figures) >= 10**9 else (10**6, "millions")
    return scatter_plot(
        [_point(line, figure / unit, metric) for line, figure in zip(shown, figures, strict=True)],
        format,
        x=f"{COSTS[cost]} ({word})",
        y=f"{_accuracy_name(task, metric)} (%)",
        title=f"{TASKS.get(task, task)}: {_accuracy_name(task, metric)} against {COSTS[cost]}",
        log_x=log,
        higher=True,
        note=f"{_accuracy_name(task, metric)} as published by Ke, Maire & Yu (CVPR 2017); {COSTS[cost]} computed",
    )


def _point(line: Published, cost: float, metric: str) -> Point:
    from mgcompile.drawing.plots import Point

    figure = getattr(line, METRICS[metric])
    return Point(line.model, _family(line.model), cost, float(figure if metric == "iou" else 100 - figure))


def _family(model: str) -> str:
    """What a name begins with, before its first number: `R-MG` of `R-MG-34`."""
    return re.split(r"-\d", model, maxsplit=1)[0]


def _accuracy_name(task: str, metric: str) -> str:
    if metric == "accuracy":
        return "mean class accuracy" if task.startswith("mnist") else "top-1 accuracy"
    return {"top-5": "top-5 accuracy", "iou": "IoU"}[metric]


def _field_plot(
    graphs: Sequence[tuple[str, Graph]], size: tuple[int, int] | None, format: PlotFormat, *, log: bool
) -> bytes:
    from mgcompile.analysis import receptive_field
    from mgcompile.reporting.fields import field_plot

    fields = []
    for name, graph in graphs:
        try:
            fields.append((name, receptive_field(graph, size)))
        except ShapeError as error:
            raise ShapeError(f"{name}: {error}") from None
    if len({found.size for _, found in fields}) > 1:
        say("the image's size is not shown, for the specs have several; --size sets one for all")
    return field_plot(fields, format, log=log, title="Receptive field against depth")
