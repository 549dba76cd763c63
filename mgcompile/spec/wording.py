"""Words for messages: found values, lists of names, what may have been meant. All are short, whatever they are of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import islice

__all__ = ["listed", "nearest", "quoted", "short", "show"]

MOST_CHARACTERS = 60
MOST_ITEMS = 8
MOST_NAMES = 20
MOST_CANDIDATES = 300
LONGEST_NAME = 60


def show(value: object) -> str:
    """A found value as a spec would have it, short enough for a message.

    >>> show({"size": [32, None]})
    '{size: [32, null]}'
    """
    return _cut("nothing (null)" if value is None else _flow(value, 3))


def quoted(text: str) -> str:
    """A key or a name in quotes, cut where it is long.

    >>> quoted("chanels")
    "'chanels'"
    """
    return _cut(repr(text[: 2 * MOST_CHARACTERS]))


def listed(names: Iterable[object]) -> str:
    """Some names, the first of many.

    >>> listed("abc"), listed([])
    ('a, b, c', 'none')
    """
    found = [str(name) for name in islice(names, MOST_NAMES + 1)]
    return ", ".join(found[:MOST_NAMES] + ["..."] * (len(found) > MOST_NAMES)) or "none"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is closest to one, empty where none is close; of many, only the last are looked at.

    >>> nearest("chanels", ["channels", "kernel"])
    'channels'
    """
    if len(word) > LONGEST_NAME:
        return ""  # the search takes time by the product of the lengths
    names = list(known)[-MOST_CANDIDATES:]
    found = get_close_matches(word, [name for name in names if len(name) <= LONGEST_NAME], 1)
    return found[0] if found else ""


def short(text: str) -> str:
    """A text, cut where it is long.

    >>> short("a" * 100)[70:]
    'aaaaaa...'
    """
    return text if len(text) <= 80 else f"{text[:76]}..."


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."


def _flow(value: object, depth: int) -> str:
    """The beginning of a value in YAML's flow style."""
    if isinstance(value, Mapping | list | tuple):
        if not depth and value:
            return "..."
        items = [*islice(value.items() if isinstance(value, Mapping) else value, MOST_ITEMS)]
        if isinstance(value, Mapping):
            return f"{{{', '.join(f'{_cut(str(key))}: {_flow(item, depth - 1)}' for key, item in items)}}}"
        return f"[{', '.join(_flow(item, depth - 1) for item in items)}]"
    if isinstance(value, str):
        return repr(str(value[: 2 * MOST_CHARACTERS]))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
