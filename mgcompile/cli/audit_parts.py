"""What `audit` finds beside the audit itself: receptive fields, memory, the roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

import click

from mgcompile.analysis.machine import Machine, read_machine
from mgcompile.analysis.memory import MEMORY_CONVENTIONS, best_order, memory
from mgcompile.analysis.memory_report import memory_csv, memory_record, memory_sheets
from mgcompile.analysis.receptive import FIELD_CONVENTIONS, receptive_field
from mgcompile.analysis.receptive_report import receptive_csv, receptive_record, receptive_sheets
from mgcompile.analysis.roofline import ROOFLINE_CONVENTIONS, RooflineRow, roofline
from mgcompile.analysis.roofline_report import roofline_record, roofline_sheets
from mgcompile.analysis.tables import Sheet, as_csv
from mgcompile.errors import MgcompileError

if TYPE_CHECKING:
    from mgcompile.cli.audit import Asked
    from mgcompile.graph import Graph

__all__ = ["Part", "parts_of"]

UNMEASURED = "no peaks of this machine are kept, so no times: `mgcompile machine` measures them, --machine reads a file"


class Part(Protocol):
    """The figures that a flag asks for: found once for each network, written in each format."""

    conventions: Mapping[str, str]
    """What each figure means, in words."""

    def find(self, graph: Graph, asked: Asked) -> Any: ...

    def sheets(self, found: Any, asked: Asked) -> list[Sheet]: ...

    def record(self, found: Any, asked: Asked) -> Mapping[str, object]: ...

    def csv(self, results: Sequence[Any], asked: Asked) -> str: ...


def parts_of(asked: Asked) -> dict[str, Part]:
    """What was asked for, by its key in JSON. Raises `BadParameter` for a machine that cannot be read."""
    parts: dict[str, Part] = {}
    if asked.receptive_field:
        parts["receptive_field"] = _ReceptiveField()
    if asked.memory:
        parts["memory"] = _Memory()
    if asked.roofline:
        parts["roofline"] = _Roofline(_machine(asked))
    return parts


class _ReceptiveField:
    """By layer or level alone: what all operations of a sort see together says nothing."""

    conventions = FIELD_CONVENTIONS

    def find(self, graph: Graph, asked: Asked) -> Any:
        return receptive_field(graph, asked.size)

    def sheets(self, found: Any, asked: Asked) -> list[Sheet]:
        return receptive_sheets(found, **self._grouping(asked))

    def record(self, found: Any, asked: Asked) -> Mapping[str, object]:
        return receptive_record(found, **self._grouping(asked))

    def csv(self, results: Sequence[Any], asked: Asked) -> str:
        return receptive_csv(results, **self._grouping(asked))

    def _grouping(self, asked: Asked) -> dict[str, Any]:
        return asked.grouping | ({"by": None} if asked.by in ("op", "node") else {})


class _Memory:
    """Always by level."""

    conventions = MEMORY_CONVENTIONS

    def find(self, graph: Graph, asked: Asked) -> Any:
        batch, number = asked.batch or 1, asked.bytes_per_element
        order = best_order(graph, asked.size, batch=batch, bytes_per_element=number)
        return memory(graph, asked.size, **asked.training), order

    def sheets(self, found: Any, asked: Asked) -> list[Sheet]:
        return memory_sheets(*found)

    def record(self, found: Any, asked: Asked) -> Mapping[str, object]:
        return memory_record(*found)

    def csv(self, results: Sequence[Any], asked: Asked) -> str:
        return memory_csv([taken for taken, _ in results])


class _Roofline:
    """With times where there is a machine."""

    conventions = ROOFLINE_CONVENTIONS

    def __init__(self, machine: Machine | None) -> None:
        self.machine = machine

    def find(self, graph: Graph, asked: Asked) -> Any:
        batch, number = asked.batch or 1, asked.bytes_per_element
        return roofline(graph, self.machine, asked.size, batch=batch, bytes_per_element=number)

    def sheets(self, found: Any, asked: Asked) -> list[Sheet]:
        note = [] if self.machine else [Sheet("", (), (), notes=(UNMEASURED,))]
        return [*roofline_sheets(found, **asked.grouping), *note]

    def record(self, found: Any, asked: Asked) -> Mapping[str, object]:
        return roofline_record(found, **asked.grouping)

    def csv(self, results: Sequence[Any], asked: Asked) -> str:
        """A line for each node, from which all sums follow."""
        columns = [field.name for field in fields(RooflineRow)]
        rows = [
            (found.name, *found.size, found.batch, *(getattr(row, column) for column in columns))
            for found in results
            for row in found.rows
        ]
        return as_csv(("name", "height", "width", "batch", *columns), rows)


def _machine(asked: Asked) -> Machine | None:
    """The machine of the file that is given, else the one whose peaks are kept here, else None."""
    if asked.machine is None:
        if asked.dtype == "fp64":
            return None
        from mgcompile.measuring.machine import kept_machine  # torch

        return kept_machine(asked.dtype)
    hint = "'--machine'"
    try:
        machine = read_machine(asked.machine)
    except MgcompileError as error:
        raise click.BadParameter(str(error), param_hint=hint) from error
    except OSError as error:
        raise click.BadParameter(f"{asked.machine}: {error.strerror or error}", param_hint=hint) from error
    if machine.precision != asked.dtype:
        found = f"{asked.machine} holds peaks for {machine.precision}, and --dtype is {asked.dtype}"
        raise click.BadParameter(f"{found}; expected the same", param_hint=hint)
    return machine
