"""The command that measures: bench."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import click

from mgcompile.cli.console import (
    Worst,
    command,
    format_option,
    many_specs,
    output_option,
    page,
    put,
    read,
    set_option,
    size_option,
    table_format,
)
from mgcompile.cli.progress import progress_bar

__all__ = ["bench_"]

MODES = ("inference", "training")
OPTIMIZE = ("none", "training", "inference", "auto")
PRECISIONS = ("fp32", "bf16")
LARGEST_BATCH = 65536

Callback = Callable[[click.Context, click.Parameter, str], tuple[Any, ...]]


def _batches(ctx: click.Context, param: click.Parameter, text: str) -> tuple[int, ...]:
    batches = []
    for part in text.split(","):
        word = part.strip()
        if not (word.isascii() and word.isdecimal() and len(word) < 8 and 1 <= int(word) <= LARGEST_BATCH):
            found = f"{word!r} is no batch size; expected numbers from 1 to {LARGEST_BATCH}, such as 1,8"
            raise click.BadParameter(found, ctx, param)
        batches.append(int(word))
    return tuple(dict.fromkeys(batches))


def _several(known: Sequence[str]) -> Callback:
    """Words out of `known`, with commas between them."""

    def words(ctx: click.Context, param: click.Parameter, text: str) -> tuple[str, ...]:
        found = [part.strip() for part in text.split(",")]
        if unknown := [word for word in found if word not in known]:
            near = get_close_matches(unknown[0], known, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected one or several of {', '.join(known)}"
            raise click.BadParameter(f"unknown {unknown[0]!r}; {hint}", ctx, param)
        return tuple(dict.fromkeys(found))

    return words


@command(
    "bench",
    "bench imagenet/r-mg-34 --batch 1,8",
    "bench cifar100/mg-6 cifar100/vgg-6 --size 64 --optimize auto --threads 1",
    "bench network.yaml --mode inference,training --precision fp32,bf16 -o bench.csv",
)
@many_specs
@set_option
@size_option
@click.option("--batch", default="1", metavar="N,...", callback=_batches, help="Batch sizes. Default: 1.")
@click.option(
    "--mode",
    default="inference",
    metavar="MODE,...",
    callback=_several(MODES),
    help="inference, training (forward, sum of squares, backward). Default: inference.",
)
@click.option(
    "--optimize",
    default="none,auto",
    metavar="FORM,...",
    callback=_several(OPTIMIZE),
    help="none, training, inference, auto (for the mode that is measured). Default: none,auto.",
)
@click.option(
    "--precision", default="fp32", metavar="TYPE,...", callback=_several(PRECISIONS), help="fp32, bf16. Default: fp32."
)
@click.option("--torch-compile", is_flag=True, help="Also each form through torch.compile.")
@click.option("--tune", is_flag=True, help="Also each optimised form of inference with tuned convolutions.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Of PyTorch. Default: as many as it takes.")
@click.option("--runs", type=click.IntRange(1, 100_000), default=10, show_default=True, help="Rounds that count.")
@click.option("--warmup", type=click.IntRange(0, 100_000), default=2, show_default=True, help="Rounds before them.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="For weights and inputs.")
@format_option
@output_option
def bench_(
    *,
    specs: tuple[str, ...],
    params: dict[str, Any],
    size: tuple[int, int] | None,
    batch: tuple[int, ...],
    mode: tuple[Any, ...],
    optimize: tuple[Any, ...],
    precision: tuple[Any, ...],
    torch_compile: bool,
    tune: bool,
    threads: int | None,
    runs: int,
    warmup: int,
    seed: int,
    format: str | None,
    output: str | None,
) -> None:
    """Time and peak memory of each SPEC on this machine.

    In all combinations of mode, form, precision and batch size, on the CPU. All of them run in turn, in one process, in
    rounds; figures are medians over the rounds.
    """
    if "training" in mode and set(optimize) == {"inference"}:
        raise click.UsageError(
            "--optimize inference gives networks that cannot be trained; --mode training needs others"
        )
    if tune and not ("inference" in mode and set(optimize) - {"none"}):
        raise click.UsageError("--tune is for optimised forms of inference; there are none here")
    worst, found = Worst(), []
    for name in specs:
        with worst.report(name):
            found.append((name, read(name, params)))
    if found:
        from mgcompile.measuring import Options, measure, report

        options = Options(
            batch, size, mode, optimize, precision, torch_compile, tune, threads, runs=runs, warmup=warmup, seed=seed
        )
        with progress_bar() as progress:
            result = measure(found, options, report=worst.report, progress=progress)
        if result.rows:
            look = page(output)
            match table_format(format, output):
                case "json":
                    text = report.as_json(result)
                case "csv":
                    text = report.as_csv(result)
                case "markdown":
                    text = report.as_markdown(result)
                case _:
                    text = report.as_table(result, **look)
            put(text, output)
    worst.exit()
