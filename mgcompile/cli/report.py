"""The command that writes everything on one page: report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.console import (
    LARGEST_BATCH,
    Worst,
    command,
    many_specs,
    output_file,
    read,
    set_option,
    size_option,
    write,
)

if TYPE_CHECKING:
    from mgcompile.analysis.machine import Machine

__all__ = ["report"]


def _page(ctx: click.Context, param: click.Parameter, path: str) -> str:
    if not path.lower().endswith((".html", ".htm")):
        raise click.BadParameter(f"{path}: a report is a page; expected a name that ends in .html", ctx, param)
    return output_file(ctx, param, path) or path


@command(
    "report",
    "report imagenet/r-mg-34 -o report.html",
    "report cifar100/vgg-21 cifar100/mg-21 cifar100/pmg-30 --title 'Multigrid networks' -o report.html",
    "report network.yaml --size 64 --batch 32 --machine machine.json -o report.html",
)
@many_specs
@set_option
@size_option
@click.option(
    "--batch", type=click.IntRange(1, LARGEST_BATCH), default=1, show_default=True, help="For memory and times."
)
@click.option(
    "--machine",
    metavar="FILE",
    help="The peaks of a machine, as `mgcompile machine -o` writes them. Default: those that are kept of this one.",
)
@click.option("--title", help="Default: the names of the networks.")
@click.option("-o", "--output", metavar="FILE", required=True, callback=_page, help="The page, .html.")
def report(
    *,
    specs: tuple[str, ...],
    params: dict[str, Any],
    size: tuple[int, int] | None,
    batch: int,
    machine: str | None,
    title: str | None,
    output: str,
) -> None:
    """Everything that is known of each SPEC, as one page.

    Drawing, cost by level and by layer, memory, receptive field, roofline, the spec; of several networks also a
    comparison. The page is one file, without scripts, and prints.
    """
    from mgcompile.reporting import Network, chapters_of, format_report

    peaks = _peaks(machine)
    worst, networks = Worst(), []
    for name in specs:
        with worst.report(name):
            spec = read(name, params)
            spec.graph.shapes(size)
            about = " ".join(spec.document.description.split())
            networks.append(Network(spec.graph.name, spec.graph, about, spec.to_yaml()))
    worst.exit()  # a report without some of its networks is no report
    names = ", ".join(network.name for network in networks)
    text = format_report(title or names, chapters_of(networks, size, batch=batch, machine=peaks), _footer())
    write(text.encode(), output)


def _peaks(path: str | None) -> Machine | None:
    if path is not None:
        from mgcompile.analysis.machine import read_machine

        return read_machine(path)
    from mgcompile.measuring.machine import kept_machine

    return kept_machine("fp32")


def _footer() -> str:
    from mgcompile import __version__

    return f"Made by mgcompile {__version__}, from the specs alone."
