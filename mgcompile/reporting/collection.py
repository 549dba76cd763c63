"""From graphs to the chapters of a report: one for each network, and one that sets several beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mgcompile.analysis import audit_graph, report
from mgcompile.analysis.comparison import compare_graphs
from mgcompile.analysis.comparison_report import comparison_sheets
from mgcompile.analysis.machine import Machine
from mgcompile.analysis.memory import memory
from mgcompile.analysis.memory_report import memory_sheets
from mgcompile.analysis.receptive import ReceptiveField, receptive_field
from mgcompile.analysis.receptive_report import receptive_sheets
from mgcompile.analysis.roofline import roofline
from mgcompile.analysis.roofline_report import roofline_sheets
from mgcompile.analysis.tables import human
from mgcompile.drawing import draw_graph
from mgcompile.graph import Graph, Size
from mgcompile.reporting.document import Chapter, Section
from mgcompile.reporting.fields import field_plot

__all__ = ["Network", "chapters_of"]


@dataclass(frozen=True, slots=True)
class Network:
    """A graph, the name under which it was asked for, and what its spec says: a line about it, and itself (YAML)."""

    name: str
    graph: Graph
    about: str
    spec: str


def chapters_of(
    networks: Sequence[Network], size: Size | None = None, *, batch: int = 1, machine: Machine | None = None
) -> tuple[Chapter, ...]:
    """The chapters at one input size (height, width), the nominal sizes where None; memory and times are of a `batch`.

    Raises `ShapeError` where a grid would vanish at that size.
    """
    fields = [receptive_field(network.graph, size) for network in networks]
    together = [_together(networks, fields, size, batch)] if len(networks) > 1 else []
    own = (_chapter(*each, size, batch, machine) for each in zip(networks, fields, strict=True))
    return tuple(_said_once([*together, *own]))


def _together(networks: Sequence[Network], fields: Sequence[ReceptiveField], size: Size | None, batch: int) -> Chapter:
    profiles = compare_graphs([(network.name, network.graph) for network in networks], size, batch=batch)
    names = [network.name for network in networks]
    sections = (
        Section("Figures", sheets=tuple(comparison_sheets(profiles))),
        Section("Receptive field against depth", pictures=(_field_plot(names, fields),)),
    )
    return Chapter("Comparison", f"{len(networks)} networks; ratios are to {names[0]}.", sections)


def _chapter(
    network: Network, field: ReceptiveField, size: Size | None, batch: int, machine: Machine | None
) -> Chapter:
    return Chapter(network.name, network.about, tuple(_sections(network, field, size, batch, machine)))


def _sections(
    network: Network, field: ReceptiveField, size: Size | None, batch: int, machine: Machine | None
) -> Iterator[Section]:
    graph = network.graph
    audit = audit_graph(graph, size)
    nominal = audit if audit.size == graph.size else audit_graph(graph)
    height, width = graph.size
    subtitle = f"{human(nominal.params)} parameters, {human(nominal.macs)} MACs at {height}x{width}"
    yield Section("Topology", pictures=(draw_graph(graph, format="svg", subtitle=subtitle).decode(),))
    yield Section("Cost by level", sheets=tuple(report.audit_sheets([audit], "level")))
    yield Section("Cost by layer", sheets=tuple(report.audit_sheets([audit], "layer"))[1:-1], folded=True)
    yield Section("Memory", sheets=tuple(memory_sheets(memory(graph, size, batch=batch))))
    yield Section(
        "Receptive field",
        pictures=(_field_plot([network.name], [field]),),
        sheets=tuple(receptive_sheets(field)),
    )
    yield Section(
        "Roofline", sheets=tuple(roofline_sheets(roofline(graph, machine, size, batch=batch), "op")), folded=True
    )
    yield Section("Spec", code=network.spec, folded=True)


def _field_plot(names: Sequence[str], fields: Sequence[ReceptiveField]) -> str:
    return field_plot(list(zip(names, fields, strict=True))).decode()


def _said_once(chapters: Sequence[Chapter]) -> Iterator[Chapter]:
    """The chapters with each note where it stands first: what figures mean is the same for all networks."""
    said: set[str] = set()
    for chapter in chapters:
        sections = []
        for section in chapter.sections:
            sheets = []
            for sheet in section.sheets:
                notes = tuple(note for note in sheet.notes if note not in said)
                said.update(notes)
                sheets.append(replace(sheet, notes=notes))
            sections.append(replace(section, sheets=tuple(sheets)))
        yield replace(chapter, sections=tuple(sections))
