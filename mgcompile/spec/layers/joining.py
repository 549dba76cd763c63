"""Bringing pyramids together: joins, parallel branches, gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from mgcompile.graph import Grid
from mgcompile.graph.ops import Concat, Crop, Maximum, Mean, Op, Product, Sum, WeightedSum
from mgcompile.spec.base import LayerError, LayerSpec, Place, Pyramid, Step
from mgcompile.spec.fields import Bool, References, choice
from mgcompile.spec.items import Layers

__all__ = ["FUSE", "NORMALIZE", "Gate", "Join", "Parallel", "fuse_op"]

FUSE = choice("concat", "sum", "mean", "max", "product", "weighted")
NORMALIZE = choice("none", "relu", "softmax")


def fuse_op(fuse: str, normalize: str) -> Op:
    """The operation that a fusion's name stands for."""
    plain = {"concat": Concat, "sum": Sum, "mean": Mean, "max": Maximum, "product": Product}
    return WeightedSum(normalize) if fuse == "weighted" else plain[fuse]()


class Join(LayerSpec):
    """The pyramid at hand and earlier ones become one, level by level; a grid that only one has passes through.

    `join: skip` and `join: [a, b]` are short forms.
    """

    kind: ClassVar[str] = "join"
    shorthand: ClassVar[str] = "with_"

    with_: References
    """Ids of earlier layers; the pyramid at hand comes first, then these in their order."""
    fuse: Annotated[str, FUSE] = "concat"
    """How the grids of a level become one."""
    normalize: Annotated[str, NORMALIZE] = "relu"
    """How the weights of `fuse: weighted` are normalised."""
    crop: Bool = False
    """Cut larger grids to the middle of the first one's size (networks without padding)."""

    @classmethod
    def spread(cls, value: Any) -> Any:
        return {"with": [value] if isinstance(value, str) else value}

    def build(self, place: Place) -> Pyramid:
        pyramids = [place.pyramid, *(place.look(other, "with", index) for index, other in enumerate(self.with_))]
        levels = sorted({level for pyramid in pyramids for level in pyramid})
        return {
            level: self._fused(place, level, [pyramid[level] for pyramid in pyramids if level in pyramid])
            for level in levels
        }

    def canonical(self, place: Place) -> LayerSpec:
        # In the canonical form all names are a user's, and one that sugar gave could hide the one that is meant.
        return self.model_copy(
            update={"with_": [place.absolute(other, "with", index) for index, other in enumerate(self.with_)]}
        )

    def _fused(self, place: Place, level: int, operands: list[str]) -> str:
        if len(operands) == 1:
            return operands[0]
        if self.crop:
            first, *rest = operands
            operands = [first, *(self._cropped(place, level, node, first, index) for index, node in enumerate(rest))]
        return place.add(fuse_op(self.fuse, self.normalize), operands, level, "fuse")

    def _cropped(self, place: Place, level: int, node: str, like: str, index: int) -> str:
        types = place.elaboration.builder.types
        ours, theirs = types[node], types[like]
        if isinstance(ours, Grid) and isinstance(theirs, Grid) and ours.same_size(theirs):
            return node
        return place.add(Crop(), [node, like], level, f"crop{index}")


class Parallel(LayerSpec):
    """Branches side by side on the same pyramid, then joined in their order."""

    kind: ClassVar[str] = "parallel"

    branches: list[Layers]
    """Lists of layers; an empty one is the pyramid itself."""
    fuse: Annotated[str, FUSE] = "concat"
    """How the grids of a level become one."""
    normalize: Annotated[str, NORMALIZE] = "relu"
    """How the weights of `fuse: weighted` are normalised."""

    def expand(self, place: Place) -> Sequence[Step] | None:
        if not self.branches:
            raise LayerError("there are no branches", "branches")
        groups = [
            place.group(place.steps(branch, "branches", index), f"branch{index}", from_="start", user=True)
            for index, branch in enumerate(self.branches)
        ]
        first, *others = [group.id for group in groups]
        join = Join.made(with_=others, fuse=self.fuse, normalize=self.normalize)
        return [*groups, place.step(join, "join", from_=first)]


class Gate(LayerSpec):
    """The pyramid times what the body makes of it, broadcast over cells or channels (squeeze and excitation)."""

    kind: ClassVar[str] = "gate"
    shorthand: ClassVar[str] = "body"

    body: Layers
    """The layers that compute the factor, one number a cell, a channel or both."""

    def expand(self, place: Place) -> Sequence[Step] | None:
        body = place.group(place.steps(self.body, "body"), "body", user=True)
        return [body, place.step(Join.made(with_=["body"], fuse="product"), "scale", from_="start")]
