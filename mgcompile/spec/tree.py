"""The tree of a spec: values with their places, built on a stack of its own so that limits hold while a text is read.

Scanners (`scanning`) tell a `Builder` what they meet. It refuses what no spec has, whatever it was written in:
duplicate keys, keys that are not text, numbers that are not finite, more depth or more values than the limits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn, TypeAlias

from mgcompile.errors import Problem, SpecError
from mgcompile.spec.wording import short

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "Builder", "Node", "Scalar", "Stop", "kind_of", "path_text"]

MAX_DEPTH: Final = 64
MAX_NODES: Final = 1_000_000
MAX_DIGITS: Final = 30
MAX_PROBLEMS: Final = 100
MAX_PATH_TEXT: Final = 120

Scalar: TypeAlias = bool | int | float | str | None


class Node:
    """A value, where it stands, and where the key before it stands (the value's own place where there is no key).

    `size` counts the nodes in it, itself included and aliases expanded; `height` the levels of nesting, 0 for a scalar.
    """

    __slots__ = ("column", "file", "height", "key_column", "key_line", "line", "size", "value")

    def __init__(self, value: Scalar | list[Node] | dict[str, Node], file: str, line: int, column: int) -> None:
        self.value = value
        self.file = file
        self.line = self.key_line = line
        self.column = self.key_column = column
        self.size = 1
        self.height = 0

    def child(self, step: str | int) -> Node | None:
        if isinstance(self.value, dict):
            return self.value.get(step) if isinstance(step, str) else None
        if isinstance(self.value, list) and isinstance(step, int) and 0 <= step < len(self.value):
            return self.value[step]
        return None

    def with_value(self, value: dict[str, Node]) -> Node:
        """The same place with another mapping in it."""
        node = Node(value, self.file, self.line, self.column)
        node.key_line, node.key_column = self.key_line, self.key_column
        return node


_FOUND = re.compile(r"`.*`|\".*\"|\(.*\)", re.DOTALL)
"""What a message quotes."""


def path_text(path: Iterable[str | int]) -> str:
    """A path as people write it, long keys cut.

    >>> path_text(("layers", 5, "conv", "a b"))
    'layers[5].conv["a b"]'
    """
    return "".join([f"[{step}]" if isinstance(step, int) else _key_text(step) for step in path]).removeprefix(".")


@lru_cache(maxsize=1024)
def _key_text(key: str) -> str:
    """A key behind others; few differ where there are many mistakes."""
    key = key[: MAX_PATH_TEXT + 1]
    return f".{key}" if re.fullmatch(r"[\w-]+", key) else f"[{json.dumps(key, ensure_ascii=False)}]"


class Stop(Exception):
    """No use to read on: a limit was reached or the syntax is broken. The builder holds the problem."""


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is still open."""

    node: Node
    count_before: int
    key: str | None = None
    key_line: int = 0
    key_column: int = 0
    has_key: bool = False  # the next node is the value of `key`, which is None where the key was refused


class Builder:
    """Builds one tree from the events of a scanner and collects what is wrong; lines and columns count from 1."""

    def __init__(self, file: str, nodes_before: int, *, foreign: bool = False) -> None:
        self.file = file
        self.foreign = foreign
        """Whether the user may not have meant it to be read: messages then leave out what stands in it."""
        self.problems: list[Problem] = []
        self._count = nodes_before
        self._stack: list[_Frame] = []
        self._root: Node | None = None
        self._anchors: dict[str, Node] = {}

    def finish(self) -> Node:
        """The whole tree, a mapping.

        Raises:
            SpecError: with every problem that was found.
        """
        root = self._root
        if not self.problems:
            if root is None or root.value is None:
                self.problems.append(Problem(self.file, 0, 0, "", "is empty; expected keys like `layers`"))
            elif not isinstance(root.value, dict):
                found = f"expected a mapping with keys like `layers`, found {kind_of(root.value)}"
                self.problems.append(Problem(self.file, root.line, root.column, "", found))
        if root is None or self.problems:
            raise SpecError(self.problems)
        return root

    def report(self, line: int, column: int, message: str) -> None:
        path = path_text(self._path())
        path = path if len(path) <= MAX_PATH_TEXT else f"{path[:MAX_PATH_TEXT]}..."
        if self.foreign:
            path, message = "", _FOUND.sub("...", message)
        self.problems.append(Problem(self.file, line, column, path, message))
        if len(self.problems) == MAX_PROBLEMS:
            message = f"more than {MAX_PROBLEMS} problems; stopped here"
            self.problems.append(Problem(self.file, line, column, "", message))
            raise Stop

    def stop(self, line: int, column: int, message: str) -> NoReturn:
        self.report(line, column, message)
        raise Stop

    def scalar(self, value: Scalar, line: int, column: int, anchor: str | None = None) -> None:
        self._count += 1  # _grow, written out: this is called for every value of a file
        if self._count > MAX_NODES:
            self._refuse_more(line, column)
        if isinstance(value, int | float):
            self._check_number(value, line, column)
        node = Node(value, self.file, line, column)
        if anchor is not None:
            self._anchors[anchor] = node
        self._add(node)

    def open(self, value: list[Node] | dict[str, Node], line: int, column: int, anchor: str | None = None) -> None:
        self._deepen(1, line, column)
        node = Node(value, self.file, line, column)
        node.size, node.height = 0, 1  # no size until it is closed: an alias to it from inside is recursive
        if anchor is not None:
            self._anchors[anchor] = node
        self._stack.append(_Frame(node, self._count))
        self._grow(1, line, column)

    def close(self) -> None:
        frame = self._stack.pop()
        frame.node.size = self._count - frame.count_before
        self._add(frame.node)

    def alias(self, name: str, line: int, column: int) -> None:
        target, shown = self._anchors.get(name), short(name)
        value: Any = None
        if target is None:
            self.report(line, column, f"no anchor `&{shown}` stands before `*{shown}`")
        elif not target.size:
            self.report(line, column, f"`*{shown}` stands inside `&{shown}`, which would contain itself without end")
        else:
            self._deepen(target.height, line, column)
            value = target.value
        node = Node(value, self.file, line, column)
        if value is not None and target is not None:
            node.size, node.height = target.size, target.height
        self._grow(node.size, line, column)
        self._add(node)

    def _add(self, node: Node) -> None:
        if not self._stack:
            self._root = node
            return
        frame = self._stack[-1]
        parent = frame.node
        if isinstance(parent.value, list):
            parent.value.append(node)
        elif isinstance(parent.value, dict):
            if not frame.has_key:
                self._take_key(frame, parent.value, node)
                return
            frame.has_key = False
            node.key_line, node.key_column = frame.key_line, frame.key_column
            if frame.key is not None:
                parent.value[frame.key] = node
        if node.height >= parent.height:
            parent.height = node.height + 1

    def _take_key(self, frame: _Frame, known: dict[str, Node], node: Node) -> None:
        key = node.value
        frame.key, frame.key_line, frame.key_column = None, node.line, node.column
        if not isinstance(key, str):
            what = f"{kind_of(key)} ({_shown(key)})" if isinstance(key, bool | int | float) else kind_of(key)
            hint = "" if isinstance(key, list | dict) else "; put it in quotes if it is meant as text"
            self.report(node.line, node.column, f"a key must be text, found {what}{hint}")
        elif key in known:
            first = known[key]
            where = f"; the first one is in line {first.key_line}" if first.key_line else ""
            self.report(node.line, node.column, f"the key {_shown(key)} stands here a second time{where}; keep one")
        else:
            frame.key = key
        frame.has_key = True

    def refuse_merge_key(self, line: int, column: int) -> None:
        """Reports `<<` and takes its value, whatever it is, without using it."""
        self.report(line, column, "YAML 1.2 has no merge key `<<`; use `extends`, `defaults` or `blocks` instead")
        frame = self._stack[-1]
        frame.key, frame.has_key = None, True

    def expects_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].node.value, dict) and not self._stack[-1].has_key

    def _check_number(self, value: float, line: int, column: int) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            self.report(line, column, "expected a finite number, found infinity or not-a-number")
        elif isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
            self.report(line, column, f"a whole number has at most {MAX_DIGITS} digits; quote it if it is text")

    def _grow(self, nodes: int, line: int, column: int) -> None:
        self._count += nodes
        if self._count > MAX_NODES:
            self._refuse_more(line, column)

    def _refuse_more(self, line: int, column: int) -> NoReturn:
        self.stop(line, column, f"more than {MAX_NODES:,} values, with aliases and extended files counted in")

    def _deepen(self, levels: int, line: int, column: int) -> None:
        if len(self._stack) + levels > MAX_DEPTH:
            self.stop(line, column, f"nested more than {MAX_DEPTH} deep")

    def _path(self) -> Iterator[str | int]:
        for frame in self._stack:
            if isinstance(frame.node.value, list):
                yield len(frame.node.value)
            elif frame.has_key and frame.key is not None:
                yield frame.key
            else:  # inside a key, or inside the value of a refused one: nothing further in has a path
                return


def kind_of(value: object) -> str:
    if value is None:
        return "nothing (null)"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return names.get(type(value), f"a Python {type(value).__name__}")


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        return f"more than {MAX_DIGITS} digits"  # to write them takes long, and Python refuses thousands of them
    text = json.dumps(value[:80] if isinstance(value, str) else value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]}..."
