"""What a safetensors file says of itself, read and checked before anything of it is loaded or allocated."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from safetensors import SafetensorError, safe_open

from mgcompile.errors import MgcompileError
from mgcompile.escaping import brief
from mgcompile.graph import Shape
from mgcompile.inputs import open_regular

__all__ = ["Header", "read_header"]

SPEC, DATA = "mgcompile.spec", "mgcompile.data"
"""The keys of a file's metadata: the spec, and in JSON which data it was trained on."""

LENGTH_BYTES = 8
MOST_BYTES = 8 << 20
"""A longer header is not read; that of a thousand tensors has a hundredth of it."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds: its spec and which data it was trained on, None where it does not say; the shape of each of
    its tensors by name.
    """

    spec: str | None
    shapes: Mapping[str, Shape]
    data: Any = None


def read_header(path: str | os.PathLike[str]) -> Header:
    """The header of a file. Takes no more memory than a header may, whatever the file claims.

    Raises `MgcompileError` where there is no such file, or it is not a whole and valid safetensors file.
    """
    name = os.fspath(path)
    try:
        with open_regular(name) as file:
            text = _header_bytes(file)
        with safe_open(path, framework="np"):  # offsets that overlap, types that do not exist, a file that ends early
            header = json.loads(text, object_pairs_hook=_unique)
        about = header.pop("__metadata__", None) or {}
        data = json.loads(about[DATA]) if DATA in about else None
    except OSError as error:
        raise MgcompileError(f"cannot read {name}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise MgcompileError(f"cannot read {name}: it is no safetensors file: {_reason(error)}") from error
    return Header(about.get(SPEC), {key: tuple(entry["shape"]) for key, entry in header.items()}, data)


def _header_bytes(file: IO[bytes]) -> bytes:
    """Raises `ValueError` where the file has no header, or one that is not read."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if size < LENGTH_BYTES or length > size - LENGTH_BYTES:
        raise ValueError(f"of its {size:,} bytes the first eight say that a header of {length:,} follows")
    if length > MOST_BYTES:
        raise ValueError(f"its header has {length:,} bytes; at most {MOST_BYTES:,} are read")
    return file.read(length)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"'{brief(twice)}' is in its header twice")
    return found


def _reason(error: Exception) -> str:
    return str(error).removeprefix("Error while deserializing header: ").splitlines()[0][:200]
