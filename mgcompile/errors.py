"""The exceptions of mgcompile. This module imports nothing else of the project."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

__all__ = ["InputError", "MgcompileError", "Problem", "ShapeError", "SpecError", "printable"]


def printable(text: str) -> str:
    """A text on one line without anything that a terminal would act on: what is not printable becomes its escape.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() else each.encode("unicode_escape").decode() for each in text])


class MgcompileError(Exception):
    """Anything that mgcompile itself refuses or cannot do; the command line prints it and exits 1."""


class InputError(MgcompileError):
    """What mgcompile was given is wrong; the command line prints it and exits 2."""


class ShapeError(InputError):
    """An operation was given values that it cannot take. The message names the numbers involved."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong with a spec.

    `file` is as the user named it; `line` and `column` count from 1, and are 0 where there is no text to point at (a
    mapping passed from Python, a missing file). `path` reads like `layers[5].conv.channels`. As text it is one line, in
    which what a terminal would act on is escaped; the fields hold it as it was found.
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return printable(f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}")


_PLACE = attrgetter("file", "line", "column", "path", "message")  # tuples compare faster than problems do


class SpecError(InputError):
    """A spec is wrong. `errors` holds its problems in the order of the file: all of them, or where there are too many
    the first ones and in `more` the number of the others.
    """

    def __init__(self, errors: Iterable[Problem], more: int = 0) -> None:
        self.errors: tuple[Problem, ...] = tuple(sorted(set(errors), key=_PLACE))
        self.more = more
        super().__init__("\n".join([*map(str, self.errors), *([f"and {more:,} more"] if more else [])]))

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[Problem, ...], int]]:
        return type(self), (self.errors, self.more)
