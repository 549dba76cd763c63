"""The command line. Specs are files, names of the zoo, or `-` for standard input.

Exit status: 0; 1 where something fails that is no fault of the input; 2 where a spec or the command itself is wrong.
"""

from __future__ import annotations

import click

from mgcompile.cli.bench import bench_
from mgcompile.cli.console import Commands
from mgcompile.cli.figures import audit, list_, tables
from mgcompile.cli.files import compile_, draw, schema
from mgcompile.cli.specs import check, show
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


for command in (check, show, audit, draw, compile_, tables, list_, schema, bench_, tune):
    main.add_command(command)
