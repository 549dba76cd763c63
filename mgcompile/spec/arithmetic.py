"""The values of parsed expressions: operators and functions over numbers, truth values, texts and lists."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from mgcompile.spec.budget import Budget
from mgcompile.spec.wording import listed, nearest, show

__all__ = ["Ambiguous", "Evaluation", "Refused", "Value"]

MAX_TEXT: Final = 1_000
MAX_DEPTH: Final = 50
MAX_INT: Final = 10**15
MAX_EXPONENT: Final = 64
MAX_LENGTH: Final = 10_000
MAX_STEPS: Final = 100_000

# The items of a list are values again; `list[Value]` would refuse a plain `list[int]`.
Value: TypeAlias = int | float | bool | str | list[Any]


class Refused(Exception):
    """The reason why an expression has no value; becomes an ExpressionError, which knows the expression."""


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The value of a name that could mean several things where it is read; `reason` says which, and the way out."""

    reason: str


COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
EQUALITY: Final = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
KNOWN_NODES: Final = (ast.List, ast.IfExp, ast.Subscript, ast.Slice, ast.BoolOp)
CONSTANTS: Final[dict[str, bool]] = {"true": True, "false": False}


def unknown(what: str, name: str, known: Mapping[str, object]) -> str:
    near = nearest(name, known)
    hint = f"; did you mean `{near}`?" if near else ";"
    return f"there is no {what} `{name}`{hint} known: {listed(sorted(known))}"


class Evaluation:
    """Walks one expression. Steps are spent for every item made, so that lists of lists cannot explode."""

    def __init__(self, names: Mapping[str, Value], budget: Budget | None = None) -> None:
        self._names = names
        self._budget = budget or Budget()
        self._steps_left = MAX_STEPS

    def value(self, node: ast.AST) -> Value:
        self._spend(1)
        method: Callable[[Any], Value] = getattr(self, f"_{type(node).__name__.lower()}")
        return method(node)

    def _spend(self, steps: int) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise Refused(f"takes more than {MAX_STEPS:,} steps")
        self._budget.evaluate(steps)

    def _constant(self, node: ast.Constant) -> Value:
        return node.value if isinstance(node.value, str) else _number(node.value)

    def _name(self, node: ast.Name) -> Value:
        return CONSTANTS[node.id] if node.id in CONSTANTS else self._value_of(node.id)

    def _attribute(self, node: ast.Attribute) -> Value:
        return self._value_of(attribute_name(node))

    def _value_of(self, name: str) -> Value:
        if name not in self._names:
            raise Refused(unknown("name", name, self._names))
        try:
            return self._copy(self._names[name], MAX_DEPTH)
        except Refused as error:
            raise Refused(f"`{name}`: {error}") from None

    def _copy(self, value: object, depth: int) -> Value:
        self._spend(1)
        if isinstance(value, list | tuple):
            if not depth:
                raise Refused(f"lists more than {MAX_DEPTH} deep")
            _check_length(len(value))
            return [self._copy(item, depth - 1) for item in value]
        if isinstance(value, str):
            return str.__str__(value)  # the plain text, whatever it was before
        if isinstance(value, int | float):
            return _number(value)
        if isinstance(value, Ambiguous):
            raise Refused(value.reason)
        raise Refused(f"expected a number, a text or a list, found {'null' if value is None else type(value).__name__}")

    def _list(self, node: ast.List) -> Value:
        return [self.value(item) for item in node.elts]

    def _binop(self, node: ast.BinOp) -> Value:
        return self.elementwise(BINARY[type(node.op)], self.value(node.left), self.value(node.right))

    def _unaryop(self, node: ast.UnaryOp) -> Value:
        operand = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            return not _truth(operand)
        return self.elementwise(operator.neg if isinstance(node.op, ast.USub) else operator.pos, operand)

    def _boolop(self, node: ast.BoolOp) -> Value:
        # Lazy, as in Python: the right side may only make sense where the left side holds.
        values = (_truth(self.value(item)) for item in node.values)
        return all(values) if isinstance(node.op, ast.And) else any(values)

    def _ifexp(self, node: ast.IfExp) -> Value:
        return self.value(node.body if _truth(self.value(node.test)) else node.orelse)

    def _compare(self, node: ast.Compare) -> Value:
        left = self.value(node.left)
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self.value(comparator)
            if not _holds(op, left, right):
                return False
            left = right
        return True

    def _subscript(self, node: ast.Subscript) -> Value:
        items = _a_list(self.value(node.value), "indexing")
        if isinstance(node.slice, ast.Slice):
            bounds = (node.slice.lower, node.slice.upper, node.slice.step)
            start, stop, step = (None if bound is None else _whole(self.value(bound), "a slice") for bound in bounds)
            if step == 0:
                raise Refused("the step of a slice is 0")
            return items[start:stop:step]
        index = _whole(self.value(node.slice), "an index")
        if not -len(items) <= index < len(items):
            raise Refused(f"index {index} of a list of length {len(items)}")
        item: Value = items[index]
        return item

    def _call(self, node: ast.Call) -> Value:
        name: Any = node.func
        fewest, most, function = FUNCTIONS[name.id]
        if not fewest <= len(node.args) <= most:
            expected = f"{fewest}" if fewest == most else f"{fewest} or more"
            raise Refused(f"`{name.id}` takes {expected} arguments, found {len(node.args)}")
        return function(self, *map(self.value, node.args))

    def elementwise(self, function: Callable[..., Any], *operands: Value) -> Value:
        self._spend(1)
        lengths = {len(operand) for operand in operands if isinstance(operand, list)}
        if not lengths:
            for operand in operands:
                _check_number(operand)
            return _number(function(*operands))
        if len(lengths) > 1:
            found = " and ".join(map(str, sorted(lengths)))
            raise Refused(f"lists of different lengths: {found}; `concat` joins lists")
        rows = ([each[i] if isinstance(each, list) else each for each in operands] for i in range(lengths.pop()))
        return [self.elementwise(function, *row) for row in rows]

    def repeat(self, item: Value, times: Value) -> Value:
        count = _whole(times, "`repeat`")
        if count < 0:
            raise Refused(f"`repeat` of {count} times")
        _check_length(count)
        self._spend(count * _size(item))
        return [item] * count

    def concat(self, *lists: Value) -> Value:
        joined = [item for each in lists for item in _a_list(each, "`concat`")]
        _check_length(len(joined))
        return joined


def _number(value: Any) -> Value:
    """The value itself, or refused if it is beyond the limits."""
    if isinstance(value, complex):
        raise Refused("the result is not a real number")
    if isinstance(value, float) and not math.isfinite(value):
        raise Refused("the result is not a finite number")
    if isinstance(value, int) and abs(value) > MAX_INT:
        raise Refused("a whole number beyond 10^15")
    result: Value = value
    return result


def _check_number(value: Value) -> None:
    if isinstance(value, bool | str):
        raise Refused(f"expected a number, found {show(value)}")


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise Refused(f"a list of {length} items, more than {MAX_LENGTH}")


def _truth(value: Value) -> bool:
    if not isinstance(value, bool):
        raise Refused(f"expected true or false, found {show(value)}; compare it with something")
    return value


def _whole(value: Value, what: str) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"{what} needs a whole number, found {show(value)}")
    return value


def _a_list(value: Value, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise Refused(f"{what} needs a list, found {show(value)}")
    return value


def attribute_name(node: ast.Attribute) -> str:
    """`stage.index`, the number of a repeat by the id of its layer; empty for anything else with a dot."""
    return f"{node.value.id}.index" if isinstance(node.value, ast.Name) and node.attr == "index" else ""


def _size(value: Value) -> int:
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


def _same(left: Any, right: Any) -> bool:
    # Python's True == 1 would make a switch equal to a count.
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _holds(op: ast.cmpop, left: Value, right: Value) -> bool:
    if isinstance(op, ast.Eq | ast.NotEq):
        return _same(left, right) == isinstance(op, ast.Eq)
    if isinstance(op, ast.In | ast.NotIn):
        found = any(_same(left, item) for item in _a_list(right, "`in`"))
        return found == isinstance(op, ast.In)
    for value in (left, right):
        if isinstance(value, bool | str | list):
            raise Refused(f"only numbers have an order, found {show(value)}")
    return COMPARE[type(op)](left, right)


# --- Operators and functions over numbers ---------------------------------------------------------------------------


def _divide(left: float, right: float) -> float:
    if isinstance(left, int) and isinstance(right, int) and left % right == 0:
        return left // right
    return left / right


def _power(base: float, exponent: float) -> Any:
    if abs(exponent) > MAX_EXPONENT:
        raise Refused(f"the exponent {exponent} is beyond {MAX_EXPONENT}")
    if isinstance(base, int) and (abs(base).bit_length() - 1) * exponent > MAX_INT.bit_length():
        raise Refused("a whole number beyond 10^15")
    return base**exponent


def _sqrt(value: float) -> float:
    if value < 0:
        raise Refused(f"`sqrt` of {value}")
    root = math.sqrt(value)
    return int(root) if isinstance(value, int) and root == int(root) and int(root) ** 2 == value else root


def _log2(value: float) -> float:
    if value <= 0:
        raise Refused(f"`log2` of {value}")
    power = isinstance(value, int) and value & (value - 1) == 0
    return int(value).bit_length() - 1 if power else math.log2(value)


BINARY: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divide,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}

_Function: TypeAlias = Callable[..., Value]


def _mapped(function: Callable[..., Any]) -> tuple[int, int, _Function]:
    return 1, 1, lambda evaluation, value: evaluation.elementwise(function, value)


def _extreme(function: Callable[..., Any]) -> tuple[int, int, _Function]:
    def apply(evaluation: Evaluation, *values: Value) -> Value:
        candidates = values if len(values) > 1 else _a_list(values[0], f"`{function.__name__}` of one value")
        if not candidates:
            raise Refused(f"`{function.__name__}` of an empty list")
        return evaluation.elementwise(lambda *numbers: function(numbers), *candidates)

    return 1, MAX_TEXT, apply


def _sum(evaluation: Evaluation, values: Value) -> Value:
    total: Value = 0
    for value in _a_list(values, "`sum`"):
        total = evaluation.elementwise(operator.add, total, value)
    return total


def _len(_: Evaluation, values: Value) -> Value:
    return len(_a_list(values, "`len`"))


# Name: the fewest and the most arguments, and what it does.
FUNCTIONS: Final[dict[str, tuple[int, int, _Function]]] = {
    "abs": _mapped(abs),
    "ceil": _mapped(math.ceil),
    "concat": (1, MAX_TEXT, Evaluation.concat),
    "float": _mapped(float),
    "floor": _mapped(math.floor),
    "int": _mapped(int),
    "len": (1, 1, _len),
    "log2": _mapped(_log2),
    "max": _extreme(max),
    "min": _extreme(min),
    "repeat": (2, 2, Evaluation.repeat),
    "round": _mapped(round),
    "sqrt": _mapped(_sqrt),
    "sum": (1, 1, _sum),
}
