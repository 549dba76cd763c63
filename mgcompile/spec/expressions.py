"""The arithmetic inside `${...}`: a small closed language over declared names. Nothing is ever executed.

An expression is written as in Python and parsed by `ast`, but only what is listed here has a meaning:

- numbers, texts in quotes, `true`, `false`, lists, names;
- `+ - * / // % **` and unary minus over numbers; with lists they work element by element, over lists of one length or a
  list and a number. `/` gives a whole number where it is exact: `64 / 2` is 32, `1 / 2` is 0.5;
- comparisons, also chained; `in`, `not in` with a list at the right; `and`, `or`, `not` and `a if c else b` over truth
  values only;
- `x[i]`, `x[i:j:k]` over lists;
- `min max abs round ceil floor sqrt log2 int float`, element by element over lists (`min` and `max` of a single list:
  its smallest and largest); `len`, `sum`; `repeat(x, n)`, n times x in a list; `concat(a, b, ...)`, lists joined.
  `sqrt` and `log2` of a whole number are whole where they are exact, as `/` is.

Every expression ends within bounded time and memory: texts, nesting, numbers, lists and steps are limited.
"""

from __future__ import annotations

import ast
import difflib
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

from mgcompile.errors import MgcompileError

__all__ = ["ExpressionError", "Value", "evaluate", "has_expression", "names_in"]

MAX_TEXT: Final = 1_000
MAX_DEPTH: Final = 50
MAX_INT: Final = 10**15
MAX_EXPONENT: Final = 64
MAX_LENGTH: Final = 10_000
MAX_STEPS: Final = 100_000

# The items of a list are values again; `list[Value]` would refuse a plain `list[int]`.
Value: TypeAlias = int | float | bool | str | list[Any]


class ExpressionError(MgcompileError):
    """An expression that cannot be read or has no value; `expression` is its text, `reason` what is wrong with it."""

    def __init__(self, expression: str, reason: str) -> None:
        super().__init__(expression, reason)
        self.expression = expression
        self.reason = reason

    def __str__(self) -> str:
        return f"`{_short(self.expression)}`: {self.reason}"


def has_expression(text: str) -> bool:
    """Whether `evaluate` would do anything: `${` occurs, be it escaped.

    >>> has_expression("${n}"), has_expression("n")
    (True, False)
    """
    return "${" in text


def evaluate(text: str, names: Mapping[str, Value]) -> Value:
    """The value of a text that is one `${...}`; otherwise the text with each `${...}` replaced and `$${` as `${`.

    >>> evaluate("${[64, 32] // 2}", {})
    [32, 16]
    >>> evaluate("VGG-${5 * n + 1}", {"n": 3})
    'VGG-16'

    Raises:
        ExpressionError: an expression is malformed, uses something undeclared, has no value or exceeds a limit.
    """
    if not has_expression(text):
        return text
    parts = _template(text)
    if len(parts) == 1 and isinstance(parts[0], _Expression):
        return _value_of(parts[0], names)
    result = "".join(part if isinstance(part, str) else _as_text(part, names) for part in parts)
    if len(result) > MAX_TEXT:
        raise ExpressionError(text, f"the result has {len(result)} characters, more than {MAX_TEXT}")
    return result


def names_in(text: str) -> frozenset[str]:
    """The names whose values a text depends on; functions are not among them.

    >>> sorted(names_in("${max(n, w)}-${n}"))
    ['n', 'w']

    Raises:
        ExpressionError: an expression is malformed or exceeds a limit.
    """
    if not has_expression(text):
        return frozenset()
    return frozenset().union(*(part.names for part in _template(text) if isinstance(part, _Expression)))


# --- Reading --------------------------------------------------------------------------------------------------------


class _Refused(Exception):
    """The reason why an expression has no value; becomes an ExpressionError, which knows the expression."""


@dataclass(frozen=True, slots=True)
class _Expression:
    """Checked: every node of `tree` is one that `_Evaluation` knows."""

    text: str
    tree: ast.expr
    names: frozenset[str]


# A brace inside quotes does not end an expression.
_PIECE = re.compile(r"""\$\$\{ | \$\{ (?P<body> (?: [^{}'"] | '[^']*' | "[^"]*" )* ) \}""", re.VERBOSE)


@lru_cache(maxsize=4096)
def _template(text: str) -> tuple[str | _Expression, ...]:
    if len(text) > MAX_TEXT:
        raise ExpressionError(text, f"has {len(text)} characters, more than {MAX_TEXT}")
    parts: list[str | _Expression] = []
    end = 0
    for match in _PIECE.finditer(text):
        parts.append(_literal(text, text[end : match.start()]))
        body = match["body"]
        parts.append("${" if body is None else _parse(body, match.group()))
        end = match.end()
    parts.append(_literal(text, text[end:]))
    return tuple(part for part in parts if part != "")


def _literal(text: str, part: str) -> str:
    if "${" in part:
        raise ExpressionError(text, "a `${` has no `}`, or braces stand inside; write `$${` for a literal `${`")
    return part


def _parse(body: str, shown: str) -> _Expression:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's advice on style, such as for "\d"
            tree = ast.parse(body.strip(), mode="eval").body
    except SyntaxError as error:
        reason = "is empty" if not body.strip() else f"cannot be read: {error.msg}"
        raise ExpressionError(shown, reason) from None
    except (RecursionError, MemoryError):
        raise ExpressionError(shown, f"is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise ExpressionError(shown, f"cannot be read: {error}") from None
    try:
        return _Expression(shown, tree, frozenset(_check(tree, body.strip(), 1)))
    except _Refused as error:
        raise ExpressionError(shown, str(error)) from None


_COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EQUALITY: Final = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
_KNOWN_NODES: Final = (ast.List, ast.IfExp, ast.Subscript, ast.Slice, ast.BoolOp)
_CONSTANTS: Final[dict[str, bool]] = {"true": True, "false": False}


def _check(node: ast.AST, body: str, depth: int) -> Iterator[str]:
    """Refuses what the language does not have, and yields the names that it meets."""
    if depth > MAX_DEPTH:
        raise _Refused(f"is nested more than {MAX_DEPTH} deep")
    if isinstance(node, ast.Name):
        if node.id not in _CONSTANTS:
            yield node.id
        return
    _check_node(node, body)
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(node, ast.Call) and child is node.func
        if isinstance(child, ast.expr) and not is_function:
            yield from _check(child, body, depth + 1)


def _check_node(node: ast.AST, body: str) -> None:
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.keywords:
            raise _Refused(f"only these can be called, and without `=`: {', '.join(_FUNCTIONS)}")
        if node.func.id not in _FUNCTIONS:
            raise _Refused(_unknown("function", node.func.id, _FUNCTIONS))
        return
    known = isinstance(node, _KNOWN_NODES)
    if isinstance(node, ast.Constant):
        known = isinstance(node.value, int | float | str)
    elif isinstance(node, ast.BinOp):
        known = type(node.op) in _BINARY
    elif isinstance(node, ast.UnaryOp):
        known = isinstance(node.op, ast.USub | ast.UAdd | ast.Not)
    elif isinstance(node, ast.Compare):
        known = all(type(op) in _COMPARE or isinstance(op, _EQUALITY) for op in node.ops)
    if not known:
        # Not ast.unparse, which is recursive: what is refused may be nested deeply.
        source = _short(ast.get_source_segment(body, node) or body)
        raise _Refused(f"`{source}` is not part of the language: only arithmetic, comparisons, lists")


def _unknown(what: str, name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ";"
    listed = ", ".join(sorted(known)[:20]) + (", ..." if len(known) > 20 else "")
    return f"there is no {what} `{name}`{hint} known: {listed or 'none'}"


# --- Evaluating -----------------------------------------------------------------------------------------------------


def _value_of(expression: _Expression, names: Mapping[str, Value]) -> Value:
    try:
        return _Evaluation(names).value(expression.tree)
    except _Refused as error:
        reason = str(error)
    except ZeroDivisionError:
        reason = "division by zero"
    except OverflowError:
        reason = "the result is too large"
    raise ExpressionError(expression.text, reason)


def _as_text(expression: _Expression, names: Mapping[str, Value]) -> str:
    value = _value_of(expression, names)
    if isinstance(value, list):
        raise ExpressionError(expression.text, "is a list, which cannot stand inside a text")
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Evaluation:
    """Walks one expression. Steps are spent for every item made, so that lists of lists cannot explode."""

    def __init__(self, names: Mapping[str, Value]) -> None:
        self._names = names
        self._steps_left = MAX_STEPS

    def value(self, node: ast.AST) -> Value:
        self._spend(1)
        method: Callable[[Any], Value] = getattr(self, f"_{type(node).__name__.lower()}")
        return method(node)

    def _spend(self, steps: int) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise _Refused(f"takes more than {MAX_STEPS:,} steps")

    def _constant(self, node: ast.Constant) -> Value:
        return node.value if isinstance(node.value, str) else _number(node.value)

    def _name(self, node: ast.Name) -> Value:
        if node.id in _CONSTANTS:
            return _CONSTANTS[node.id]
        if node.id not in self._names:
            raise _Refused(_unknown("name", node.id, self._names))
        try:
            return self._copy(self._names[node.id], MAX_DEPTH)
        except _Refused as error:
            raise _Refused(f"`{node.id}`: {error}") from None

    def _copy(self, value: object, depth: int) -> Value:
        self._spend(1)
        if isinstance(value, list | tuple):
            if not depth:
                raise _Refused(f"lists more than {MAX_DEPTH} deep")
            _check_length(len(value))
            return [self._copy(item, depth - 1) for item in value]
        if isinstance(value, str):
            return value
        if isinstance(value, int | float):
            return _number(value)
        raise _Refused(
            f"expected a number, a text or a list, found {'null' if value is None else type(value).__name__}"
        )

    def _list(self, node: ast.List) -> Value:
        return [self.value(item) for item in node.elts]

    def _binop(self, node: ast.BinOp) -> Value:
        return self.elementwise(_BINARY[type(node.op)], self.value(node.left), self.value(node.right))

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
                raise _Refused("the step of a slice is 0")
            return items[start:stop:step]
        index = _whole(self.value(node.slice), "an index")
        if not -len(items) <= index < len(items):
            raise _Refused(f"index {index} of a list of length {len(items)}")
        item: Value = items[index]
        return item

    def _call(self, node: ast.Call) -> Value:
        name: Any = node.func
        fewest, most, function = _FUNCTIONS[name.id]
        if not fewest <= len(node.args) <= most:
            expected = f"{fewest}" if fewest == most else f"{fewest} or more"
            raise _Refused(f"`{name.id}` takes {expected} arguments, found {len(node.args)}")
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
            raise _Refused(f"lists of different lengths: {found}; `concat` joins lists")
        rows = ([each[i] if isinstance(each, list) else each for each in operands] for i in range(lengths.pop()))
        return [self.elementwise(function, *row) for row in rows]

    def repeat(self, item: Value, times: Value) -> Value:
        count = _whole(times, "`repeat`")
        if count < 0:
            raise _Refused(f"`repeat` of {count} times")
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
        raise _Refused("the result is not a real number")
    if isinstance(value, float) and not math.isfinite(value):
        raise _Refused("the result is not a finite number")
    if isinstance(value, int) and abs(value) > MAX_INT:
        raise _Refused("a whole number beyond 10^15")
    result: Value = value
    return result


def _check_number(value: Value) -> None:
    if isinstance(value, bool | str):
        raise _Refused(f"expected a number, found {_shown(value)}")


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise _Refused(f"a list of {length} items, more than {MAX_LENGTH}")


def _truth(value: Value) -> bool:
    if not isinstance(value, bool):
        raise _Refused(f"expected true or false, found {_shown(value)}; compare it with something")
    return value


def _whole(value: Value, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Refused(f"{what} needs a whole number, found {_shown(value)}")
    return value


def _a_list(value: Value, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise _Refused(f"{what} needs a list, found {_shown(value)}")
    return value


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return _short(repr(value[:10] if isinstance(value, list) else value))


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:76]}..."


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
            raise _Refused(f"only numbers have an order, found {_shown(value)}")
    return _COMPARE[type(op)](left, right)


# --- Operators and functions over numbers ---------------------------------------------------------------------------


def _divide(left: float, right: float) -> float:
    if isinstance(left, int) and isinstance(right, int) and left % right == 0:
        return left // right
    return left / right


def _power(base: float, exponent: float) -> Any:
    if abs(exponent) > MAX_EXPONENT:
        raise _Refused(f"the exponent {exponent} is beyond {MAX_EXPONENT}")
    if isinstance(base, int) and (abs(base).bit_length() - 1) * exponent > MAX_INT.bit_length():
        raise _Refused("a whole number beyond 10^15")
    return base**exponent


def _sqrt(value: float) -> float:
    if value < 0:
        raise _Refused(f"`sqrt` of {value}")
    root = math.sqrt(value)
    return int(root) if isinstance(value, int) and root == int(root) and int(root) ** 2 == value else root


def _log2(value: float) -> float:
    if value <= 0:
        raise _Refused(f"`log2` of {value}")
    power = isinstance(value, int) and value & (value - 1) == 0
    return int(value).bit_length() - 1 if power else math.log2(value)


_BINARY: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
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
    def apply(evaluation: _Evaluation, *values: Value) -> Value:
        candidates = values if len(values) > 1 else _a_list(values[0], f"`{function.__name__}` of one value")
        if not candidates:
            raise _Refused(f"`{function.__name__}` of an empty list")
        return evaluation.elementwise(lambda *numbers: function(numbers), *candidates)

    return 1, MAX_TEXT, apply


def _sum(evaluation: _Evaluation, values: Value) -> Value:
    total: Value = 0
    for value in _a_list(values, "`sum`"):
        total = evaluation.elementwise(operator.add, total, value)
    return total


def _len(_: _Evaluation, values: Value) -> Value:
    return len(_a_list(values, "`len`"))


# Name: the fewest and the most arguments, and what it does.
_FUNCTIONS: Final[dict[str, tuple[int, int, _Function]]] = {
    "abs": _mapped(abs),
    "ceil": _mapped(math.ceil),
    "concat": (1, MAX_TEXT, _Evaluation.concat),
    "float": _mapped(float),
    "floor": _mapped(math.floor),
    "int": _mapped(int),
    "len": (1, 1, _len),
    "log2": _mapped(_log2),
    "max": _extreme(max),
    "min": _extreme(min),
    "repeat": (2, 2, _Evaluation.repeat),
    "round": _mapped(round),
    "sqrt": _mapped(_sqrt),
    "sum": (1, 1, _sum),
}
