"""All commands, under one."""

from __future__ import annotations

import click

from mgcompile.cli.audit import audit_
from mgcompile.cli.bench import bench_
from mgcompile.cli.compare import compare as compare_
from mgcompile.cli.compare import plot
from mgcompile.cli.console import Commands
from mgcompile.cli.evaluate import evaluate_
from mgcompile.cli.explain import explain as explain_
from mgcompile.cli.figures import list_, tables
from mgcompile.cli.files import compile_, draw, schema
from mgcompile.cli.fit import fit as fit_
from mgcompile.cli.machine import machine as machine_
from mgcompile.cli.report import report as report_
from mgcompile.cli.specs import check, show
from mgcompile.cli.train import train
from mgcompile.cli.tuning import tune

__all__ = ["main"]


def _version(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from mgcompile import __version__

        click.echo(f"mgcompile {__version__}")
        ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="SPEC is a YAML or JSON file, a name from `mgcompile list`, or - for standard input. "
    "Each command has its own --help, with examples.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def main() -> None:
    """Multi-scale networks from declarative specs: check, cost, drawing, PyTorch model."""


for command in (check, show, audit_, compare_, plot, fit_, draw, report_, compile_, tables, list_, schema):
    main.add_command(command)
for command in (train, evaluate_, explain_, bench_, tune, machine_):
    main.add_command(command)
