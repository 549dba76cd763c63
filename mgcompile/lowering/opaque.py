"""A model that is optimised for inference as one operation of a larger program that `torch.compile` compiles.

What torch.compile makes of the single operations is slower than what they do by themselves, so it sees one operation,
which takes the image and every tensor of the model; when it runs, the model runs as ever, by plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from operator import is_
from typing import Any
from weakref import WeakValueDictionary, ref

import torch
from torch import fx
from torch.func import functional_call

from mgcompile.graph import Graph

__all__ = ["call_opaque", "register"]

_numbers = count()


class _Opaque:
    """What is known of a model that is one operation; it does not keep the model alive."""

    def __init__(self, model: fx.GraphModule, graph: Graph) -> None:
        self.number = next(_numbers)
        self.outputs = tuple(graph.outputs)
        self.types = [graph.types[node] for node in graph.outputs.values()]
        self._model = ref(model)
        self.names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
        self._places: list[tuple[dict[str, Any], str]] = []
        for name in self.names:
            path, _, last = name.rpartition(".")
            module = model.get_submodule(path)
            self._places.append((module._parameters if last in module._parameters else module._buffers, last))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a copy is another model, and a file has none

    def model(self) -> fx.GraphModule:
        model = self._model()
        assert model is not None, "who calls it holds it"
        return model

    def tensors(self) -> list[torch.Tensor]:
        """Those of the model, now."""
        return [tensors[name] for tensors, name in self._places]


_known: WeakValueDictionary[int, _Opaque] = WeakValueDictionary()


def register(model: fx.GraphModule, graph: Graph) -> None:
    """Let the model of a graph be one operation."""
    known = _Opaque(model, graph)
    _known[known.number] = known
    setattr(model, "opaque", known)  # noqa: B010 - nn.Module declares its attributes as tensors and modules


def call_opaque(model: Any, x: torch.Tensor) -> Any:
    """The outputs of a model, as one operation of the program that is being compiled; None where that cannot be."""
    known = getattr(model, "opaque", None)
    if known is None or [name for name, _ in (*model.named_parameters(), *model.named_buffers())] != known.names:
        return None  # pruned, parametrised or extended since
    # Not `known.tensors()`: torch.compile knows a module's own tensors, and that their sizes stay.
    values = _run(x, [*model.parameters(), *model.buffers()], known.number)
    return dict(zip(known.outputs, values, strict=True)) if len(values) > 1 else values[0]


@torch.library.custom_op("mgcompile::run", mutates_args=())
def _run(x: torch.Tensor, state: Sequence[torch.Tensor], number: int) -> list[torch.Tensor]:
    known = _known[number]
    model, own = known.model(), known.tensors()
    if all(map(is_, own, state)) or [each.data_ptr() for each in own] == [each.data_ptr() for each in state]:
        return _fresh(model.forward(x))
    # The program has changed the weights, and keeps the new ones elsewhere until it ends.
    return _fresh(functional_call(model, dict(zip(known.names, state, strict=True)), (x,)))


@_run.register_fake
def _(x: torch.Tensor, state: Sequence[torch.Tensor], number: int) -> list[torch.Tensor]:
    known = _known[number]
    batch, _, height, width = x.shape
    dtype = state[0].dtype if state else x.dtype
    return [x.new_empty((batch, *value.at((height, width))), dtype=dtype) for value in known.types]


def _fresh(outputs: Any) -> list[torch.Tensor]:
    """The outputs in plain layout, in memory of their own."""
    values = outputs.values() if isinstance(outputs, dict) else [outputs]
    return [value.clone(memory_format=torch.contiguous_format) for value in values]
