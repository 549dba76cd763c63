"""What a spec means: values, operations, and the graph of nodes that every other room reads."""

from mgcompile.graph.contract import GraphError, verify
from mgcompile.graph.graph import Graph, Layer, Node
from mgcompile.graph.types import Extent, Grid, Shape, Size, Value, Vector, elements

__all__ = [
    "Extent",
    "Graph",
    "GraphError",
    "Grid",
    "Layer",
    "Node",
    "Shape",
    "Size",
    "Value",
    "Vector",
    "elements",
    "verify",
]
