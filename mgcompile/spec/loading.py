"""Specs from files, from the zoo, from Python data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from itertools import chain
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError

from mgcompile.errors import InputError, Problem, SpecError
from mgcompile.graph import Graph
from mgcompile.graph.collecting import collection_paused
from mgcompile.spec.base import Options, Path
from mgcompile.spec.budget import MOST_LAYERS, MOST_MISTAKES, Budget, Exhausted
from mgcompile.spec.document import Document, Param
from mgcompile.spec.elaboration import Elaboration
from mgcompile.spec.expressions import Expression, ExpressionError, escaped, evaluate
from mgcompile.spec.fields import marked
from mgcompile.spec.items import item_of, items_in
from mgcompile.spec.limits import check_length
from mgcompile.spec.problems import Mistakes
from mgcompile.spec.source import Source, parse_source, read_source, source_of_mapping
from mgcompile.spec.tree import kind_of
from mgcompile.spec.wording import listed, nearest, quoted, short
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
    large: bool
    """Whether it was allowed to be large."""
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
                key: {**value, "default": escaped(self.params[key])}
                if isinstance(value := params[key], dict)
                else escaped(self.params[key])
                for key in params
            }
        return data

    def to_yaml(self) -> str:
        """The spec as YAML text, with `extends` merged in and params as they were set."""
        return dump(self.data)

    def expand(self) -> Spec:
        """The canonical form: primitive layers in groups, without params, blocks, defaults and repeats, all named."""
        data: dict[str, Any] = {"version": 1, "name": escaped(self.name)}
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
        return load(data, allow_large=self.large)

    def _output(self, key: str) -> Any:
        output = self.document.outputs[key]
        return {"from": output.from_, "level": output.level.written()} if output.level else {"from": output.from_}


T = TypeVar("T", bound=Options)

SpecLike = str | os.PathLike[str] | Mapping[str, Any] | Spec
"""What is taken for a spec: a path, a name of the zoo, a mapping, a `Spec`."""


def load(
    source: SpecLike,
    *,
    params: Mapping[str, Any] | None = None,
    allow_outside: bool = False,
    allow_large: bool = False,
) -> Spec:
    """The checked spec that `source` leads to; `params` sets parameters as `--set` does.

    A file may extend specs below its folder and of the zoo; with `allow_outside` specs anywhere. What it comes to
    is bounded, so that it is read or refused in about a second; with `allow_large` it may be twenty times as much.

    Raises `SpecError` with the mistakes that were found.
    """
    if isinstance(source, Spec):
        if not params:
            return source
        return _checked(source.source, {**source.overrides, **params}, large=source.large or allow_large)
    return _checked(_read(source, allow_outside), dict(params or {}), large=allow_large)


def parse_spec(
    text: str | bytes,
    file: str,
    *,
    params: Mapping[str, Any] | None = None,
    allow_outside: bool = False,
    allow_large: bool = False,
    extends: bool = True,
) -> Spec:
    """The checked spec in a YAML text; `file` is the name to show. Raises `SpecError`.

    Without `extends` it must be whole and no other file is read, as for a text that came with weights; for
    `allow_outside` and `allow_large` see `load`.
    """
    source = parse_source(text, file, zoo=zoo_folder(), allow_outside=allow_outside, extends=extends)
    return _checked(source, dict(params or {}), large=allow_large)


def parse_param(text: str) -> tuple[str, Any]:
    """`name=value` as a name and a value, read as YAML. Raises `SpecError`."""
    name, equals, value = text.partition("=")
    shown = f"--set {short(text)}"
    if not equals or not name.strip() or value.splitlines() not in ([], [value]):
        raise SpecError([Problem(shown, 0, 0, "", "expected name=value, in one line")])
    try:
        return name.strip(), parse_source(f"value: {value}", shown, extends=False).data["value"]
    except SpecError as error:
        # Places in a text that nobody wrote would mislead.
        raise SpecError([Problem(shown, 0, 0, "", error.errors[0].message)]) from None


def zoo_folder() -> FilePath:
    """Where the specs that ship with mgcompile lie: in the installed package, or beside it in a checkout."""
    package = FilePath(__file__).parent.parent
    return package / "zoo" if (package / "zoo").is_dir() else package.parent / "specs"


def zoo_names() -> tuple[str, ...]:
    """The names of the specs that ship with mgcompile; family files, from which they extend, are not among them."""
    folder = zoo_folder()
    files = (path.relative_to(folder) for path in folder.glob("*/*.yaml"))
    return tuple(sorted(path.with_suffix("").as_posix() for path in files if not path.name.startswith("_")))


def _read(source: str | os.PathLike[str] | Mapping[str, Any], allow_outside: bool) -> Source:
    zoo = zoo_folder()
    if isinstance(source, Mapping):
        return source_of_mapping(source, zoo=zoo, allow_outside=allow_outside)
    try:
        name = os.fsdecode(source)
    except TypeError:
        expected = "expected a spec: a path, a name of the zoo, a mapping or a Spec"
        raise InputError(f"{expected}, found {kind_of(source)}") from None
    if not os.path.lexists(name) and not name.endswith((".yaml", ".yml", ".json")):
        folder, _, member = name.partition("/")
        # As `zoo_names` has it, without looking through all of them.
        if folder not in ("", ".", "..") and member[:1] not in ("", "_") and "/" not in member:
            path = zoo / folder / f"{member}.yaml"
            if path.is_file():
                return read_source(path, zoo=zoo, allow_outside=allow_outside)
        near = get_close_matches(name, zoo_names(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`mgcompile list` names those that ship with it"
        raise SpecError([Problem(name, 0, 0, "", f"no such file, and no spec of the zoo has this name; {hint}")])
    return read_source(name, zoo=zoo, allow_outside=allow_outside)


def _checked(source: Source, overrides: Mapping[str, Any], *, large: bool) -> Spec:
    with collection_paused():
        return _Check(source, overrides, large=large).spec()


class _Check:
    """One spec on its way from a source; what is wrong with it is collected."""

    def __init__(self, source: Source, overrides: Mapping[str, Any], *, large: bool) -> None:
        self.source = source
        self.large = large
        self.budget = Budget(large=large)
        self.mistakes = Mistakes(source)
        self.overrides: Mapping[str, Any] = marked(_plain_overrides(overrides))
        try:
            self.data = marked(source.data, self.budget)
        except Exhausted as error:
            self.mistakes.at((), str(error))
            self.mistakes.raise_if_any()

    def spec(self) -> Spec:
        """The spec. Raises `SpecError`."""
        document = self._document()
        try:
            if problem := check_length(document, self.source, self.overrides, self.budget):
                self.mistakes.add(problem)
                self.mistakes.raise_if_any()
            if len(self.mistakes) >= MOST_MISTAKES:  # how single layers would fit together is not looked at
                self.mistakes.raise_if_any()
            before = len(self.mistakes)
            params = self._params(document)
            if len(self.mistakes) == before:
                document = self._bound(document, params)
            if len(self.mistakes) > before:
                self.mistakes.raise_if_any()
            name = self._name(document, params)
        except Exhausted as error:
            self.mistakes.at(("params",), str(error))
            raise SpecError(self.mistakes.problems, self.mistakes.more) from None
        elaboration = Elaboration(document, self.source, params, name, self.budget)
        graph = elaboration.run()
        self.mistakes.add(*elaboration.problems)
        self.mistakes.raise_if_any()
        elaboration.faults.raise_if_any()
        assert graph is not None, "there is a graph where there are no mistakes"
        made = graph, elaboration.canonical
        return Spec(name, document, params, self.source, dict(self.overrides), self.large, made)

    def _document(self) -> Document:
        try:
            document = Document.model_validate(self.data)
        except ValidationError as error:
            self.mistakes.validation(error, (), Document)
            self._faults_in_layers()
            self.mistakes.raise_if_any()
            raise
        self.mistakes.faults(document.defaults.faults, ("defaults",))
        for where, item in chain(items_in(document, ()), items_in(document.defaults.options, ("defaults",))):
            self.mistakes.faults(item.faults, where)
        return document

    def _faults_in_layers(self) -> None:
        """Note what is wrong with single layers of a spec that is no document."""
        blocks = self.data.get("blocks")
        lists: dict[Path, Any] = {("layers",): self.data.get("layers")}
        if isinstance(blocks, dict):
            lists |= {
                ("blocks", key, "layers"): block.get("layers")
                for key, block in blocks.items()
                if isinstance(block, dict)
            }
        for path, items in lists.items():
            for index, item in enumerate(items if isinstance(items, list) and len(items) <= MOST_LAYERS else []):
                for where, inner in items_in(item_of(item), (*path, index)):
                    self.mistakes.faults(inner.faults, where)

    def _params(self, document: Document) -> dict[str, Any]:
        for name in self.overrides.keys() - document.params.keys():
            near = nearest(name, document.params)
            hint = f"did you mean {near}?" if near else f"it has {listed(document.params)}"
            self._set_problem(name, f"the spec has no such param; {hint}")
        values: dict[str, Any] = {}
        for name, param in document.params.items():
            values[name], problem = self._param(name, param, values)
            if problem and name in self.overrides:
                self._set_problem(name, problem)
            elif problem:
                self.mistakes.at(("params", name), problem)
        return values

    def _set_problem(self, name: str, message: str) -> None:
        self.mistakes.add(Problem(self.source.name, 0, 0, "", f"--set {_cut_name(name)}: {message}"))

    def _param(self, name: str, param: Param, earlier: Mapping[str, Any]) -> tuple[Any, str]:
        """The value of a param, and what is wrong with it."""
        try:
            param = param.bind(lambda text, path: evaluate(text, earlier, self.budget))
            value = _resolved(self.overrides.get(name, param.default), earlier, self.budget)
        except ExpressionError as error:
            return 0, f"{error}; a param knows those above it"
        except ValidationError as error:
            return 0, error.errors()[0]["msg"]
        if value is None:
            return 0, "it has no value; give it one here, or from outside with --set"
        return param.taken(value), param.problem(value)

    def _bound(self, document: Document, params: Mapping[str, Any]) -> Document:
        """The document with the values of expressions in its input and outputs."""
        outputs = {name: self._options(output, params, "outputs", name) for name, output in document.outputs.items()}
        return document.model_copy(update={"input": self._options(document.input, params, "input"), "outputs": outputs})

    def _options(self, options: T, params: Mapping[str, Any], *where: str) -> T:
        try:
            return options.bind(lambda text, path: evaluate(text, params, self.budget))
        except ExpressionError as error:
            self.mistakes.at(where, str(error))
        except ValidationError as error:
            self.mistakes.validation(error, where, type(options))
        return options

    def _name(self, document: Document, params: Mapping[str, Any]) -> str:
        try:
            return str(_resolved(document.name, params, self.budget))
        except ExpressionError as error:
            self.mistakes.at(("name",), str(error))
        return "network"


def _plain_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Params that were set from outside, as plain data. Raises `SpecError` for what no spec can hold."""
    try:
        data: dict[str, Any] = source_of_mapping({"params": overrides}).data["params"]
    except SpecError as error:
        raise SpecError([Problem("params", 0, 0, each.path, each.message) for each in error.errors]) from None
    return data


def _cut_name(name: str) -> str:
    return name if name.isidentifier() and len(name) <= 60 else quoted(name)


def _resolved(value: Any, names: Mapping[str, Any], budget: Budget) -> Any:
    """A value whose expressions, in lists too, are evaluated. Raises `ExpressionError`."""
    if isinstance(value, list):
        return [_resolved(item, names, budget) for item in value]
    return evaluate(value, names, budget) if isinstance(value, Expression) else value
