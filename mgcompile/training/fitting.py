"""Whether a network fits a task's data: what it takes, what it returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx

from mgcompile.errors import Problem, ShapeError, SpecError
from mgcompile.graph import Graph
from mgcompile.graph.ops import Activation, BatchNorm, GroupNorm, LayerNorm, Norm
from mgcompile.spec import Spec
from mgcompile.training.recipe import Recipe
from mgcompile.training.tasks import Data

__all__ = ["Fit", "check_norms", "fit"]

PROBABILITIES = {True: "sigmoid", False: "softmax"}
"""The activation that makes probabilities of maps, and of classes."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Which output of a network a task takes, and whether it holds logits, or probabilities already."""

    output: str
    logits: bool


def fit(spec: Spec, data: Data, task: str) -> Fit:
    """How a network serves a task: by its only output that has the right shape.

    Raises `SpecError` with everything that does not fit: channels, size, maps or classes.
    """
    graph = spec.graph
    problems = list(_input_problems(spec, data, task))
    if problems:
        raise SpecError(problems)
    shapes = graph.shapes((data.size, data.size))
    wanted = (data.outputs, data.size, data.size) if data.in_maps else (data.outputs,)
    fitting = [name for name, node in graph.outputs.items() if shapes[node] == wanted]
    path = "outputs" if "outputs" in spec.source.data else "layers"
    if len(fitting) != 1:
        found = ", ".join(f"{name} {_shown(shapes[node])}" for name, node in graph.outputs.items())
        number = "none of its outputs is" if not fitting else "more than one of its outputs is"
        what = "maps" if data.in_maps else "classes"
        hint = f"; set the number of {what} to {data.outputs}" if not fitting else "; keep one of them under outputs"
        message = f"{task} takes {_shown(wanted)} of an input of {data.size}x{data.size}; {number}: {found}{hint}"
        raise SpecError([_problem(spec, (path,), message)])
    last = graph[graph.outputs[fitting[0]]].op
    function = last.function if isinstance(last, Activation) else ""
    if function == PROBABILITIES[not data.in_maps]:
        message = (
            f"{task} takes logits, or what {PROBABILITIES[data.in_maps]} makes of them; the network ends in {function}"
        )
        raise SpecError([_problem(spec, (path,), message)])
    return Fit(fitting[0], logits=function != PROBABILITIES[data.in_maps])


def _input_problems(spec: Spec, data: Data, task: str) -> Iterator[Problem]:
    channels = _channels(spec.graph)
    if channels != data.channels:
        message = f"{task} gives images of {_counted(data.channels, 'channel')}, the network takes {channels}"
        yield _problem(spec, ("input", "channels"), f"{message}; set it to {data.channels}")
    else:
        try:
            spec.graph.shapes((data.size, data.size))
        except ShapeError as error:
            yield _problem(spec, ("input", "size"), f"{task} gives images of {data.size}x{data.size}: {error}")


def check_norms(spec: Spec, data: Data, recipe: Recipe) -> None:
    """See that every norm has two values at least of which it takes mean and variance; a batch norm, in each part that
    a batch is computed in.

    A single value has no variance, and what a norm makes of it is the same whatever it is. Raises `SpecError` with all
    norms that would see one.
    """
    graph = spec.graph
    shapes = graph.shapes((data.size, data.size))
    used = set(graph.outputs.values())
    for name in graph.outputs.values():
        used |= nx.ancestors(graph.structure, name)
    computed = used if recipe.optimize else graph.nodes.keys()  # what reaches no output is pruned
    told: dict[str, Problem] = {}
    for name in computed:
        node = graph[name]
        if isinstance(node.op, Norm) and node.op.averaged(shapes[name], recipe.batch // recipe.accumulate) == 1:
            origin = graph.layers[node.layer].origin if node.layer in graph.layers else spec.source.name
            message = f"{node.op.label} over a single value: {_single(node.op, data, recipe)}"
            told.setdefault(origin, Problem(origin, 0, 0, node.layer, message))
    if told:
        raise SpecError(told.values())


def _single(norm: Norm, data: Data, recipe: Recipe) -> str:
    """Why a norm sees a single value, and what to do."""
    cell = f"at an input of {data.size}x{data.size} its grid has one cell"
    if not isinstance(norm, BatchNorm):
        where = "it receives one channel" if isinstance(norm, LayerNorm) else cell
        groups = ", a group a channel" if isinstance(norm, GroupNorm) else ""
        return f"{where}{groups}, and what it returns would not depend on it; choose another norm here, or none"
    least = f"take {2 * recipe.accumulate} at least (--batch)"
    if recipe.accumulate > 1:
        least += ", or fewer parts (--accumulate)"
    return (
        f"{cell}, and of a batch of {recipe.batch} one example is computed at a time; {least}, or choose another norm "
        "here"
    )


def _channels(graph: Graph) -> int:
    return graph.shapes()[graph.input.name][0]


def _problem(spec: Spec, path: tuple[str, ...], message: str) -> Problem:
    mark = spec.source.locate(path)
    return Problem(mark.file, mark.line, mark.column, ".".join(path), message)


def _shown(shape: tuple[int, ...]) -> str:
    return f"{_counted(shape[0], 'map')} of {shape[1]}x{shape[2]}" if len(shape) == 3 else f"{shape[0]} classes"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
