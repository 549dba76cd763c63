"""What every operation says about itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from mgcompile.errors import ShapeError
from mgcompile.graph.types import ALL, Grid, Kept, Shape, Value, Vector, Window, elements

if TYPE_CHECKING:
    from torch import fx, nn

__all__ = ["Kind", "Op", "check_word", "one_grid", "one_vector"]


class Kind(StrEnum):
    """What sort of work an operation does: how it is drawn and grouped depends on this alone."""

    INPUT = "input"
    CONV = "conv"
    LINEAR = "linear"
    NORM = "norm"
    ACT = "act"
    POOL = "pool"
    UP = "up"
    FUSE = "fuse"
    SHAPE = "shape"
    CUSTOM = "custom"
    REFERENCE = "reference"


@dataclass(frozen=True)
class Op:
    """One operation: its options are its fields, everything else follows from them and from what it is given.

    A subclass overrides what is not the default. Either `module` (an operation with weights, or with a mode that
    differs between training and evaluation) or `emit` (a plain function) says how it becomes torch.
    """

    kind: ClassVar[Kind]
    uncounted: ClassVar[str] = ""
    """What of its work no figure counts, in words; empty where everything is counted."""
    by_reference: ClassVar[bool] = False
    """Whether the value is the module itself, for others to call, rather than what it returns."""
    passes_gradient: ClassVar[bool] = False
    """Whether the gradients of its inputs are that of the output or views of it, which take no memory of their own."""

    def infer(self, *inputs: Value) -> Value:
        """The output for these inputs. Raises `ShapeError` where they do not fit."""
        raise NotImplementedError(type(self).__name__)

    def weights(self, *inputs: Value) -> Mapping[str, Shape]:
        """The shape of each learned tensor by its name in the module's `state_dict`."""
        return {}

    def buffers(self, *inputs: Value) -> Mapping[str, Shape]:
        """The shape of each tensor that is kept but not learned (running statistics)."""
        return {}

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Multiply-accumulates of one sample: convolutions and linear layers only, padding counted like data."""
        return 0

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Operations of one sample besides the multiply-accumulates; FLOPs are 2 x MACs plus these."""
        return 0

    def windows(self, axis: int, inputs: Sequence[Shape], output: Shape) -> tuple[Window | None, ...]:
        """Which cells of each input a cell of the output sees along an axis (0 is the height, 1 the width); None for an
        input that gives its size alone. Everything where the output is a vector, otherwise each cell its own.
        """
        return (ALL if len(output) == 1 else Window(),) * len(inputs)

    def convolves(self, place: int) -> bool:
        """Whether what the input at this place gives is convolved: the depth of a network counts that."""
        return self.kind is Kind.CONV

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        """What autograd keeps in training."""
        return Kept()

    def stores(self, inputs: Sequence[Shape], output: Shape, *, training: bool) -> int:
        """The numbers of one sample in the memory behind the output; 0 where that is the memory of the first input."""
        return 0 if self.by_reference else elements(output)

    def scratch(self, inputs: Sequence[Shape], output: Shape, number: int) -> int:
        """Bytes of one sample that are taken while it runs in evaluation, besides inputs and output, a `number` having
        so many. By default what autograd would keep of its own: it is computed without gradients too.
        """
        kept = self.kept(inputs, output)
        return kept.numbers * number + kept.extra

    def partials(self, inputs: Sequence[Shape], output: Shape) -> tuple[int, ...]:
        """The numbers of one sample in each value that is made on the way to the output: the first from the first two
        inputs, each next one from the one before and from the next input, if there is one left.
        """
        return ()

    def moved(self, inputs: Sequence[Shape], output: Shape) -> int:
        """The numbers of one sample that it reads and writes in evaluation, each once, its own tensors left aside."""
        written = self.stores(inputs, output, training=False)
        if not written:
            return 0  # a view
        return written + sum([elements(shape) for place, shape in enumerate(inputs) if place != self.size_input])

    def tensors(self, *inputs: Value) -> int:
        """The numbers of its own that it reads in evaluation: learned ones and running statistics."""
        return self.parameters(*inputs) + sum([elements(shape) for shape in self.buffers(*inputs).values() if shape])

    def effort(self, inputs: Sequence[Shape], output: Shape) -> int:
        """The FLOPs of one sample by which its time goes, where that differs from those that are counted."""
        return 2 * self.macs(inputs, output) + self.elementwise(inputs, output)

    def further(self, inputs: Sequence[Shape], output: Shape) -> tuple[int, ...]:
        """The numbers of one sample that each further step moves, where PyTorch takes several: besides `moved`."""
        return tuple([2 * made for made in self.partials(inputs, output)])  # written, and read again

    def module(self, *inputs: Value) -> nn.Module | None:
        """A new module for these inputs, or None where `emit` is the way."""
        return None

    def call(self, args: Sequence[fx.Node], *inputs: Value) -> tuple[tuple[fx.Node, ...], dict[str, Any]]:
        """What the module is given at each call, positional and by name; `args` stand for the inputs. What is said here
        and not in `module` may differ between the places that one module serves.
        """
        return tuple(args), {}

    def invoke(self, graph: fx.Graph, owner: str, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        """Add the call of the module of this name to a torch.fx graph; `args` stand for the inputs."""
        positional, options = self.call(args, *inputs)
        return graph.call_module(owner, positional, options)

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        """Add the call of a plain function to a torch.fx graph; `args` stand for the inputs."""
        raise NotImplementedError(type(self).__name__)

    @property
    def size_input(self) -> int | None:
        """The place of the input that gives its size alone."""
        return None

    def parameters(self, *inputs: Value) -> int:
        """How many learned numbers there are."""
        return sum(map(elements, self.weights(*inputs).values()))

    @property
    def work(self) -> str:
        """What sort of work it is to a machine: operations of one sort have one speed."""
        return "elementwise"

    @property
    def label(self) -> str:
        """A short text for drawings and tables."""
        return type(self).__name__


def check_word(op: Op, option: str, words: Iterable[str]) -> None:
    """Raise `ShapeError` unless an option is one of some words: by its word a function is found, or code is written."""
    if (found := getattr(op, option)) not in words:
        raise ShapeError(f"{type(op).__name__} has no {option} {found!r}; known: {', '.join(words)}")


def one_grid(op: Op, inputs: Sequence[Value]) -> Grid:
    """The only input, which must be a grid. Raises `ShapeError` otherwise."""
    match inputs:
        case [Grid() as grid]:
            return grid
    raise ShapeError(f"{op.label} takes one grid, not {', '.join(map(str, inputs)) or 'nothing'}")


def one_vector(op: Op, inputs: Sequence[Value]) -> Vector:
    """The only input, which must be a vector. Raises `ShapeError` otherwise."""
    match inputs:
        case [Vector() as vector]:
            return vector
    raise ShapeError(f"{op.label} takes a vector, not {', '.join(map(str, inputs)) or 'nothing'}")
