"""The exceptions of mgcompile."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from mgcompile.escaping import visible

__all__ = ["InputError", "MgcompileError", "Problem", "ShapeError", "SpecError", "lack_of_memory"]


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
        return visible(f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}")


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


def lack_of_memory(error: BaseException) -> str | None:
    """In a line, what an allocator of Python's or PyTorch's could not give; None for every other error.

    >>> lack_of_memory(MemoryError())
    'there is not enough memory'
    """
    text = str(error)
    if not isinstance(error, MemoryError) and not any(sign in text for sign in _OUT_OF_MEMORY):
        return None
    asked = re.search(r"tried to allocate ([\d.]+) ?(bytes|[KMGT]iB)", text, re.IGNORECASE)
    if asked is None:
        return "there is not enough memory"
    amount = f"{int(asked[1]) / 1e9:,.1f} GB" if asked[2] == "bytes" else f"{asked[1]} {asked[2]}"
    return f"there is not enough memory: {amount} more are not to be had"


_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "out of memory",
    "not enough memory",
    "std::bad_alloc",
    "Storage size calculation overflowed",
)
"""What is in the texts of PyTorch's errors, which are `RuntimeError`s as most others are."""
