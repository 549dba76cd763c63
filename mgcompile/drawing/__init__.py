"""Pictures of a network: rows are levels, columns are depth."""

from mgcompile.drawing.dot import format_dot
from mgcompile.drawing.lattice import Cell, Edge, EdgeKind, Group, Lattice, build_lattice
from mgcompile.drawing.render import draw_graph, format_of, render_lattice
from mgcompile.drawing.svg import format_svg
from mgcompile.outputs import write_file

__all__ = [
    "Cell",
    "Edge",
    "EdgeKind",
    "Group",
    "Lattice",
    "build_lattice",
    "draw_graph",
    "format_dot",
    "format_of",
    "format_svg",
    "render_lattice",
    "write_file",
]
