"""Reads a spec: from text, a file or a Python mapping to plain data, with the place that every value came from.

`extends` is resolved here: a file's mappings win over its base's, key by key.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from mgcompile.errors import Problem, SpecError
from mgcompile.spec.scanning import scan_json, scan_python, scan_yaml
from mgcompile.spec.tree import Builder, Node, Stop, kind_of

__all__ = ["Mark", "Source", "SourcePath", "parse_source", "read_source", "source_of_mapping"]

MAX_BYTES: Final = 8 * 2**20
MAX_FILES: Final = 16

SourcePath: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; `line` and `column` count from 1 and are 0 where there is no text to point at."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Source:
    """A spec as plain data, `extends` merged in, that knows where each value came from. Not to be changed.

    `name` is the file as the user named it, `<mapping>` for a spec that is a Python mapping.
    """

    name: str
    data: dict[str, Any]
    _root: Node = field(repr=False, compare=False)

    def locate(self, path: SourcePath, *, key: bool = False) -> Mark:
        """The place of the value at `path`, or of its key; of the nearest ancestor where nothing is at `path`."""
        node = self._root
        for step in path:
            child = node.child(step)
            if child is not None:
                node = child
            elif not (isinstance(step, str) and isinstance(node.value, list)):
                break
            # else a list stands for the option that is a list, as in `residual: [...]`
        return Mark(node.file, node.key_line, node.key_column) if key else Mark(node.file, node.line, node.column)


def read_source(path: str | os.PathLike[str], *, zoo: Path | None = None) -> Source:
    """Reads the spec in a file, JSON if its name ends in `.json` and YAML otherwise, and all that it `extends`.

    `extends` names a file relative to the one that says so, or `zoo/<name>.yaml` where there is no such file.

    Raises:
        SpecError: the file cannot be read, is no YAML or JSON, breaks a limit, or extends one that does.
    """
    name = os.fspath(path)
    return _source(_read_tree(name, 0, None), name, zoo)


def parse_source(text: str | bytes, file: str, *, json: bool = False, zoo: Path | None = None) -> Source:
    """Reads a spec from text. `file` is the name to show; `extends` in it is relative to the folder of `file`.

    Raises:
        SpecError: as `read_source`.
    """
    return _source(_tree_of_text(text, file, json, 0), file, zoo)


def source_of_mapping(data: Mapping[str, Any], *, zoo: Path | None = None) -> Source:
    """Takes a spec from Python data, as a copy; `extends` in it is relative to the current folder.

    Raises:
        SpecError: something in it is not text, a number, true, false, null, a list or a mapping with text as keys;
            it contains itself; or it breaks a limit that files have too.
    """
    builder = Builder("<mapping>", 0)
    with contextlib.suppress(Stop):
        scan_python(data, builder)
    return _source(builder.finish(), builder.file, zoo)


# --- Files ----------------------------------------------------------------------------------------------------------

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def _read_tree(name: str, nodes_before: int, asked_at: Problem | None) -> Node:
    """The tree of one file; a file that cannot be opened is reported at `asked_at`, the `extends` that named it."""
    try:
        with open(name, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        reason = "no such file"
    except IsADirectoryError:
        reason = "is a folder, not a file"
    except PermissionError:
        reason = "no permission to read it"
    except (OSError, ValueError) as error:
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    else:
        return _tree_of_text(content, name, name.lower().endswith(".json"), nodes_before)
    if asked_at is None:
        raise SpecError([Problem(name, 0, 0, "", reason)])
    raise SpecError([_at(asked_at, f"{name}: {reason}")])


def _tree_of_text(text: str | bytes, file: str, json: bool, nodes_before: int) -> Node:
    builder = Builder(file, nodes_before)
    with contextlib.suppress(Stop):
        decoded = _decode(text, builder)
        if json and decoded.strip():
            scan_json(decoded, builder)
        else:
            _check_printable(decoded, builder)
            scan_yaml(decoded, builder)
    return builder.finish()


def _decode(text: str | bytes, builder: Builder) -> str:
    # A text of that many characters has at least as many bytes.
    if len(text) > MAX_BYTES:
        builder.stop(0, 0, f"is larger than {MAX_BYTES // 2**20} MiB")
    if isinstance(text, bytes):
        if text.startswith((b"\xff\xfe", b"\xfe\xff")):
            builder.stop(0, 0, "is UTF-16 or UTF-32; save it as UTF-8")
        if b"\0" in text:
            builder.stop(0, 0, "holds NUL bytes: it is binary or UTF-16; a spec is text in UTF-8")
        text = _decode_utf8(text, builder)
    return text.removeprefix("\ufeff")


def _decode_utf8(text: bytes, builder: Builder) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        before = text[: error.start].decode("utf-8")
        builder.stop(*_place(before), f"the byte 0x{text[error.start]:02x} is not UTF-8; save the file as UTF-8")


def _check_printable(text: str, builder: Builder) -> None:
    # Done here because PyYAML gives no line for it.
    match = _UNPRINTABLE.search(text)
    if match:
        code = f"U+{ord(match.group()):04X}"
        builder.stop(*_place(text[: match.start()]), f"the character {code} is not allowed; remove or escape it")


def _place(before: str) -> tuple[int, int]:
    """The line and column that come after a text."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


# --- extends --------------------------------------------------------------------------------------------------------


def _source(root: Node, name: str, zoo: Path | None) -> Source:
    """Follows `extends` to the last base, then merges from there."""
    trees: list[Node] = []
    names = [name]
    while True:
        base = _base(root, names, zoo)
        trees.append(root)
        if base is None:
            break
        names.append(base[0])
        root = _read_tree(base[0], sum(tree.size for tree in trees), base[1])
    merged = _without_extends(trees.pop())
    while trees:
        merged = _merge(_without_extends(trees.pop()), merged)
    data: dict[str, Any] = _plain(merged)
    return Source(name, data, merged)


def _without_extends(root: Node) -> Node:
    items = root.value.items() if isinstance(root.value, dict) else ()
    return root.with_value({key: node for key, node in items if key != "extends"})


def _base(root: Node, names: list[str], zoo: Path | None) -> tuple[str, Problem] | None:
    """The file that the last of `names` extends, and a problem without text at the place that says so."""
    value = root.child("extends")
    if value is None:
        return None
    here = Problem(value.file, value.line, value.column, "extends", "")
    if not isinstance(value.value, str) or not value.value:
        raise SpecError([_at(here, f"expected the name of a file, found {kind_of(value.value or None)}")])
    base = _find(value.value, os.path.dirname(names[-1]), zoo)
    if base is None:
        known = f" and no `{value.value}` in the zoo" if zoo is not None else ""
        folder = os.path.dirname(names[-1]) or "the current folder"
        raise SpecError([_at(here, f"no file `{value.value}` in {folder}{known}")])
    if os.path.realpath(base) in map(os.path.realpath, names):
        raise SpecError([_at(here, f"the files extend each other in a circle: {' -> '.join([*names, base])}")])
    if len(names) == MAX_FILES:
        raise SpecError([_at(here, f"a chain of more than {MAX_FILES} files: {' -> '.join([*names, base])}")])
    return base, here


def _find(base: str, folder: str, zoo: Path | None) -> str | None:
    candidates = [os.path.join(folder, base)]
    if zoo is not None:
        candidates.append(os.path.join(zoo, f"{base}.yaml"))
    # isfile says False to names that no system takes (too long, NUL), where Path.is_file raises.
    return next((name for name in candidates if os.path.isfile(name)), None)


def _at(place: Problem, message: str) -> Problem:
    return Problem(place.file, place.line, place.column, place.path, message)


def _merge(child: Node, base: Node) -> Node:
    """The child's mappings win key by key; its lists and scalars replace the base's whole. At most MAX_DEPTH deep."""
    if not isinstance(child.value, dict) or not isinstance(base.value, dict):
        return child
    merged = dict(base.value)
    for key, node in child.value.items():
        merged[key] = _merge(node, merged[key]) if key in merged else node
    return child.with_value(merged)


def _plain(node: Node) -> Any:
    """Fresh Python data, aliases expanded, so that no two places share a list. At most MAX_DEPTH deep."""
    if isinstance(node.value, dict):
        return {key: _plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(child) for child in node.value]
    return node.value
