"""The arithmetic inside `${...}`: a small closed language over declared names. Nothing is ever executed.

An expression is written as in Python and parsed by `ast`, but only what is listed here has a meaning:

- numbers, texts in quotes, `true`, `false`, lists, names, among them `stage.index` (the number of a repeat by the id of
  its layer);
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
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from mgcompile.errors import MgcompileError
from mgcompile.spec.arithmetic import (
    BINARY,
    COMPARE,
    CONSTANTS,
    EQUALITY,
    FUNCTIONS,
    KNOWN_NODES,
    MAX_DEPTH,
    MAX_TEXT,
    Evaluation,
    Refused,
    Value,
    attribute_name,
    unknown,
)
from mgcompile.spec.budget import Budget
from mgcompile.spec.scanning import HALF_PAIR
from mgcompile.spec.wording import short

__all__ = ["Expression", "ExpressionError", "Value", "escaped", "evaluate", "has_expression", "names_in"]


class Expression(str):
    """A text of a spec with `${...}` in it, not yet evaluated. Nothing else is one: a value that an expression has is
    plain text, be there `${` in it.
    """

    __slots__ = ()


class ExpressionError(MgcompileError):
    """An expression that cannot be read or has no value; `expression` is its text, `reason` what is wrong with it."""

    def __init__(self, expression: str, reason: str) -> None:
        super().__init__(expression, reason)
        self.expression = expression
        self.reason = reason

    def __str__(self) -> str:
        return f"`{short(self.expression)}`: {self.reason}"


def has_expression(text: str) -> bool:
    """Whether `evaluate` would do anything: `${` occurs, be it escaped.

    >>> has_expression("${n}"), has_expression("n")
    (True, False)
    """
    return "${" in text


def escaped(value: Value) -> Value:
    """A value as it is written where an expression might stand.

    >>> escaped(["${n}", 1])
    ['$${n}', 1]
    """
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


def evaluate(text: str, names: Mapping[str, Value], budget: Budget | None = None) -> Value:
    """The value of a text that is one `${...}`; otherwise the text with each `${...}` replaced and `$${` as `${`.

    >>> evaluate("${[64, 32] // 2}", {})
    [32, 16]
    >>> evaluate("VGG-${5 * n + 1}", {"n": 3})
    'VGG-16'

    `budget` is that of the whole spec in which the expression stands.

    Raises:
        ExpressionError: an expression is malformed, uses something undeclared, has no value or exceeds a limit.
        Exhausted: the budget is spent.
    """
    if not has_expression(text):
        return text
    parts = _template(text)
    if len(parts) == 1 and isinstance(parts[0], _Expression):
        return _value_of(parts[0], names, budget)
    result = ""
    for part in parts:
        result += part if isinstance(part, str) else _as_text(part, names, budget)
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


@dataclass(frozen=True, slots=True)
class _Expression:
    """Checked: every node of `tree` is one that `Evaluation` knows."""

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
    except Refused as error:
        raise ExpressionError(shown, str(error)) from None


def _check(node: ast.AST, body: str, depth: int) -> Iterator[str]:
    """Refuses what the language does not have, and yields the names that it meets."""
    if depth > MAX_DEPTH:
        raise Refused(f"is nested more than {MAX_DEPTH} deep")
    if isinstance(node, ast.Name):
        if node.id not in CONSTANTS:
            yield node.id
        return
    if isinstance(node, ast.Attribute) and (name := attribute_name(node)):
        yield name
        return
    _check_node(node, body)
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(node, ast.Call) and child is node.func
        if isinstance(child, ast.expr) and not is_function:
            yield from _check(child, body, depth + 1)


def _check_node(node: ast.AST, body: str) -> None:
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.keywords:
            raise Refused(f"only these can be called, and without `=`: {', '.join(FUNCTIONS)}")
        if node.func.id not in FUNCTIONS:
            raise Refused(unknown("function", node.func.id, FUNCTIONS))
        return
    known = isinstance(node, KNOWN_NODES)
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and HALF_PAIR.search(node.value):
        raise Refused("half of a surrogate pair in a text; write the character itself")
    if isinstance(node, ast.Constant):
        known = isinstance(node.value, int | float | str)
    elif isinstance(node, ast.BinOp):
        known = type(node.op) in BINARY
    elif isinstance(node, ast.UnaryOp):
        known = isinstance(node.op, ast.USub | ast.UAdd | ast.Not)
    elif isinstance(node, ast.Compare):
        known = all(type(op) in COMPARE or isinstance(op, EQUALITY) for op in node.ops)
    if not known:
        # Not ast.unparse, which is recursive: what is refused may be nested deeply.
        source = short(ast.get_source_segment(body, node) or body)
        raise Refused(f"`{source}` is not part of the language: only arithmetic, comparisons, lists")


def _value_of(expression: _Expression, names: Mapping[str, Value], budget: Budget | None) -> Value:
    try:
        return Evaluation(names, budget).value(expression.tree)
    except Refused as error:
        reason = str(error)
    except ZeroDivisionError:
        reason = "division by zero"
    except OverflowError:
        reason = "the result is too large"
    raise ExpressionError(expression.text, reason)


def _as_text(expression: _Expression, names: Mapping[str, Value], budget: Budget | None) -> str:
    value = _value_of(expression, names, budget)
    if isinstance(value, list):
        raise ExpressionError(expression.text, "is a list, which cannot stand inside a text")
    return str(value).lower() if isinstance(value, bool) else str(value)
