"""Reads a spec: from text, a file or a Python mapping to plain data, with the place that every value came from.

`extends` is resolved here: a file's mappings win over its base's, key by key.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from mgcompile.errors import Problem, SpecError
from mgcompile.spec.scanning import scan_json, scan_python, scan_yaml
from mgcompile.spec.tree import Builder, Node, Stop, kind_of
from mgcompile.spec.wording import short

__all__ = ["Mark", "Source", "SourcePath", "parse_source", "read_source", "source_of_mapping"]

MAX_BYTES: Final = 8 * 2**20
MAX_FILES: Final = 16
SUFFIXES: Final = (".yaml", ".yml", ".json")

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

    `name` is the file as the user named it, `<mapping>` for a spec that is a Python mapping; `files` are this one and
    those that it extends.
    """

    name: str
    data: dict[str, Any]
    files: tuple[str, ...]
    _root: Node = field(repr=False, compare=False)

    def is_foreign(self, path: SourcePath) -> bool:
        """Whether what stands at `path` is from another file than the one that the user named."""
        return self.locate(path).file != self.name

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


@dataclass(frozen=True, slots=True)
class _Reach:
    """What `extends` may read: nothing where it is not `allowed`, else specs below the folder of the first one and in
    the `zoo`, and with `outside` specs anywhere.
    """

    zoo: Path | None = None
    outside: bool = False
    allowed: bool = True


def read_source(path: str | os.PathLike[str], *, zoo: Path | None = None, allow_outside: bool = False) -> Source:
    """Reads the spec in a file, JSON if its name ends in `.json` and YAML otherwise, and all that it `extends`.

    `extends` names a file relative to the one that says so, or `zoo/<name>.yaml` where there is no such file: a spec in
    the folder of `path` or below it, or in the zoo; with `allow_outside` one anywhere.

    Raises:
        SpecError: the file cannot be read, is no YAML or JSON, breaks a limit, or extends one that does.
    """
    name = os.fspath(path)
    return _source(_read_tree(name), name, _Reach(zoo, allow_outside))


def parse_source(
    text: str | bytes,
    file: str,
    *,
    json: bool = False,
    zoo: Path | None = None,
    allow_outside: bool = False,
    extends: bool = True,
) -> Source:
    """Reads a spec from text. `file` is the name to show; `extends` in it is relative to the folder of `file`,
    and refused without `extends`.

    Raises:
        SpecError: as `read_source`.
    """
    return _source(_tree_of_text(text, Builder(file, 0), json), file, _Reach(zoo, allow_outside, extends))


def source_of_mapping(data: Mapping[str, Any], *, zoo: Path | None = None, allow_outside: bool = False) -> Source:
    """Takes a spec from Python data, as a copy; `extends` in it is relative to the current folder.

    Raises:
        SpecError: something in it is not text, a number, true, false, null, a list or a mapping with text as keys;
            it contains itself; or it breaks a limit that files have too.
    """
    builder = Builder("<mapping>", 0)
    with contextlib.suppress(Stop):
        scan_python(data, builder)
    return _source(builder.finish(), builder.file, _Reach(zoo, allow_outside))


# --- Files ----------------------------------------------------------------------------------------------------------

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


_OWN = re.compile(r"/dev/(stdin|fd/\d+)|/proc/self/fd/\d+")
"""Files that are open already, as a shell's `<(...)` is; a read of one waits as a read of standard input does."""


def _read_tree(name: str) -> Node:
    """The tree of the file that a user named."""
    content, reason = _content(name)
    if reason:
        raise SpecError([Problem(name, 0, 0, "", reason)])
    return _tree_of_text(content, Builder(name, 0), _is_json(name))


def _read_base(name: str, nodes_before: int, asked_at: Problem) -> Node:
    """The tree of a file that another one extends. What is wrong with it is told without what stands in it."""
    content, reason = _content(name)
    if reason:
        raise SpecError([_at(asked_at, f"{name}: {reason}")])
    return _tree_of_text(content, Builder(name, nodes_before, foreign=True), _is_json(name))


def _is_json(name: str) -> bool:
    return name.lower().endswith(".json")


def _content(name: str) -> tuple[bytes, str]:
    """What is in a file, at most one byte more than a spec may have; or why it cannot be read."""
    try:
        with open(name, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                if not _OWN.fullmatch(name):
                    return b"", "is a pipe, a device or a socket, not a file; `-` reads standard input"
                os.set_blocking(file.fileno(), True)
            return file.read(MAX_BYTES + 1), ""
    except FileNotFoundError:
        return b"", "no such file"
    except IsADirectoryError:
        return b"", "is a folder, not a file"
    except PermissionError:
        return b"", "no permission to read it"
    except (OSError, ValueError) as error:
        return b"", f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _open_at_once(name: str, flags: int) -> int:
    """A descriptor, without waiting for somebody to write to a pipe."""
    return os.open(name, flags | os.O_NONBLOCK)


def _tree_of_text(text: str | bytes, builder: Builder, json: bool) -> Node:
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


def _source(root: Node, name: str, reach: _Reach) -> Source:
    """Follows `extends` to the last base, then merges from there."""
    trees: list[Node] = []
    names = [name]
    while True:
        base = _base(root, names, reach)
        trees.append(root)
        if base is None:
            break
        names.append(base[0])
        root = _read_base(base[0], sum(tree.size for tree in trees), base[1])
    merged = _without_extends(trees.pop())
    while trees:
        merged = _merge(_without_extends(trees.pop()), merged)
    data: dict[str, Any] = _plain(merged)
    return Source(name, data, tuple(names), merged)


def _without_extends(root: Node) -> Node:
    items = root.value.items() if isinstance(root.value, dict) else ()
    return root.with_value({key: node for key, node in items if key != "extends"})


def _base(root: Node, names: list[str], reach: _Reach) -> tuple[str, Problem] | None:
    """The file that the last of `names` extends, and a problem without text at the place that says so."""
    value = root.child("extends")
    if value is None:
        return None
    here = Problem(value.file, value.line, value.column, "extends", "")
    if not isinstance(value.value, str) or not value.value:
        raise SpecError([_at(here, f"expected the name of a file, found {kind_of(value.value or None)}")])
    if not reach.allowed:
        raise SpecError([_at(here, "the spec of a checkpoint is whole and extends no other")])
    base = _find(value.value, names, reach, here)
    if os.path.realpath(base) in map(os.path.realpath, names):
        raise SpecError([_at(here, f"the files extend each other in a circle: {' -> '.join([*names, base])}")])
    if len(names) == MAX_FILES:
        raise SpecError([_at(here, f"a chain of more than {MAX_FILES} files: {' -> '.join([*names, base])}")])
    return base, here


def _find(base: str, names: list[str], reach: _Reach, here: Problem) -> str:
    """The file that a name in `extends` means. Whether a file exists is only told of files that may be read."""
    folder = os.path.dirname(names[-1])
    beside = os.path.join(folder, base)
    candidates: list[tuple[str, str | Path]] = [(beside, os.path.dirname(names[0]) or os.curdir)]
    if reach.zoo is not None:
        candidates = [*candidates, (os.path.join(reach.zoo, f"{base}.yaml"), reach.zoo), (beside, reach.zoo)]
    within = [name for name, root in candidates if reach.outside or _is_below(name, root)]
    # isfile says False to names that no system takes (too long, NUL), where Path.is_file raises.
    files = list(filter(os.path.isfile, within))
    if found := next((name for name in files if name.lower().endswith(SUFFIXES)), None):
        return found
    if files:
        reason = f"`{short(base)}`: the name of a spec ends in {', '.join(SUFFIXES)}"
    elif beside not in within:
        reason = (
            f"`{short(base)}` lies outside of the folder of {names[0]}, below which files that it extends are read; "
            "--allow-outside (in Python `allow_outside=True`) reads it"
        )
    else:
        known = f" and no `{short(base)}` in the zoo" if reach.zoo is not None else ""
        reason = f"no file `{short(base)}` in {folder or 'the current folder'}{known}"
    raise SpecError([_at(here, reason)])


def _is_below(name: str, folder: str | Path) -> bool:
    """Whether a file is in a folder or below it, links resolved."""
    try:
        root = os.path.realpath(folder)
        return os.path.commonpath([root, os.path.realpath(name)]) == root
    except (OSError, ValueError):  # NUL in a name
        return False


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
