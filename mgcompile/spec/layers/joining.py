"""Bringing pyramids together: joins, parallel branches, gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

from mgcompile.graph import Grid
from mgcompile.graph.ops import Concat, Crop, Maximum, Mean, Op, Product, Sum, WeightedSum
from mgcompile.spec.base import LayerError, LayerSpec, Place, Pyramid, Step
from mgcompile.spec.fields import Bool, References, Several, choice
from mgcompile.spec.items import Layers
from mgcompile.spec.wording import listed

__all__ = ["FUSE", "NORMALIZE", "Gate", "Join", "Parallel", "fuse_op"]

FUSIONS = ("concat", "sum", "mean", "max", "product", "weighted")
FUSE = choice(*FUSIONS)
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
    fuse: Annotated[str, choice(*FUSIONS, "none")] = "concat"
    """How the grids of a level become one; with `none` no level may have two, and the grids stand side by side."""
    normalize: Annotated[str, NORMALIZE] = "relu"
    """How the weights of `fuse: weighted` are normalised."""
    crop: Bool = False
    """Cut larger grids to the middle of the first one's size (networks without padding)."""

    @classmethod
    def spread(cls, value: Any) -> Any:
        return {"with": [value] if isinstance(value, str) else value}

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        yield from _unread_normalize(self.fuse)
        if self.fuse == "none":
            yield "crop", ("fuse",), "fuse: none brings no grids together"

    def build(self, place: Place) -> Pyramid:
        pyramids = [place.pyramid, *(place.look(other, "with", index) for index, other in enumerate(self.with_))]
        levels = sorted({level for pyramid in pyramids for level in pyramid})
        self._check_meeting(pyramids)
        return {
            level: self._fused(place, level, [pyramid[level] for pyramid in pyramids if level in pyramid])
            for level in levels
        }

    def _check_meeting(self, pyramids: Sequence[Pyramid]) -> None:
        """Raise `LayerError` where no level is shared, so that nothing would be joined, and nobody be told."""
        counts = Counter(level for pyramid in pyramids for level in pyramid)
        shared = [level for level, count in counts.items() if count > 1]
        if self.fuse == "none" and shared:
            raise LayerError(f"there are several grids at level {shared[0]}; say how they become one", "fuse")
        if self.fuse != "none" and not shared and len(pyramids) > 1:
            names = ("what this layer receives", *self.with_)
            there = (f"{who} has level {', '.join(map(str, at))}" for who, at in zip(names, pyramids, strict=True))
            raise LayerError(
                f"no two grids meet at a level: {listed(there)}. A pool or an up leads to another level; `fuse: none` "
                "puts grids of different levels side by side",
                "with",
            )

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


def _unread_normalize(fuse: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
    if fuse != "weighted":
        yield "normalize", ("fuse",), f"fuse: {fuse} has no weights to normalise; weighted has"


class Parallel(LayerSpec):
    """Branches side by side on the same pyramid, then joined in their order."""

    kind: ClassVar[str] = "parallel"

    branches: Annotated[list[Layers], Several]
    """Lists of layers; an empty one is the pyramid itself."""
    fuse: Annotated[str, choice(*FUSIONS, "none")] = "concat"
    """How the grids of a level become one (see `join`)."""
    normalize: Annotated[str, NORMALIZE] = "relu"
    """How the weights of `fuse: weighted` are normalised."""

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        yield from _unread_normalize(self.fuse)
        if len(self.branches) == 1:
            yield "fuse", ("branches",), "there is one branch"

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
