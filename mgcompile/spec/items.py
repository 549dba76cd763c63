"""One item of a list of layers: a layer under its key, and the options that every layer has.

Items are validated one by one, each against the classes that it names, so that a spec pays for the layers that it uses
and one wrong item does not hide the mistakes of the others: it carries its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, create_model
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from mgcompile.spec.base import Options, Path, Share
from mgcompile.spec.budget import MOST_LAYERS
from mgcompile.spec.fields import Identifier, Levels, Reference, Repeat, marked
from mgcompile.spec.wording import nearest, quoted, show

if TYPE_CHECKING:
    from mgcompile.spec.base import LayerSpec

__all__ = [
    "COMMON",
    "LAYERS_SCHEMA",
    "CommonOptions",
    "Defaults",
    "Fault",
    "Item",
    "ItemList",
    "Layers",
    "items_in",
    "layer_classes",
]


class CommonOptions(Options):
    """What every layer can be told, beside its own options."""

    id: Identifier | None = None
    """The layer's name: for `from` and `join`, and in the names of parameters."""
    from_: Reference | None = None
    """The id of the earlier layer to read; `input`, `start` (what the enclosing group received) or, where it is not
    said, `previous`.
    """
    on: Levels | None = None
    """The levels that the layer acts on; the others pass through."""
    repeat: Repeat | None = None
    """How often the layer stands here, one after the other, each with weights of its own."""
    share: Share | None = None
    """Which weights are one set: those of all `levels`, of all `repeats`, or those of an earlier layer (`with`)."""


COMMON = frozenset(name.removesuffix("_") for name in CommonOptions.model_fields)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A key that no layer and nothing beside a layer has; as text the message. `kind` is the layer beside it."""

    key: str
    what: str
    kind: str = ""

    def __str__(self) -> str:
        if self.kind and any(self.key == name.removesuffix("_") for name in layer_classes()[self.kind].model_fields):
            where = f"it belongs under `{self.kind}:`, further to the right"
            return f"`{self.key}` is an option of {self.kind}: {where}"
        return _unknown(self.key, self.what)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in an item: pydantic's error for a `model` at a path within it, or words of our own.

    Words may be made when they are read: there can be more faults than anybody reads. `reserved` are words without what
    was found.
    """

    path: Path
    error: ValidationError | str | Unknown
    model: type[BaseModel] | None = None
    reserved: str = "no layer"


@dataclass(frozen=True, slots=True)
class Item:
    """A layer (None where it cannot be told) with the options that every layer has, and what is wrong with them."""

    layer: LayerSpec | None
    common: CommonOptions
    faults: tuple[Fault, ...] = ()


def item_of(value: Any) -> Item:
    """The item that a value of a list of layers means, as it was written: a text with `${...}` is an expression."""
    return _item(marked(value))


def _item(value: Any) -> Item:
    """The item that a value means in which expressions are marked."""
    if isinstance(value, str):
        if value not in layer_classes():
            return Item(None, CommonOptions(), (Fault((), Unknown(value, "layer"), reserved="an unknown layer"),))
        value = {value: None}
    if not isinstance(value, Mapping):
        message = f"expected a layer, a mapping such as {{conv: {{channels: 64}}}}, found {show(value)}"
        return Item(None, CommonOptions(), (Fault((), message),))
    kinds = [key for key in value if key in layer_classes()]
    what = "key" if kinds else "layer"
    faults = [
        Fault((key,), Unknown(key, what, kinds[0] if kinds else ""), reserved=f"an unknown {what}")
        for key in value
        if key not in kinds and key not in COMMON
    ]
    if len(kinds) > 1:
        faults.append(Fault((), f"an item is one layer, found {' and '.join(kinds)}: make them two items of the list"))
    if not kinds and not faults:
        faults.append(Fault((), f"no layer; expected one of {', '.join(layer_classes())}"))
    common = _validated(CommonOptions, {key: value[key] for key in value if key in COMMON}, (), faults)
    # A bare layer has its defaults: null, which means `none` as an option's value, does not switch it off.
    given = {kind: {} if value[kind] is None else value[kind] for kind in kinds}
    layers = [_validated(layer_classes()[kind], given[kind], (kind,), faults) for kind in kinds]
    return Item(layers[0] if layers else None, common or CommonOptions(), tuple(faults))


def items_in(value: Any, path: Path) -> Iterator[tuple[Path, Item]]:
    """All items in an option's value (options, lists, mappings), those inside other items too, with their paths."""
    if isinstance(value, Item):
        yield path, value
        if value.layer is not None:
            yield from items_in(value.layer, (*path, value.layer.kind))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if isinstance(inner, Item | list):
                yield from items_in(inner, (*path, index))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from items_in(inner, (*path, key))
    elif isinstance(value, Options):
        for name in value.model_fields_set:
            if isinstance(inner := getattr(value, name), list | Options | Mapping):
                yield from items_in(inner, (*path, name.removesuffix("_")))


@cache
def layer_classes() -> Mapping[str, type[LayerSpec]]:
    """Every layer by its key."""
    # Layers hold lists of items, and an item holds any layer: this is where the circle closes.
    from mgcompile.spec.layers import LAYERS

    return LAYERS


def _validated(cls: type[Any], value: Any, path: Path, faults: list[Fault]) -> Any:
    try:
        return cls.model_validate(value)
    except ValidationError as error:
        faults.append(Fault(path, error, cls))
        return None


OTHER_NAMES = {
    **dict.fromkeys(("add", "plus", "sum", "skip"), "`join: {with: ID, fuse: sum}`, or `residual` for a shortcut"),
    **dict.fromkeys(("concat", "concatenate", "cat", "merge", "route"), "`join: ID`, which concatenates"),
    **dict.fromkeys(("mul", "multiply", "product", "scale"), "`join: {with: ID, fuse: product}`, or `gate`"),
    **dict.fromkeys(("maxpool", "maxpool2d", "maxpooling", "maxpooling2d", "downsample"), "`pool: {by: max}`"),
    **dict.fromkeys(("avgpool", "avgpool2d", "averagepooling2d", "meanpool"), "`pool: {by: avg}`"),
    **dict.fromkeys(("gap", "globalavgpool", "globalaveragepooling2d", "adaptiveavgpool2d"), "`global_pool: avg`"),
    **dict.fromkeys(("upsample", "upsampling2d", "interpolate", "resize", "unpool"), "`up: {by: nearest}`"),
    **dict.fromkeys(("deconv", "convtranspose", "convtranspose2d", "conv2dtranspose"), "`up: {by: transposed}`"),
    **dict.fromkeys(("dense", "fc", "fullyconnected"), "`linear`, or `classify` for the head"),
    **dict.fromkeys(("batchnorm", "batchnorm2d", "bn", "batchnormalization"), "`norm: batch`"),
    **{name: f"`act: {name}`" for name in ("relu", "gelu", "silu", "elu", "mish", "sigmoid", "softmax", "tanh")},
}
"""Layers as other tools call them, without underscores, and what to write."""


@lru_cache(maxsize=1024)
def _unknown(key: str, what: str) -> str:
    # Looking for what was meant takes a third of a millisecond, and mistakes are often made again and again.
    if ":" in key:
        return f"unknown {what} {quoted(key)}; is there a space missing after a `:`?"
    if what == "layer" and (other := OTHER_NAMES.get(key.lower().replace("_", ""))):
        return f"unknown layer {quoted(key)}; write {other}"
    if near := nearest(key, sorted({*layer_classes(), *COMMON})):
        return f"unknown {'key' if near in COMMON else what} {quoted(key)}; did you mean {near}?"
    known = sorted(COMMON) if what == "key" else layer_classes()
    beside = "beside the layer stand " if what == "key" else "known: "
    return f"unknown {what} {quoted(key)}; {beside}{', '.join(known)}"


LAYERS_SCHEMA: dict[str, Any] = {"type": "array", "items": {"$ref": "#/$defs/Item"}}


class ItemList:
    """The annotation of an option whose value is a list of layers."""

    def validate(self, value: Any) -> list[Item]:
        """The items of a list. Raises `PydanticCustomError` where it is none."""
        if not isinstance(value, list | tuple):
            hint = "; begin each layer with `- `" if isinstance(value, Mapping) else ""
            raise PydanticCustomError(
                "wrong_value", "expected a list of layers, found {found}{hint}", {"found": show(value), "hint": hint}
            )
        if len(value) > MOST_LAYERS:
            # Before each is looked at, which would take seconds.
            raise PydanticCustomError("too_many", f"{len(value):,} layers; at most {MOST_LAYERS:,} are allowed")
        return [item if isinstance(item, Item) else _item(item) for item in value]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return LAYERS_SCHEMA


Layers = Annotated[list[Item], ItemList()]
"""A list of layers."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """Options of layers where a layer does not say, by kind of layer."""

    options: Mapping[str, Options]
    faults: tuple[Fault, ...] = ()

    @classmethod
    def of(cls, value: Any) -> Defaults:
        """The defaults that a mapping means."""
        if isinstance(value, Defaults):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError(
                "wrong_value", "expected a mapping of layers to options, found {found}", {"found": show(value)}
            )
        faults = [
            Fault((key,), Unknown(key, "layer"), reserved="an unknown layer")
            for key in value
            if key not in layer_classes()
        ]
        kinds = [kind for kind in value if kind in layer_classes()]
        options = {kind: _validated(partial(layer_classes()[kind]), value[kind], (kind,), faults) for kind in kinds}
        for kind, given in options.items():
            for name in (given and given.__pydantic_extra__) or ():
                beside = layer_classes()[kind].shorthand
                message = f"nothing reads it: what stands beside {beside} is said where {kind} is used"
                faults.append(Fault((kind, name), message, reserved="an unknown key"))
        return cls({kind: given for kind, given in options.items() if given is not None}, tuple(faults))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.of)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"$ref": "#/$defs/Defaults"}


@cache
def partial(cls: type[LayerSpec]) -> type[LayerSpec]:
    """A layer's options, none of which must be given."""
    required: dict[str, Any] = {name: (Any, None) for name, field in cls.model_fields.items() if field.is_required()}
    return create_model(
        f"{cls.__name__}Defaults",
        __base__=cls,
        __doc__=f"What every {cls.kind} has unless it says otherwise.",
        **required,
    )
