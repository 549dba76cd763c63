"""What a layer is: a validated set of options that either builds nodes or expands to other layers.

A layer sees its surroundings through a `Place`: the pyramid that it receives, where to add nodes, whom to tell of
mistakes. What it expands to are `Step`s, the form in which the elaboration handles every layer of a spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import is_
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from mgcompile.errors import MgcompileError
from mgcompile.graph import Grid, Value
from mgcompile.graph.ops import Op
from mgcompile.spec.budget import MOST_MISTAKES
from mgcompile.spec.expressions import Expression
from mgcompile.spec.fields import Bool, LevelChoice, Reference

if TYPE_CHECKING:
    from mgcompile.graph.builder import GraphBuilder
    from mgcompile.spec.elaboration import Elaboration
    from mgcompile.spec.scopes import Scope

__all__ = [
    "MANY_UNKNOWN",
    "LayerError",
    "LayerSpec",
    "Options",
    "Path",
    "Place",
    "Pyramid",
    "Share",
    "Step",
    "refuse_unread",
    "widths_of",
]

Path = tuple[str | int, ...]
"""Where something stands in a spec: ("layers", 5, "conv", "channels")."""

Pyramid = Mapping[int, str]
"""The grids at one point: level -> node name, fine to coarse."""


Built = TypeVar("Built", bound="LayerSpec")


MANY_UNKNOWN = "many_unknown"
"""The type of pydantic's error for a mapping with more than `MOST_MISTAKES` unknown keys."""


class LayerError(MgcompileError):
    """A layer does not fit where it stands. `option` is the path of the option at fault, within the layer."""

    def __init__(self, message: str, *option: str | int) -> None:
        super().__init__(message)
        self.option = option


class Options(BaseModel):
    """A set of options: unknown ones are refused; a bare value means the option that `shorthand` names."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=False,
        defer_build=True,
        alias_generator=lambda name: name.removesuffix("_"),
        populate_by_name=True,
    )

    shorthand: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _accept_bare(cls, value: Any) -> Any:
        value = cls.spread(value) if cls.is_bare(value) else value
        if isinstance(value, Mapping) and len(value) > MOST_MISTAKES + len(cls.model_fields):
            cls._refuse_many(value)
        return value

    @classmethod
    def _refuse_many(cls, value: Mapping[str, Any]) -> None:
        """Refuse a mapping with very many unknown keys, of each of which pydantic would make an error."""
        known = {name.removesuffix("_") for name in cls.model_fields}
        unknown = [key for key in value if key not in known]
        if len(unknown) > MOST_MISTAKES:
            about = {"keys": unknown[:MOST_MISTAKES], "more": len(unknown) - MOST_MISTAKES}
            raise PydanticCustomError(MANY_UNKNOWN, "too many options", about)

    @classmethod
    def is_bare(cls, value: Any) -> bool:
        """Whether a value stands for one option rather than being a mapping of options."""
        return not isinstance(value, Mapping | BaseModel)

    @classmethod
    def spread(cls, value: Any) -> Any:
        """A bare value as a mapping of options."""
        if value is None and not cls.shorthand:
            return {}
        return {cls.shorthand: value} if cls.shorthand else value

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """The options that have no effect beside the others: each with the options that decide so, and the reason."""
        return iter(())

    @property
    def given(self) -> dict[str, Any]:
        """What was said, by option. An extra option may be called like a method, so it is not read as an attribute."""
        extra = self.__pydantic_extra__ or {}
        return {name: extra[name] if name in extra else getattr(self, name) for name in self.model_fields_set}

    def bind(self, evaluate: Callable[[Expression, Path], Any]) -> Self:
        """These options with every expression replaced by its value; lists of layers keep theirs. Each value is checked
        as if it had been written, and none is an expression again. Raises what `evaluate` raises, and pydantic's
        `ValidationError` where a value is not what the option expects.
        """
        given = self.given
        bound = {name: _bound(value, evaluate, (name.removesuffix("_"),)) for name, value in given.items()}
        if all(bound[name] is given[name] for name in given):
            return self
        return self.model_validate(bound)


def _holds_expression(value: Any) -> bool:
    if isinstance(value, Options):
        return any(map(_holds_expression, value.given.values()))
    return isinstance(value, Expression) or (isinstance(value, list) and any(map(_holds_expression, value)))


def refuse_unread(written: Options, merged: Options, bound: Options, path: Path = ()) -> None:
    """Raise `LayerError` where an option was written that nothing reads.

    `written` is what stands in the spec, `merged` the same with defaults, `bound` with values. Where an expression
    decides what is read, an option may wait for its other values.
    """
    for option, deciders, reason in bound.unread():
        fixed = not any(_holds_expression(getattr(merged, decider)) for decider in deciders)
        if option in written.model_fields_set and fixed:
            name = option.removesuffix("_")
            raise LayerError(f"nothing reads {name}: {reason}", *path, name)
    for option in written.model_fields_set & bound.model_fields_set:
        inner = getattr(written, option), getattr(merged, option), getattr(bound, option)
        if all(isinstance(each, Options) for each in inner):
            refuse_unread(*inner, (*path, option.removesuffix("_")))


def _bound(value: Any, evaluate: Callable[[Expression, Path], Any], path: Path) -> Any:
    if isinstance(value, Expression):
        return evaluate(value, path)
    if isinstance(value, list):
        items = [_bound(item, evaluate, (*path, index)) for index, item in enumerate(value)]
        return value if all(map(is_, items, value)) else items
    if isinstance(value, dict):
        named = {key: _bound(item, evaluate, (*path, key)) for key, item in value.items()}
        return value if all(map(is_, named.values(), value.values())) else named
    return value.bind(lambda text, inner: evaluate(text, (*path, *inner))) if isinstance(value, Options) else value


class Share(Options):
    """One set of weights in several places. `share: levels` and `share: repeats` are short forms."""

    levels: Bool | None = None
    """Whether all levels use one set."""
    repeats: Bool = False
    """Whether all repeats of this layer use one set (a recurrent network)."""
    with_: Reference | None = None
    """The id of an earlier layer of equal structure, whose weights are used."""
    norm: Bool = True
    """Whether normalisations are shared too; else each place keeps its own."""

    @classmethod
    def spread(cls, value: Any) -> Any:
        return {value: True} if value in ("levels", "repeats") else value

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        if self.with_ is not None:
            yield "levels", ("with_",), "the weights of another layer are shared as they are there"


@dataclass(frozen=True, slots=True)
class Step:
    """One layer on its way through the elaboration: written by a user, or made by a layer that expands.

    Either `layer` or `steps` (a group) is set. `where` is the place in the spec to blame; `user` tells whether names
    inside are the user's. `names` adds to, or with `closed` replaces, what expressions know.
    """

    id: str = ""
    layer: LayerSpec | None = None
    steps: tuple[Step, ...] = ()
    from_: str | None = None
    on: Any = None
    repeat: Any = None
    share: Share | None = None
    where: Path = ()
    user: bool = False
    names: Mapping[str, Any] = field(default_factory=dict)
    closed: bool = False
    lands: int | None = None
    block: str = ""
    defaulted: bool = False
    unknown: bool = False


class LayerSpec(Options):
    """A layer's options. A sugar layer overrides `expand`, a primitive one `build`; one that is either, both."""

    kind: ClassVar[str]
    """The key of the layer in a spec."""
    follows: ClassVar[str] = ""
    """Another layer whose defaults hold here too, where they are not said for this one."""

    @classmethod
    def kinds(cls) -> list[str]:
        """The layers whose defaults hold for this one; what later ones say counts more."""
        names = [
            name for base in reversed(cls.__mro__) for name in (getattr(base, "follows", ""), getattr(base, "kind", ""))
        ]
        return list(dict.fromkeys(filter(None, names)))

    @classmethod
    def made(cls, **values: Any) -> Self:
        """A layer that mgcompile itself makes, of values that have been validated before."""
        made: Self = _blank(cls).model_copy(update=values)
        return made

    def expand(self, place: Place) -> Sequence[Step] | None:
        """What this layer stands for at this place, or None where it is primitive. A single step without an id takes
        this layer's place and name; otherwise they form a group. Raises `LayerError`.
        """
        return None

    def build(self, place: Place) -> Pyramid:
        """Add this layer's nodes; the pyramid that results. Raises `LayerError` and `ShapeError`."""
        raise NotImplementedError(self.kind)

    def check(self) -> None:
        """Whatever can be said against the options without a place. Raises `LayerError`."""

    def canonical(self, place: Place) -> LayerSpec:
        """The same layer with what it takes from its place said; for primitive layers."""
        return self

    def as_read(self) -> Self:
        """The same layer without what nothing reads, which defaults for several layers may have said."""
        fields = type(self).model_fields
        defaults = {option: fields[option].get_default(call_default_factory=True) for option, _, _ in self.unread()}
        unread = {option: value for option, value in defaults.items() if getattr(self, option) != value}
        return self.model_copy(update=unread) if unread else self


@cache
def _blank(cls: type[Built]) -> Built:
    return cls.model_construct()


@dataclass
class Place:
    """Where a layer stands: what it receives, under which name it adds nodes, whom it tells of mistakes.

    `where` is the path of the options that the user wrote: those of this layer, or of the one that expanded to it.
    """

    elaboration: Elaboration
    scope: Scope
    path: str
    where: Path
    kind: str
    pyramid: Pyramid

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels received, fine to coarse."""
        return tuple(self.pyramid)

    @property
    def channels(self) -> dict[int, int]:
        """The channels (or features) received at each level."""
        return self.widths(self.pyramid)

    def look(self, reference: str, *option: str | int) -> Pyramid:
        """The pyramid that a reference leads to. Raises `LayerError` where it leads nowhere."""
        return self.elaboration.references.look(reference, self._around, option)

    def widths(self, pyramid: Pyramid) -> dict[int, int]:
        """The channels (or features) of a pyramid's grids."""
        return widths_of(pyramid, self.elaboration.builder)

    @property
    def _around(self) -> Scope:
        """The scope in which the layer itself stands."""
        return self.scope.parent or self.scope

    def value(self, level: int) -> Value:
        """The type of what is received at a level."""
        return self.elaboration.builder.types[self.pyramid[level]]

    def grids(self) -> dict[int, Grid]:
        """The types received, all of which must be grids. Raises `LayerError` otherwise."""
        values = {level: self.value(level) for level in self.pyramid}
        grids = {level: value for level, value in values.items() if isinstance(value, Grid)}
        if len(grids) < len(values):
            raise LayerError(f"{self.kind} acts on grids and receives {next(iter(values.values()))}")
        return grids

    def each(self, value: Any, *option: str | int) -> dict[int, Any]:
        """An option's value for each grid received. A list of another length is a mistake of the user; the elaboration
        goes on with a guess so as to find others.
        """
        if not isinstance(value, list):
            return dict.fromkeys(self.pyramid, value)
        if len(value) != len(self.pyramid):
            grids = f"{len(self.pyramid)} grid{'s' * (len(self.pyramid) != 1)}"
            levels = f"level{'s' * (len(self.pyramid) != 1)} {', '.join(map(str, self.pyramid))}"
            self.report(
                f"{len(value)} value{'s' * (len(value) != 1)} for {grids} ({levels}); "
                "give one a grid, fine to coarse, or one for all",
                *option,
            )
            value = (value + value[-1:] * len(self.pyramid))[: len(self.pyramid)]
        return dict(zip(self.pyramid, value, strict=True))

    def report(self, message: str, *option: str | int) -> None:
        """Note a mistake and go on."""
        self.elaboration.report((*self.where, *option), message)

    def add(self, op: Op, inputs: Sequence[str], level: int, part: str = "") -> str:
        """Add a node for this layer at a level; its name."""
        return self.elaboration.add_node(self, op, inputs, level, part)

    def apply(self, make: Callable[[int], Op]) -> Pyramid:
        """One operation on every grid, at its level."""
        return {level: self.add(make(level), [node], level) for level, node in self.pyramid.items()}

    def steps(self, items: Sequence[Any], *option: str | int) -> tuple[Step, ...]:
        """A list of layers that is the value of one of this layer's options."""
        return self.elaboration.steps(items, (*self.where, *option))

    def written(self, items: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
        """Layers that mgcompile itself writes in the language."""
        return self.elaboration.written(items, self.where)

    def absolute(self, reference: str, *option: str | int) -> str:
        """A user's reference as one that means the same everywhere. Raises `LayerError` where it leads nowhere."""
        return self.elaboration.references.absolute(reference, self._around, option)

    def step(self, layer: LayerSpec, id: str = "", **common: Any) -> Step:
        """A step made by this layer."""
        return Step(id=id, layer=layer, where=self.where, **common)

    def group(self, steps: Sequence[Step], id: str = "", **common: Any) -> Step:
        """A group made by this layer."""
        return Step(id=id, steps=tuple(steps), where=self.where, **common)

    def pick(self, choice: LevelChoice, *option: str | int) -> tuple[int, ...]:
        """The chosen levels of those received. Raises `LayerError` where one is not there."""
        levels = choice.pick(self.levels)
        if missing := [level for level in levels if level not in self.pyramid]:
            raise LayerError(
                f"there is no grid at level {_listed(missing)}; there are levels {_listed(self.levels)}", *option
            )
        if not levels:
            raise LayerError(f"no level is left of {_listed(self.levels)}", *option)
        return levels


def widths_of(pyramid: Pyramid, builder: GraphBuilder) -> dict[int, int]:
    """The channels of each grid, the features of each vector."""
    values = {level: builder.types[node] for level, node in pyramid.items()}
    return {level: value.channels if isinstance(value, Grid) else value.features for level, value in values.items()}


def _listed(levels: Sequence[int]) -> str:
    return ", ".join(map(str, levels)) or "none"
