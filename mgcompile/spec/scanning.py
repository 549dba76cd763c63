"""Scanners of YAML, JSON and Python data; each tells a `Builder` what it meets and where.

YAML is read by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema): `no` and `on` are text,
`1e-3` is a number. PyYAML only cuts the text into events. Tags, merge keys and second documents are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from mgcompile.spec.tree import MAX_DIGITS, Builder, Scalar, kind_of
from mgcompile.spec.wording import short

__all__ = ["HALF_PAIR", "plain_scalar", "scan_json", "scan_python", "scan_yaml"]

# libyaml is ten times as fast; a PyYAML built without it reads the same language.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

HALF_PAIR = re.compile("[\ud800-\udfff]")
"""What no text in UTF-8 can hold."""
_YAML_TAG: Final = "tag:yaml.org,2002:"
_MAX_INT_TEXT: Final = 1000  # zeros in front are allowed, so more than MAX_DIGITS
_NUMBER_STARTS: Final = frozenset("+-.0123456789")
_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+", re.ASCII)
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def plain_scalar(text: str) -> Scalar:
    """What an unquoted YAML scalar means in the core schema of YAML 1.2."""
    if text[:1] not in _NUMBER_STARTS or not text:
        return _WORDS.get(text, text)
    if _INT.fullmatch(text):
        # int() of a long text takes quadratic time; any number past the limit is refused alike.
        return int(text) if len(text) <= _MAX_INT_TEXT else 10**MAX_DIGITS
    if _FLOAT.fullmatch(text):
        return float(text)
    if _BASED.fullmatch(text):
        return int(text, 0) if len(text) <= _MAX_INT_TEXT else 10**MAX_DIGITS
    return math.nan if _NOT_FINITE.fullmatch(text) else text


def scan_yaml(text: str, builder: Builder) -> None:
    """Reads YAML text.

    Raises:
        Stop: the builder holds the problem.
    """
    try:
        documents = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    builder.stop(*_position(event.start_mark), "a second document begins; a spec file holds one")
            else:
                _take_event(event, builder)
    except yaml.MarkedYAMLError as error:
        line, column = _position(error.problem_mark or error.context_mark)
        if _in_expression(text, line, column):
            builder.stop(line, column, 'a brace ends here what is not in quotes: quote the expression, `"${...}"`')
        builder.stop(line, column, _explain(error, _character(text, line, column)))
    except yaml.YAMLError as error:
        builder.stop(0, 0, f"not valid YAML: {' '.join(str(error).split())}")


def _position(mark: Any) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)


def _take_event(event: yaml.Event, builder: Builder) -> None:
    # Called for every value of a file: the commonest events come first, and _position is written out.
    if isinstance(event, yaml.CollectionEndEvent):
        builder.close()
    elif isinstance(event, yaml.NodeEvent):
        mark: Any = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        if isinstance(event, yaml.AliasEvent):
            builder.alias(str(event.anchor), line, column)
            return
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = short(_short_tag(tag))
            builder.report(line, column, f"the tag `{shown}` is refused: a spec has no tags; remove it")
        if isinstance(event, yaml.ScalarEvent):
            if event.style:
                builder.scalar(event.value, line, column, event.anchor)
            elif event.value == "<<" and builder.expects_key():
                builder.refuse_merge_key(line, column)
            else:
                builder.scalar(plain_scalar(event.value), line, column, event.anchor)
        else:
            builder.open({} if isinstance(event, yaml.MappingStartEvent) else [], line, column, event.anchor)


def _short_tag(tag: str) -> str:
    return f"!!{tag.removeprefix(_YAML_TAG)}" if tag.startswith(_YAML_TAG) else tag


def _character(text: str, line: int, column: int) -> str:
    lines = text.splitlines()
    return lines[line - 1][column - 1 : column] if 0 < line <= len(lines) else ""


def _in_expression(text: str, line: int, column: int) -> bool:
    """Whether a place lies behind the `$` of an expression without quotes, whose brace opens a mapping in YAML."""
    lines = text.splitlines()
    before = lines[line - 1][: column - 1] if 0 < line <= len(lines) else ""
    return re.search(r"[\[{,:] *[^'\",]*\$\{?[^'\"]*$", before) is not None


# What PyYAML says (with libyaml or without) and what it means to the person who wrote the file. `{0}` is the line where
# the list, mapping or text in question begins.
_EXPLANATIONS: Final = (
    ("tab character", "tabs are not allowed for indentation; use spaces"),
    ("mapping values are not allowed", "a `:` cannot stand here; check the indentation, or quote text with `: `"),
    ("',' or ']'", "expected `,` or `]`: the list that begins in line {0} is still open"),
    ("',' or '}'", "expected `,` or `}}`: the mapping that begins in line {0} is still open"),
    ("unexpected end of stream", "the quoted text that begins in line {0} has no closing quote"),
    ("unexpected document indicator", "the quoted text that begins in line {0} has no closing quote"),
    ("expected ':'", "expected `:` after the key in line {0}"),
    ("document start>", "text after the end of the spec; a spec file holds one mapping"),
    ("tag handle", "tags are refused; quote the text if the `!` belongs to it"),
    ("unknown escape", "no such escape after `\\` in double quotes; write `\\\\`, or use single quotes"),
    ("escape code", "no such Unicode character; write the character itself"),
    ("node content", "expected a value; quote the text if this character belongs to it"),
    ("incompatible YAML", "specs are written in YAML 1.2; remove the `%YAML` line"),
    ("alphabetic or numeric", "expected a name after `&` or `*`; quote the text if the character belongs to it"),
)


def _explain(error: yaml.MarkedYAMLError, character: str) -> str:
    problem, context = error.problem or "", error.context or ""
    start = error.context_mark.line + 1 if error.context_mark else 0
    if "cannot start any token" in problem:
        if character == "\t":
            return "tabs are not allowed for indentation; use spaces"
        return f"text cannot begin with `{character}`; put it in quotes"
    for words, explanation in _EXPLANATIONS:
        if words in problem:
            return explanation.format(start)
    if "block mapping" in context:
        return f"expected a key of the mapping that begins in line {start}; check the indentation"
    if "block collection" in context or "block sequence" in context:
        return f"expected a `- ` of the list that begins in line {start}; check the indentation"
    return f"not valid YAML: {problem or context}"


_JSON_TOKEN = re.compile(r'\n|[\[\]{}]|"[^"\\]*(?:\\.[^"\\]*)*"|[^\s\[\]{},:"]+', re.DOTALL)


def scan_json(text: str, builder: Builder) -> None:
    """Lets `json` check the syntax, then reads the tokens of what is known to be right for their places.

    The YAML scanner would not do: it refuses surrogate pairs and long keys, and folds line separators in text.

    Raises:
        Stop: the builder holds the problem.
    """
    try:
        # Numbers stay text: int() refuses thousands of digits with an error that has no place.
        json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except json.JSONDecodeError as error:
        builder.stop(error.lineno, error.colno, f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}")
    except RecursionError:
        pass  # what comes before is right, and the tokens below reach the builder's limit first, with their places
    line, line_start = 1, 0
    for match in _JSON_TOKEN.finditer(text):
        token = match.group()
        if token == "\n":
            line, line_start = line + 1, match.end()
        else:
            _take_token(token, builder, line, match.start() - line_start + 1)


def _take_token(token: str, builder: Builder, line: int, column: int) -> None:
    if token == "{":
        builder.open({}, line, column)
    elif token == "[":
        builder.open([], line, column)
    elif token in "]}":
        builder.close()
    elif token[0] == '"':
        value = json.loads(token)
        if HALF_PAIR.search(value):
            builder.report(line, column, "half of a surrogate pair in `\\u` escapes; write the character itself")
        builder.scalar(value, line, column)
    else:
        builder.scalar(math.nan if token in ("NaN", "Infinity", "-Infinity") else plain_scalar(token), line, column)


def scan_python(data: object, builder: Builder) -> None:
    """Reads Python data; there are no places in it, so that every line is 0.

    Raises:
        Stop: the builder holds the problem.
    """
    _take_python(data, builder, set())


def _take_python(value: object, builder: Builder, inside: set[int]) -> None:
    # Recursive, which is safe: the builder stops at its depth limit.
    if isinstance(value, Mapping | list | tuple):
        if id(value) in inside:
            builder.stop(0, 0, "contains itself")
        inside.add(id(value))
        builder.open({} if isinstance(value, Mapping) else [], 0, 0)
        if isinstance(value, Mapping):
            for key, item in value.items():
                _take_python(key, builder, inside)
                _take_python(item, builder, inside)
        else:
            for item in value:
                _take_python(item, builder, inside)
        builder.close()
        inside.remove(id(value))
    else:
        builder.scalar(_plain_python(value, builder), 0, 0)


def _plain_python(value: object, builder: Builder) -> Scalar:
    # Subclasses (enums, mostly) become the plain type, by the plain type's own method.
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if not isinstance(value, str):
        builder.report(0, 0, f"{kind_of(value)} has no place in a spec; expected text, a number, a list or a mapping")
        return ""
    text = str.__str__(value)
    if HALF_PAIR.search(text):
        builder.report(0, 0, "half of a surrogate pair in a text")
    return text
