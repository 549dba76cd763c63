"""Convolutions that read a coarse grid where it is, instead of its upsampled copy."""

from __future__ import annotations

from dataclasses import replace

from mgcompile.graph import Graph, Node
from mgcompile.graph.ops import Concat, Conv, FusedConv, Resize
from mgcompile.passes.rewriting import replaced, uses

__all__ = ["subpixel"]


def subpixel(graph: Graph) -> Graph:
    """conv(concat(a, upsampled c)) = conv(a) + transposed conv(c).

    Nearest upsampling by f and a convolution of kernel k are a transposed convolution of stride f whose kernel, k + f -
    1 wide, sums the original one over f x f boxes: for k = 3 and f = 2, 4/9 of the multiply-accumulates. Learned is the
    original kernel. Exact, up to rounding, where the fine size is f times the coarse one; at other sizes the model
    upsamples as it is written. Taken are convolutions of stride 1 without groups or dilation, of odd kernels that keep
    the size.
    """
    counts = uses(graph)
    new: dict[str, list[Node]] = {}
    gone: set[str] = set()
    for node in graph:
        if not isinstance(node.op, Conv) or not _fits(node.op):
            continue
        source = graph[node.inputs[0]]
        alone = isinstance(source.op, Concat) and counts[source.name] == 1
        operands = [graph[name] for name in source.inputs] if alone else [source]
        coarse = {each.name for each in operands if _upsampled(graph, each)}
        if not coarse:
            continue
        steps = tuple(each.op.steps if isinstance(each.op, Resize) and each.name in coarse else 0 for each in operands)
        parts = [each.inputs[0] if each.name in coarse else each.name for each in operands]
        like = [operands[0].inputs[1]] if all(steps) else []
        new[node.name] = [replace(node, op=FusedConv(node.op, steps, bool(like)), inputs=(*parts, *like))]
        gone |= {source.name} if alone else set()
        for each in operands:
            if each.name in coarse:
                counts[each.name] -= 1
                gone |= {each.name} if not counts[each.name] else set()
    return replaced(graph, new, gone)


def _fits(conv: Conv) -> bool:
    odd = all(size % 2 for size in conv.kernel)
    return conv.stride == conv.dilation == conv.groups == 1 and conv.padding is None and odd


def _upsampled(graph: Graph, node: Node) -> bool:
    return isinstance(node.op, Resize) and node.op.function == "nearest" and node.op.steps > 0
