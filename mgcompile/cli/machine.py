"""The command that measures the machine itself: machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.console import TABLE_FORMATS, TABLE_SUFFIXES, command, output_file, page, put, say
from mgcompile.cli.progress import progress_bar

if TYPE_CHECKING:
    from mgcompile.analysis.machine import Machine

__all__ = ["machine"]


def _json_file(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    suffix = os.path.splitext(path or "")[1].lower()
    if TABLE_SUFFIXES.get(suffix, "json") != "json":
        raise click.BadParameter(f"{path} would be JSON, whatever its name; expected a name such as machine.json")
    return output_file(ctx, param, path)


@command(
    "machine",
    "machine",
    "machine -o machine.json",
    "machine --precision bf16 --threads 1 --format json",
)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), help="Of PyTorch. Default: as many as it takes.")
@click.option("--format", type=click.Choice(TABLE_FORMATS), default="table", show_default=True, help="What is printed.")
@click.option(
    "-o", "--output", metavar="FILE", callback=_json_file, help="Write the peaks there too, for --machine: JSON."
)
def machine(*, precision: Any, threads: int | None, format: str, output: str | None) -> None:
    """Measure what this machine can do at best.

    The fastest convolution, memory and caches, and the speed of each sort of operation, on the CPU, in a few seconds.
    They are kept on disk for this processor, version of PyTorch, precision and number of threads;
    `mgcompile audit --roofline` predicts times from them.
    """
    from mgcompile.measuring.machine import kept_file, measure_machine

    with progress_bar() as progress:
        found = measure_machine(
            precision, threads, progress=lambda done, total, what: progress(done, total, f"measuring, {precision}")
        )
    kept = kept_file(found.precision, found.threads)
    put(_text(found, str(kept) if kept.is_file() else None, format, page(None)), None)
    if output is not None:
        from mgcompile.analysis.machine import machine_text
        from mgcompile.outputs import write_file

        write_file(output, machine_text(found).encode())
        say(f"wrote {output}")


def _text(found: Machine, kept: str | None, format: str, look: Mapping[str, Any]) -> str:
    from mgcompile.analysis.machine import machine_text
    from mgcompile.analysis.roofline_report import machine_csv, machine_sheets
    from mgcompile.analysis.tables import Sheet, as_markdown, as_text

    if format == "json":
        return machine_text(found)
    if format == "csv":
        return machine_csv(found)
    where = f"kept in {kept}" if kept else "they could not be kept: the folder of the cache cannot be written"
    sheets = [*machine_sheets(found), Sheet("", (), (), notes=(where,))]
    return as_markdown(sheets) if format == "markdown" else as_text(sheets, **look)
