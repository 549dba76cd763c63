"""What a machine can do at best: the peaks that a roofline is made of. Measured by `mgcompile.measuring`, or given."""

from __future__ import annotations

import json
import math
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from mgcompile.analysis.tables import as_json
from mgcompile.errors import Problem, SpecError
from mgcompile.inputs import open_regular

__all__ = ["Curve", "Machine", "Precision", "Rate", "machine_text", "read_machine", "value_at"]

Precision = Literal["fp32", "bf16"]

Curve = tuple[tuple[float, float], ...]
"""Points (x, y) of a positive function of a positive number, x rising."""

MOST_BYTES = 1 << 20
"""A file that is larger is no machine."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast operations of one sort run: those whose `Op.work` is the same.

    `overhead` is the seconds of a call, however small. `flops` are FLOP/s by the channels that go in or come out,
    whichever are fewer; empty where computing takes no time beside moving. `bandwidth` is the bytes a second of inputs
    and outputs by how many bytes there are, `tensors` that of an operation's own tensors by the bytes of all tensors of
    the network; empty where those of the machine hold.
    """

    overhead: float
    flops: Curve = ()
    bandwidth: Curve = ()
    tensors: Curve = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """The peaks of a processor with a number of threads, for numbers of one precision.

    `convolution` is the FLOP/s of its fastest convolution (a multiply-accumulate is two), `bandwidth` the bytes a
    second that it reads and writes in main memory, `cache_bandwidth` those in a cache of `cache` bytes, `overhead` the
    seconds that PyTorch takes for an operation, however small. `rates` say how near sorts of operations come to these
    peaks; a sort that is not there is taken to reach them, so that without any rates times are lower bounds.
    """

    name: str
    threads: int
    precision: Precision
    convolution: float
    bandwidth: float
    cache_bandwidth: float
    cache: int
    overhead: float
    rates: Mapping[str, Rate] = field(default_factory=dict)


def value_at(curve: Curve, x: float) -> float:
    """The function between its points (straight on logarithmic axes), and beyond them that of the nearest.

    >>> round(value_at(((1, 10), (100, 1000)), 10))
    100
    """
    place = bisect_left(curve, (x,))
    if place == 0 or place == len(curve):
        return curve[min(place, len(curve) - 1)][1]
    (left, below), (right, above) = curve[place - 1], curve[place]
    part = math.log(x / left) / math.log(right / left)
    return float(below * (above / below) ** part)


def machine_text(machine: Machine) -> str:
    """The machine as JSON, which `read_machine` reads."""
    return as_json(asdict(machine))


def read_machine(path: str | os.PathLike[str]) -> Machine:
    """The machine in a JSON file, as `mgcompile machine -o` writes it; `rates` may be left away.

    Raises `SpecError`, which is an `MgcompileError`, with every mistake: the field, what was found and what was
    expected.
    """
    name = os.fspath(path)
    try:
        with open_regular(name) as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _wrong(name, "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)) from None
    if len(data) > MOST_BYTES:
        raise _wrong(name, f"over {MOST_BYTES} bytes, expected a few thousand: this is no machine")
    return parse_machine(data, name)


def parse_machine(data: bytes, name: str) -> Machine:
    """The machine that JSON text says; `name` is that of the file, for messages. Raises `SpecError`."""
    try:
        found = json.loads(data)
    except json.JSONDecodeError as error:
        raise SpecError([Problem(name, error.lineno, error.colno, "", f"no JSON: {error.msg}")]) from None
    except (UnicodeDecodeError, RecursionError):
        raise _wrong(name, "no JSON, expected what `mgcompile machine -o` writes") from None
    if not isinstance(found, dict):
        raise _wrong(
            name, f"found {_shown(found)}, expected a mapping of fields: {', '.join(_MachineFields.model_fields)}"
        )
    try:
        checked = _MachineFields.model_validate(found)
    except ValidationError as error:
        raise SpecError([_problem(name, each) for each in error.errors(include_url=False)]) from None
    rates = {sort: Rate(**dict(rate)) for sort, rate in checked.rates.items()}
    return Machine(**{**dict(checked), "rates": rates})


# --- what a file may hold

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
_Count = Annotated[int, Field(ge=1, strict=True)]
_Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)]


def _rising(points: Curve) -> Curve:
    if any(one[0] >= other[0] for one, other in pairwise(points)):
        raise PydanticCustomError("rising", "points whose first numbers rise")
    return points


_Points = Annotated[tuple[tuple[_Positive, _Positive], ...], AfterValidator(_rising)]


class _RateFields(BaseModel):
    model_config = ConfigDict(extra="forbid")

    overhead: _Positive
    flops: _Points = ()
    bandwidth: _Points = ()
    tensors: _Points = ()


class _MachineFields(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: _Text
    threads: _Count
    precision: Precision
    convolution: _Positive
    bandwidth: _Positive
    cache_bandwidth: _Positive
    cache: _Count
    overhead: _Positive
    rates: dict[_Text, _RateFields] = {}


def _wrong(name: str, message: str) -> SpecError:
    return SpecError([Problem(name, 0, 0, "", message)])


def _problem(name: str, error: Any) -> Problem:
    """What pydantic found, as a message of ours."""
    *outer, last = error["loc"]
    path = "".join(_steps(error["loc"]))
    match error["type"]:
        case "missing":
            message = "missing; it must be there"
        case "extra_forbidden":
            known = [each.name for each in fields(Rate if outer else Machine)]
            near = get_close_matches(str(last), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            message = f"unknown field; {hint}"
        case _:
            expected = str(error["msg"]).removeprefix("Input should be ").removeprefix("Input should ")
            message = f"found {_shown(error['input'])}, expected {expected}"
    return Problem(name, 0, 0, path, message)


def _steps(places: tuple[str | int, ...]) -> Iterator[str]:
    for number, place in enumerate(places):
        yield f"[{place}]" if isinstance(place, int) else f".{place}" if number else place


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
