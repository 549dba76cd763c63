"""The command that chooses by timing: tune."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from mgcompile.cli.console import (
    Worst,
    batch_option,
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
from mgcompile.cli.progress import Progress, progress_bar
from mgcompile.errors import MgcompileError, lack_of_memory

if TYPE_CHECKING:
    from mgcompile.spec import Spec

__all__ = ["tune"]


@dataclass(frozen=True, slots=True)
class _Row:
    """In which way the convolutions of a network run, for one batch size."""

    network: str
    height: int
    width: int
    batch: int
    precision: str
    convolutions: int
    ways: dict[str, int]

    def fields(self) -> dict[str, Any]:
        """What is written of it, one field for each way."""
        own = {name: getattr(self, name) for name in self.__slots__ if name != "ways"}
        return own | self.ways


@command(
    "tune",
    "tune imagenet/r-mg-34 --batch 1,8",
    "tune network.yaml --size 64x48 --precision bf16 --threads 2",
    "tune cifar100/mg-6 cifar100/r-mg-12 --forget",
)
@many_specs
@set_option
@size_option
@batch_option
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), help="Of PyTorch. Default: as many as it takes.")
@click.option("--forget", is_flag=True, help="First drop all choices that are kept for this machine.")
@format_option
@output_option
def tune(
    *,
    specs: tuple[str, ...],
    params: dict[str, Any],
    size: tuple[int, int] | None,
    batches: tuple[int, ...],
    precision: Any,
    threads: int | None,
    forget: bool,
    format: str | None,
    output: str | None,
) -> None:
    """Choose by timing how each convolution of each SPEC runs here.

    In the model optimised for inference, on the CPU, once for each batch size. The choices are kept on disk, for this
    processor, number of threads and version of PyTorch; whoever compiles with tune=True takes them from there.
    """
    worst, networks = Worst(), []
    for name in specs:
        with worst.report(name):
            spec = read(name, params)
            spec.graph.shapes(size)  # a size that is too small
            networks.append((name, spec))
    if networks:
        from mgcompile.lowering import tuning
        from mgcompile.lowering.machine import machine
        from mgcompile.lowering.machine import threads as using

        with using(threads), progress_bar() as progress:
            kept = tuning.cache_file()
            if forget:
                kept.unlink(missing_ok=True)
                tuning.forget()
            rows: list[_Row] = []
            for name, spec in networks:
                with worst.report(name):
                    rows += _tuned(spec, size or spec.graph.size, batches, precision, progress)
            place = {"machine": machine(), "file": str(kept) if kept.is_file() else None}
        if rows:
            put(_text(rows, place, table_format(format, output), page(output)), output)
    worst.exit()


def _tuned(
    spec: Spec, size: tuple[int, int], batches: Sequence[int], precision: Any, progress: Progress
) -> Iterator[_Row]:
    """Run a network once for each batch size, and see which ways its convolutions took."""
    import torch

    from mgcompile import api
    from mgcompile.lowering.fused import FusedConv2d, fused_conv
    from mgcompile.lowering.storage import Shelf, Store
    from mgcompile.lowering.ways import WAYS

    model = api.compile(spec, seed=0, optimize="inference", precision=precision, tune=True)
    modules = [module for module in model.modules() if isinstance(module, FusedConv2d)]
    shape = spec.graph.shapes(size)[spec.graph.input.name]
    calls = len(model.graph.find_nodes(op="call_function", target=fused_conv))
    for batch in batches:
        done = 0
        what = f"{spec.graph.name}, batch {batch}"
        progress(done, calls, what)

        class Counted(Shelf):
            def put(self, key: Any, packed: Any, what: str = what) -> None:
                nonlocal done
                super().put(key, packed)
                done += 1
                progress(done, calls, what)

        store = Store(sys.maxsize)
        for module in modules:
            module.packed = Counted(store)
        try:
            with torch.inference_mode():
                model(torch.zeros(batch, *shape))
        except (RuntimeError, MemoryError) as error:  # a batch that does not fit into memory
            reason = lack_of_memory(error) or (str(error) or type(error).__name__).splitlines()[0]
            raise MgcompileError(f"batch {batch}: {reason}") from error
        ways = Counter(packed.way for module in modules for packed in module.packed.values())
        yield _Row(spec.graph.name, *size, batch, precision, calls, {way: ways[way] for way in WAYS})


def _text(rows: Sequence[_Row], place: Mapping[str, str | None], format: str, look: Mapping[str, Any]) -> str:
    from mgcompile.analysis.tables import Sheet, as_csv, as_json, as_markdown, as_text, size_text
    from mgcompile.lowering.ways import WAYS

    if format == "json":
        return as_json({**place, "networks": [row.fields() for row in rows]})
    if format == "csv":
        return as_csv(tuple(rows[0].fields()), [list(row.fields().values()) for row in rows])
    cells: list[tuple[str | int | Decimal | None, ...]] = [
        (row.network, size_text((row.height, row.width)), row.batch, row.convolutions, *row.ways.values())
        for row in rows
    ]
    heads = ("network", "input", "batch", "convolutions", *WAYS)
    where = f"kept in {place['file']}" if place["file"] else "no choice was to be made, or it could not be kept"
    about = [f"{way.name}: {way.about}" for way in WAYS.values()]
    notes = (*about, f"{rows[0].precision} on {place['machine']}", where)
    sheet = Sheet("", heads, tuple(cells), notes=notes, left=frozenset({"network"}))
    return as_markdown([sheet]) if format == "markdown" else as_text([sheet], **look)
