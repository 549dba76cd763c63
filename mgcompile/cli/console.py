"""What all commands share: what they are told, where results and messages go, which exit status an error has."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.interrupts import INTERRUPTED, quiet_interrupts
from mgcompile.errors import InputError, MgcompileError, SpecError, lack_of_memory
from mgcompile.escaping import brief, visible
from mgcompile.outputs import is_stream, obstacle, write_file

# Everything else is imported where it is used: `mgcompile --help` answers at once, and only `compile` and
# `audit --verify` wait for torch.
if TYPE_CHECKING:
    from mgcompile.spec import Spec

__all__ = [
    "FAILED",
    "OPTIMIZE",
    "TABLE_FORMATS",
    "Commands",
    "Worst",
    "batch_option",
    "command",
    "format_option",
    "many_specs",
    "one_spec",
    "optimize_option",
    "output_file",
    "output_option",
    "page",
    "put",
    "read",
    "refuse_over",
    "say",
    "say_written",
    "set_option",
    "size_option",
    "table_format",
    "tell",
    "write",
]

FAILED, WRONG = 1, 2
WIDTH, NARROWEST, WIDEST = 120, 40, 1000
LARGEST_BATCH = 65536
ALLOWED, READ = "mgcompile.allowed", "mgcompile.read"
"""What a context knows: whether `extends` may reach anywhere, and the files that were read."""
OPTIMIZE = ("inference", "training")
TABLE_FORMATS = ("table", "json", "csv", "markdown")
TABLE_SUFFIXES = {".json": "json", ".csv": "csv", ".md": "markdown"}


class Commands(click.Group):
    """Commands that say in a line what went wrong."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        run = partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        with quiet_interrupts():
            sys.exit(self._status(run))

    def _status(self, run: Callable[[], Any]) -> int:
        """Run, and say what goes wrong. The exit status."""
        _prepare_streams()
        try:
            status = run()
            return status if isinstance(status, int) else 0
        except click.ClickException as error:
            return _refuse(error)
        except (KeyboardInterrupt, click.Abort):
            return INTERRUPTED
        except BrokenPipeError:
            _abandon_output()
            return FAILED
        except (MgcompileError, OSError) as error:
            if isinstance(error, OSError):
                _abandon_output()
            return _complain(error)
        except (RuntimeError, MemoryError) as error:
            if reason := lack_of_memory(error):
                return _complain(MgcompileError(reason))
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click would end the line that may be on the terminal
            ctx.exit(INTERRUPTED)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            near = get_close_matches(args[0], self.commands, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(self.commands)}"
            ctx.fail(f"no such command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


class Worst:
    """The worst exit status of several specs, one of which may fail without stopping the others."""

    def __init__(self) -> None:
        self.status = 0

    @contextmanager
    def report(self, name: str) -> Iterator[None]:
        """Say what goes wrong with a spec, and go on."""
        try:
            yield
        except MgcompileError as error:
            self.add(_complain(error, name))
        except (RuntimeError, MemoryError) as error:
            if not (reason := lack_of_memory(error)):
                raise
            self.add(_complain(MgcompileError(reason), name))

    def add(self, status: int) -> None:
        self.status = max(self.status, status)

    def exit(self) -> None:
        if self.status:
            raise click.exceptions.Exit(self.status)


def _complain(error: MgcompileError | OSError, name: str = "") -> int:
    """Say an error on standard error; its exit status."""
    text = str(error)
    if isinstance(error, OSError):
        text = f"{error.filename or 'standard output'}: {error.strerror or error}"
    elif not isinstance(error, SpecError) and name and not text.startswith(name):
        text = f"{visible(name)}: {text}"
    say(text)
    return WRONG if isinstance(error, InputError) else FAILED


def _refuse(error: click.ClickException) -> int:
    """Say what click found wrong, as click does; the exit status."""
    text = io.StringIO()
    error.show(text)
    say(text.getvalue().removesuffix("\n"))
    return error.exit_code


def _prepare_streams() -> None:
    """Standard output and standard error, even where they were closed: what is written there fails, or goes nowhere."""
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened would have this number, and be written to as if it were it
            os.open(os.devnull, flags)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name need not be in the terminal's encoding


def _abandon_output() -> None:
    """Leave what cannot be written; Python would try it again at its end, and fail again."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(message: str) -> None:
    """A message on standard error; where that takes none, there is nobody to tell."""
    with suppress(OSError):
        click.echo(visible(message, lines=True), err=True)


def tell(line: str) -> None:
    """A line on standard output."""
    click.echo(visible(line))


def put(text: str, path: str | None) -> None:
    """Write a result to a file, or to standard output."""
    if path is None:
        click.echo(text, nl=False)
    else:
        write(text.encode(), path)


def write(data: bytes, path: str) -> None:
    context = click.get_current_context(silent=True)
    refuse_over(path, context.meta.get(READ, ()) if context is not None else ())
    write_file(path, data)
    say_written(path)


def refuse_over(output: str, read: Iterable[str]) -> None:
    """Raise `InputError` where an output would replace a file that is read, under whatever name."""
    for path in read:
        if os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            raise InputError(f"-o {output}: it would take the place of {path}, which is read; choose another")


def say_written(path: str) -> None:
    """Say that a file was written; of a pipe or a terminal nothing is said, for it may be standard output itself."""
    if os.path.isfile(path) and not is_stream(path):
        size = os.path.getsize(path)
        text = f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
        try:
            tell(f"wrote {path} ({text})")
        except OSError:  # it is there, whether this can be said or not
            _abandon_output()


def page(path: str | None) -> dict[str, Any]:
    """How a table is to look where it goes."""
    if path is not None:
        return {"width": WIDTH}
    plain = not sys.stdout.isatty() or os.environ.get("TERM") == "dumb"
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    return {"width": min(max(width, NARROWEST), WIDEST), "terminal": utf8 and not plain}


def _allow(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta.setdefault(ALLOWED, {})[str(param.name)] = value


def read(name: str, params: Mapping[str, Any]) -> Spec:
    from mgcompile.spec import load, parse_spec
    from mgcompile.spec.source import MAX_BYTES

    context = click.get_current_context(silent=True)
    allowed: dict[str, bool] = {} if context is None else context.meta.get(ALLOWED, {})
    if name != "-":
        spec = load(name, params=params, **allowed)
        if context is not None:
            context.meta.setdefault(READ, []).extend(spec.source.files)
        return spec
    if sys.stdin is None:
        raise click.UsageError("standard input is closed")
    return parse_spec(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>", params=params, **allowed)


def _specs(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    if names.count("-") > 1:
        raise click.BadParameter("standard input can be read once", ctx, param)
    return names


def _size(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,6})(?:x([1-9]\d{0,6}))?", text, re.ASCII)
    if not match:
        found = f"{text!r} is no size; expected a side such as 224, or HEIGHTxWIDTH such as 224x320"
        raise click.BadParameter(found, ctx, param)
    return int(match[1]), int(match[2] or match[1])


def _batches(ctx: click.Context, param: click.Parameter, text: str) -> tuple[int, ...]:
    words = [part.strip() for part in text.split(",")]
    for word in words:
        if not re.fullmatch(r"\d{1,7}", word, re.ASCII) or not 1 <= int(word) <= LARGEST_BATCH:
            found = f"{word!r} is no batch size; expected numbers from 1 to {LARGEST_BATCH}, such as 1,8"
            raise click.BadParameter(found, ctx, param)
    return tuple(dict.fromkeys(map(int, words)))


def _params(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    if not texts:
        return {}
    from mgcompile.spec import parse_param

    given = [parse_param(text) for text in texts]
    params = dict(given)
    if len(params) < len(given):
        twice = next(name for name in params if [each for each, _ in given].count(name) > 1)
        raise click.BadParameter(f"{brief(twice)} is set twice; expected once", ctx, param)
    return params


def output_file(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    """Refuse before any work what cannot be written."""
    if path is not None and (reason := obstacle(path)):
        raise click.BadParameter(str(reason.strerror), ctx, param)
    return path


def table_format(format: str | None, output: str | None) -> str:
    """The format asked for, else that of the file's suffix, else a table."""
    return format or TABLE_SUFFIXES.get(os.path.splitext(output or "")[1].lower(), "table")


one_spec = click.argument("spec", metavar="SPEC")
many_specs = click.argument("specs", metavar="SPEC...", nargs=-1, required=True, callback=_specs)


def set_option(function: Callable[..., None]) -> Callable[..., None]:
    """What all that read a spec take: values of params, how far `extends` may reach, how large the spec may be."""
    params = click.option(
        "--set",
        "params",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_params,
        help="Set a param of the spec. Repeatable.",
    )
    outside = click.option(
        "--allow-outside",
        is_flag=True,
        expose_value=False,
        callback=_allow,
        help="Let `extends` read specs outside of the folder of the SPEC.",
    )
    large = click.option(
        "--allow-large",
        is_flag=True,
        expose_value=False,
        callback=_allow,
        help="Let the SPEC come to twenty times as many operations and layers as are else allowed.",
    )
    return params(outside(large(function)))


size_option = click.option("--size", metavar="HxW", callback=_size, help="Input size in place of the nominal one.")
batch_option = click.option(
    "--batch", "batches", default="1", metavar="N,...", callback=_batches, help="Batch sizes. Default: 1."
)
optimize_option = click.option("--optimize", type=click.Choice(OPTIMIZE), help="The model that is optimised so.")
format_option = click.option(
    "--format", type=click.Choice(TABLE_FORMATS), help="Default: what the suffix of -o says, else table."
)
output_option = click.option(
    "-o", "--output", metavar="FILE", callback=output_file, help="Write to a file in place of standard output."
)


class Command(click.Command):
    """A command that does not write over what it reads."""

    def invoke(self, ctx: click.Context) -> Any:
        output, read = ctx.params.get("output"), [ctx.params.get(name) for name in ("spec", "machine")]
        if output:
            refuse_over(output, filter(None, (*read, *ctx.params.get("specs", ()), *ctx.params.get("names", ()))))
        return super().invoke(ctx)


def command(
    name: str, *examples: str, cls: type[click.Command] = Command
) -> Callable[[Callable[..., None]], click.Command]:
    """A command whose help ends with examples."""
    lines = "\n".join(f"  mgcompile {example}" for example in examples)
    return click.command(name, cls=cls, epilog=f"\b\nExamples:\n{lines}")
