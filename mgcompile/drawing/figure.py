"""A whole figure: the measured cells and edges with title, level axis, layer names, repeats and legend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mgcompile.drawing import palette
from mgcompile.drawing.geometry import GAP, Box, Geometry, caption_size, measure, size_text
from mgcompile.drawing.lattice import Cell, Group, Lattice
from mgcompile.drawing.legend import lay_legend
from mgcompile.drawing.routing import route
from mgcompile.drawing.scene import Curve, Label, Point, Polygon, Scene, Shape, Sheet, text_width
from mgcompile.drawing.tracks import Tracks
from mgcompile.graph.ops import Kind

__all__ = ["compose"]

MARGIN = 14.0
TIER = 15.0
NAME = 10.0
SMALLEST = 7.0
SMALL = 7.5
BOLD = 1.2
"""How much wider bold letters are."""


def compose(lattice: Lattice, subtitle: str = "") -> Scene:
    """The figure of a lattice. `subtitle` stands below the network's name; the caller knows parameters and MACs."""
    axis = [f"{level} · {size_text(size)}" for level, size in lattice.levels]
    left = MARGIN + max((text_width(text, NAME) for text in axis), default=0) + 12
    header = MARGIN + 12 + (14 if subtitle else 0)
    alone, shared = _split(lattice)
    repeats = _stacked(alone, Tracks())
    top = header + 17 + TIER * _tiers(repeats) + (4 if repeats else 0)
    geometry = measure(lattice, left, top)
    bottom = max((end for _, end in geometry.bounds.values()), default=top)
    right = max((end for _, end in geometry.spans), default=left)
    title = [Label(MARGIN, MARGIN + 9, lattice.name, 14, anchor="start", bold=True)]
    title += [Label(MARGIN, MARGIN + 25, subtitle, NAME, palette.MUTED, "start")] * bool(subtitle)
    content = max(right, *(label.x + text_width(label.text, label.size) for label in title))
    names, foot = _layer_names(geometry, bottom + 4)
    legend, height, legend_right = lay_legend(lattice, MARGIN, foot + 8, max(content, 420.0))
    width = max(content, legend_right) + MARGIN
    brackets = list(_brackets(geometry, repeats, top - 4))
    sheets = tuple(_sheet(number, *each) for number, each in enumerate(zip(lattice.cells, geometry.boxes, strict=True)))
    return Scene(
        name=lattice.name,
        width=width,
        height=height + MARGIN - 4,
        back=(*_bands(geometry, repeats, top, bottom), *_row_lines(geometry, left, right), *_frames(geometry, shared)),
        strands=tuple(route(geometry)),
        sheets=sheets,
        front=(
            *title,
            *_frame_labels(geometry, shared),
            *_axis(geometry, axis, left),
            *brackets,
            *names,
            *_captions(geometry),
            *legend,
        ),
    )


def _sheet(number: int, cell: Cell, box: Box) -> Sheet:
    colour = palette.KIND_COLOURS[cell.kind]
    line = palette.tint(colour, -0.55) if cell.kind is not Kind.FUSE else palette.INK
    x0, x1 = box.x - box.width / 2, box.x + box.width / 2
    y0, y1 = box.y - box.height / 2, box.y + box.height / 2
    dx, dy = box.depth
    faces: tuple[Polygon, ...] = ()
    if dx:
        upper = ((x0, y0), (x0 + dx, y0 - dy), (x1 + dx, y0 - dy), (x1, y0))
        side = ((x1, y0), (x1 + dx, y0 - dy), (x1 + dx, y1 - dy), (x1, y1))
        faces = (
            Polygon(upper, palette.tint(colour, 0.72), line, 0.5),
            Polygon(side, palette.tint(colour, -0.12), line, 0.5),
        )
    fill = palette.front_colour(cell.kind)
    place = (number, box.x, box.y, box.width, box.height)
    if cell.kind is Kind.FUSE:
        size = 8.5 if len(cell.label) == 1 else 5.0
        return Sheet(*place, fill, line, faces, _tooltip(cell), round=True, text=cell.label, text_size=size)
    return Sheet(*place, fill, line, faces, _tooltip(cell))


def _tooltip(cell: Cell) -> str:
    shape = f"{cell.channels} features" if cell.size is None else f"{cell.channels} × {size_text(cell.size)}"
    return "\n".join((f"{cell.nodes[0]}: {cell.label}", f"level {cell.level}, {shape}", *cell.nodes[1:]))


def _captions(geometry: Geometry) -> Iterator[Label]:
    for cell, box, lines in zip(geometry.lattice.cells, geometry.boxes, geometry.texts, strict=True):
        size = caption_size(cell)
        for place, line in enumerate(lines, 1):
            colour = palette.INK if place == 1 else palette.MUTED
            yield Label(box.x, box.bottom + place * (size + 0.5) - 0.5, line, size, colour)


def _axis(geometry: Geometry, texts: Sequence[str], left: float) -> Iterator[Shape]:
    first = min((start for start, _ in geometry.bounds.values()), default=0.0)
    yield Label(left - 10, first - 2, "level · size", SMALL, palette.MUTED, "end")
    for (level, _), text in zip(geometry.lattice.levels, texts, strict=True):
        yield Label(left - 10, geometry.rows[level] + 3.3, text, NAME, palette.MUTED, "end")


def _row_lines(geometry: Geometry, left: float, right: float) -> Iterator[Curve]:
    line = palette.Line(palette.FAINT, 0.6)
    for _, end in list(geometry.bounds.values())[:-1]:
        points = ((left - 8, end), (left, end), (right, end), (right + 4, end))
        yield Curve(points, line)


def _bands(geometry: Geometry, tiers: Sequence[tuple[Group, int]], top: float, bottom: float) -> Iterator[Polygon]:
    for group, tier in tiers:
        if tier == 0:
            x0, x1 = geometry.spans[group.first][0] - 0.32 * GAP, geometry.spans[group.last][1] + 0.32 * GAP
            yield Polygon(((x0, top), (x1, top), (x1, bottom), (x0, bottom)), palette.BAND)


def _brackets(geometry: Geometry, tiers: Sequence[tuple[Group, int]], base: float) -> Iterator[Shape]:
    line = palette.Line(palette.INK, 0.8)
    for group, tier in tiers:
        y = base - TIER * tier
        x0, x1 = geometry.spans[group.first][0] - 0.32 * GAP, geometry.spans[group.last][1] + 0.32 * GAP
        foot = y + 3.5
        ends = [((x0, foot), (x0, y)), ((x0, y), (x1, y)), ((x1, y), (x1, foot))]
        for begin, end in ends:
            yield Curve((begin, begin, end, end), line)
        yield Label((x0 + x1) / 2, y - 3, f"×{group.repeats}", NAME + 0.5, bold=True)


def _split(lattice: Lattice) -> tuple[list[Group], list[Group]]:
    """Repeats that have their columns to themselves, and those beside which something else stands."""
    columns: dict[int, set[int]] = {}
    for number, cell in enumerate(lattice.cells):
        columns.setdefault(cell.column, set()).add(number)
    spans: dict[tuple[int, int, int], set[int]] = {}
    for group in lattice.repeats:
        spans.setdefault((group.first, group.last, group.repeats), set()).update(group.cells)
    alone: list[Group] = []
    shared: list[Group] = []
    for group in lattice.repeats:
        own = spans[group.first, group.last, group.repeats]
        fills = all(columns[column] <= own for column in range(group.first, group.last + 1))
        (alone if fills else shared).append(group)
    return alone, shared


def _frame(geometry: Geometry, group: Group) -> tuple[Point, Point]:
    """The corners around the cells of a group, with room for the number beside the texts of the last column."""
    boxes = [geometry.boxes[cell] for cell in group.cells]
    left = min(box.x - box.width / 2 for box in boxes)
    right = max(box.x + box.width / 2 + box.depth[0] for box in boxes)
    for cell, box in zip(group.cells, boxes, strict=True):
        if geometry.lattice.cells[cell].column == group.last:
            half = max((text_width(line, NAME) / 2 for line in geometry.texts[cell]), default=0.0)
            right = max(right, box.x + half + 1 + BOLD * text_width(f"×{group.repeats}", SMALL))
    return (left - 3, min(box.top for box in boxes) - 2), (right + 3, max(box.bottom for box in boxes) + NAME + 4)


def _frames(geometry: Geometry, groups: Iterable[Group]) -> Iterator[Polygon]:
    for group in groups:
        (x0, y0), (x1, y1) = _frame(geometry, group)
        yield Polygon(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), palette.BAND, palette.MUTED, 0.6)


def _frame_labels(geometry: Geometry, groups: Iterable[Group]) -> Iterator[Label]:
    for group in groups:
        _, (x1, y1) = _frame(geometry, group)
        yield Label(x1 - 1.5, y1 - 2, f"×{group.repeats}", SMALL, anchor="end", bold=True)


def _layer_names(geometry: Geometry, top: float) -> tuple[list[Shape], float]:
    """The names of the layers below their columns, inner ones below outer ones; and where they end."""
    outer = [group for group in geometry.lattice.groups if "." not in group.path]
    inner = [group for group in geometry.lattice.groups if "." in group.path]
    tracks = Tracks()
    tiers = _stacked(outer, tracks)
    below = {group.path: tier + 1 for group, tier in tiers}
    tiers += [
        (group, tracks.take(group.first, group.last + 1, below[group.path.split(".")[0]]))
        for group in sorted(inner, key=lambda group: (group.first, group.last, group.path))
    ]
    folded = {(group.path, group.first, group.last): group.repeats for group in geometry.lattice.repeats}
    shapes: list[Shape] = []
    for group, tier in tiers:
        parent, _, name = group.path.rpartition(".")
        times = folded.get((parent, group.first, group.last), 1)
        if name.isdecimal() and times > 1:
            name = f"{name}–{int(name) + times - 1}"
        shapes += _layer_name(geometry, group, name, top + TIER * tier)
    return shapes, top + TIER * _tiers(tiers)


def _layer_name(geometry: Geometry, group: Group, name: str, top: float) -> list[Shape]:
    x0, x1 = geometry.spans[group.first][0] - 3, geometry.spans[group.last][1] + 3
    text, size = _fitted(name, x1 - x0 + GAP - 10)
    line = palette.Line("#aaaaaa", 0.8)
    rule = Curve(((x0, top), (x0, top), (x1, top), (x1, top)), line)
    return [rule, Label((x0 + x1) / 2, top + 10, text, size)]


def _fitted(text: str, room: float) -> tuple[str, float]:
    """The text at the size at which it fits, cut where even the smallest does not."""
    size = max(SMALLEST, min(NAME, NAME * room / max(1.0, text_width(text, NAME))))
    while len(text) > 2 and text_width(text, size) > room + 0.01:
        text = text[:-2] + "…"
    return text, size


def _stacked(groups: Iterable[Group], tracks: Tracks) -> list[tuple[Group, int]]:
    """Each group with its tier: those that share columns lie on different tiers, the narrow ones first.

    Repeats of the same columns by the same number are one.
    """
    different = {
        (group.first, group.last, group.repeats, group.path if group.repeats == 1 else ""): group for group in groups
    }
    ordered = sorted(different.values(), key=lambda group: (group.last - group.first, group.first, group.path))
    return [(group, tracks.take(group.first, group.last + 1)) for group in ordered]


def _tiers(stacked: Sequence[tuple[Group, int]]) -> int:
    return max((tier + 1 for _, tier in stacked), default=0)
