"""Specs from files, from the zoo, from Python data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from itertools import chain
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError

from mgcompile.errors import Problem, SpecError
from mgcompile.graph import Graph
from mgcompile.graph.collecting import collection_paused
from mgcompile.spec.base import Options, Path
from mgcompile.spec.document import Document, Param
from mgcompile.spec.elaboration import Elaboration
from mgcompile.spec.expressions import ExpressionError, evaluate, has_expression
from mgcompile.spec.items import MOST_LAYERS, item_of, items_in
from mgcompile.spec.limits import check_length
from mgcompile.spec.problems import fault_problems, validation_problems
from mgcompile.spec.source import Source, parse_source, read_source, source_of_mapping
from mgcompile.spec.tree import path_text
from mgcompile.spec.writing import dump, plain

__all__ = ["Spec", "SpecLike", "load", "parse_param", "parse_spec", "zoo_folder", "zoo_names"]


@dataclass(frozen=True)
class Spec:
    """A checked spec: the document, its params with their values, its graph."""

    name: str
    document: Document
    params: Mapping[str, Any]
    source: Source = field(repr=False)
    overrides: Mapping[str, Any]
    _elaborated: tuple[Graph, list[dict[str, Any]]] = field(repr=False, compare=False)

    @property
    def graph(self) -> Graph:
        """The graph that the spec means; nobody may change it."""
        return self._elaborated[0]

    @cached_property
    def data(self) -> dict[str, Any]:
        """The spec as plain data, with `extends` merged in and params as they were set."""
        data = {key: value for key, value in self.source.data.items() if key != "extends"}
        if self.params:
            params = data.get("params", {})
            data["params"] = {
                key: {**value, "default": self.params[key]}
                if isinstance(value := params[key], dict)
                else self.params[key]
                for key in params
            }
        return data

    def to_yaml(self) -> str:
        """The spec as YAML text, with `extends` merged in and params as they were set."""
        return dump(self.data)

    def expand(self) -> Spec:
        """The canonical form: primitive layers in groups, without params, blocks, defaults and repeats, all named."""
        data: dict[str, Any] = {"version": 1, "name": self.name}
        if self.document.description:
            data["description"] = self.document.description
        height, width = self.document.input.size
        data["input"] = {
            "channels": self.document.input.channels,
            "size": height if height == width else [height, width],
        }
        data["layers"] = plain(self._elaborated[1])
        if self.document.outputs:
            data["outputs"] = {key: self._output(key) for key in self.document.outputs}
        return load(data)

    def _output(self, key: str) -> Any:
        output = self.document.outputs[key]
        return {"from": output.from_, "level": output.level.written()} if output.level else {"from": output.from_}


T = TypeVar("T", bound=Options)

ENOUGH = 1_000
"""With more mistakes than so many in single layers, how these would fit together is not looked at."""

SpecLike = str | os.PathLike[str] | Mapping[str, Any] | Spec
"""What is taken for a spec: a path, a name of the zoo, a mapping, a `Spec`."""


def load(source: SpecLike, *, params: Mapping[str, Any] | None = None) -> Spec:
    """The checked spec that `source` leads to; `params` sets parameters as `--set` does.

    Raises `SpecError` with every mistake that was found.
    """
    if isinstance(source, Spec):
        if not params:
            return source
        return _checked(source.source, {**source.overrides, **params})
    return _checked(_read(source), dict(params or {}))


def parse_spec(text: str | bytes, file: str, *, params: Mapping[str, Any] | None = None) -> Spec:
    """The checked spec in a YAML text; `file` is the name to show. Raises `SpecError`."""
    return _checked(parse_source(text, file, zoo=zoo_folder()), dict(params or {}))


def parse_param(text: str) -> tuple[str, Any]:
    """`name=value` as a name and a value, read as YAML. Raises `SpecError`."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or "\n" in value:
        raise SpecError([Problem(f"--set {text}", 0, 0, "", "expected name=value")])
    try:
        return name.strip(), parse_source(f"value: {value}", text).data["value"]
    except SpecError as error:
        # Places in a text that nobody wrote would mislead.
        raise SpecError([Problem(f"--set {text}", 0, 0, "", error.errors[0].message)]) from None


def zoo_folder() -> FilePath:
    """Where the specs that ship with mgcompile lie: in the installed package, or beside it in a checkout."""
    package = FilePath(__file__).parent.parent
    return package / "zoo" if (package / "zoo").is_dir() else package.parent / "specs"


def zoo_names() -> tuple[str, ...]:
    """The names of the specs that ship with mgcompile; family files, from which they extend, are not among them."""
    folder = zoo_folder()
    files = (path.relative_to(folder) for path in folder.glob("*/*.yaml"))
    return tuple(sorted(path.with_suffix("").as_posix() for path in files if not path.name.startswith("_")))


def _read(source: str | os.PathLike[str] | Mapping[str, Any]) -> Source:
    zoo = zoo_folder()
    if isinstance(source, Mapping):
        return source_of_mapping(source, zoo=zoo)
    name = os.fspath(source)
    if not os.path.lexists(name) and not name.endswith((".yaml", ".yml", ".json")):
        folder, _, member = name.partition("/")
        # As `zoo_names` has it, without looking through all of them.
        if folder not in ("", ".", "..") and member[:1] not in ("", "_") and "/" not in member:
            path = zoo / folder / f"{member}.yaml"
            if path.is_file():
                return read_source(path, zoo=zoo)
        near = get_close_matches(name, zoo_names(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`mgcompile list` names those that ship with it"
        raise SpecError([Problem(name, 0, 0, "", f"no such file, and no spec of the zoo has this name; {hint}")])
    return read_source(name, zoo=zoo)


def _checked(source: Source, overrides: Mapping[str, Any]) -> Spec:
    with collection_paused():
        return _elaborated(source, overrides)


def _elaborated(source: Source, overrides: Mapping[str, Any]) -> Spec:
    try:
        document = Document.model_validate(source.data)
    except ValidationError as error:
        problems = [*validation_problems(error, source, (), Document), *_faults_in_layers(source)]
        raise SpecError(problems) from None
    problems = list(fault_problems(document.defaults.faults, source, ("defaults",)))
    for where, item in chain(items_in(document, ()), items_in(document.defaults.options, ("defaults",))):
        problems += fault_problems(item.faults, source, where)
    if too_long := check_length(document, source, overrides):
        raise SpecError([*problems, too_long])
    if len(problems) > ENOUGH:
        raise SpecError(problems)
    params, wrong = _params(document, source, overrides)
    if wrong:
        raise SpecError([*problems, *wrong])
    document, unbound = _bound(document, source, params)
    if unbound:
        raise SpecError([*problems, *unbound])
    name, bad_name = _name(document, source, params)
    elaboration = Elaboration(document, source, params, name)
    graph = elaboration.run()
    if graph is None or problems or bad_name:
        raise SpecError([*problems, *bad_name, *elaboration.problems] or elaboration.faults)
    return Spec(name, document, params, source, dict(overrides), (graph, elaboration.canonical))


def _faults_in_layers(source: Source) -> Iterator[Problem]:
    """What is wrong with single layers of a spec that is no document."""
    blocks = source.data.get("blocks")
    lists: dict[Path, Any] = {("layers",): source.data.get("layers")}
    if isinstance(blocks, dict):
        lists |= {
            ("blocks", key, "layers"): block.get("layers") for key, block in blocks.items() if isinstance(block, dict)
        }
    for path, items in lists.items():
        for index, item in enumerate(items if isinstance(items, list) and len(items) <= MOST_LAYERS else []):
            for where, inner in items_in(item_of(item), (*path, index)):
                yield from fault_problems(inner.faults, source, where)


def _params(document: Document, source: Source, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    problems = []
    for name in overrides.keys() - document.params.keys():
        near = get_close_matches(name, document.params, 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(document.params) or 'none'}"
        problems.append(Problem(source.name, 0, 0, "", f"--set {name}: the spec has no such param; {hint}"))
    values: dict[str, Any] = {}
    for name, param in document.params.items():
        value, problem = _param(name, param, overrides, values)
        values[name] = value
        if problem and name in overrides:
            problems.append(Problem(source.name, 0, 0, "", f"--set {name}: {problem}"))
        elif problem:
            mark = source.locate(("params", name))
            problems.append(Problem(mark.file, mark.line, mark.column, path_text(("params", name)), problem))
    return values, problems


def _param(name: str, param: Param, overrides: Mapping[str, Any], earlier: Mapping[str, Any]) -> tuple[Any, str]:
    value = overrides.get(name, param.default)
    try:
        param = param.bind(lambda text, path: evaluate(text, earlier))
    except ExpressionError as error:
        return 0, f"{error}; a param knows those above it"
    except ValidationError as error:
        return 0, error.errors()[0]["msg"]
    if value is None:
        return 0, "it has no value; give it one here, or from outside with --set"
    try:
        value = resolved(value, earlier)
    except ExpressionError as error:
        return 0, f"{error}; a param knows those above it"
    return value, param.problem(value)


def resolved(value: Any, names: Mapping[str, Any]) -> Any:
    """A value whose expressions, in lists too, are evaluated. Raises `ExpressionError`."""
    if isinstance(value, list):
        return [resolved(item, names) for item in value]
    return evaluate(value, names) if isinstance(value, str) and has_expression(value) else value


def _bound(document: Document, source: Source, params: Mapping[str, Any]) -> tuple[Document, list[Problem]]:
    """The document with the values of expressions in its input and outputs."""
    problems: list[Problem] = []

    def bound(options: T, *where: str) -> T:
        try:
            return options.bind(lambda text, path: evaluate(text, params))
        except ExpressionError as error:
            mark = source.locate(where)
            problems.append(Problem(mark.file, mark.line, mark.column, path_text(where), str(error)))
        except ValidationError as error:
            problems.extend(validation_problems(error, source, where, type(options)))
        return options

    outputs = {name: bound(output, "outputs", name) for name, output in document.outputs.items()}
    update = {"input": bound(document.input, "input"), "outputs": outputs}
    return document.model_copy(update=update), problems


def _name(document: Document, source: Source, params: Mapping[str, Any]) -> tuple[str, list[Problem]]:
    try:
        return str(resolved(document.name, params)), []
    except ExpressionError as error:
        mark = source.locate(("name",))
        return document.name, [Problem(mark.file, mark.line, mark.column, "name", str(error))]
