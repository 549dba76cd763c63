"""Compiling the C++ kernels with the machine's compiler, once, and loading them.

What is compiled lies in the folder of the tuning cache, under a name made of the source, the compiler and the
processor, its digest behind it. It is loaded where it is whole and nobody else can have written it; see `private`.
`$CXX` names the compiler, else g++, clang++ or c++ is looked for; `MGCOMPILE_NATIVE=0` does without.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional as F

from mgcompile.lowering import private
from mgcompile.lowering.machine import cache_folder, processor, processor_features

__all__ = ["NATIVE", "ConvArgs", "PartArgs", "library"]

NATIVE = "MGCOMPILE_NATIVE"
"""The environment variable that, set to 0, turns the kernels off."""
SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ("-O3", "-march=native", "-std=gnu++17", "-fPIC", "-fopenmp")
SECONDS = 60
"""The compiler needs one or two."""

DIGEST_BYTES = 32

log = logging.getLogger(__name__)


class PartArgs(ctypes.Structure):
    """`Part` of kernels.cpp."""

    _fields_ = [(name, ctypes.c_int) for name in ("channels", "height", "width", "step")]


class ConvArgs(ctypes.Structure):
    """`Conv` of kernels.cpp."""

    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("parts", ctypes.POINTER(PartArgs)),
        *(
            (name, ctypes.c_int)
            for name in ("count", "batch", "fine_height", "fine_width", "height", "width", "channels")
        ),
        *((name, ctypes.c_int) for name in ("top", "left", "relu", "half")),
    ]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they are turned off, or there is no compiler that makes them and they work.

    The first call on a machine takes a second.
    """
    if os.environ.get(NATIVE) == "0":
        return None
    compiler = _compiler()
    if compiler is None:
        log.info("no C++ compiler: optimised models compute all convolutions with PyTorch's own kernels")
        return None
    try:
        found = _loaded(compiler, cache_folder() / f"native-{_key(compiler)}.so")
        works = _computes(found)
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        log.info("the C++ kernels cannot be made here, PyTorch's own are used: %s", error)
        return None
    if not works:
        log.warning("the C++ kernels compute nonsense here and are not used: %s, %s", compiler, FLAGS)
    return found if works else None


def _loaded(compiler: str, file: Path) -> ctypes.CDLL:
    """The library in the file or, where it is not there, damaged, not to be trusted or cannot be kept, made anew."""
    try:
        return _kept(file)
    except FileNotFoundError:
        pass  # the first time
    except (OSError, AttributeError) as error:
        log.info("the C++ kernels are compiled again: %s", error)
    with tempfile.TemporaryDirectory(prefix="mgcompile-", ignore_cleanup_errors=True) as place:
        built = _build(compiler, Path(place))
        try:
            data = built.read_bytes()
            private.write(file, data + _digest(data))
        except OSError as error:
            log.info("the C++ kernels are for this process alone: %s", error)
        return _declared(ctypes.CDLL(str(built)))  # it stays loaded when its file is gone


def _kept(file: Path) -> ctypes.CDLL:
    """The library in the file. Raises `OSError` where it is not there, not whole or not to be trusted."""
    with private.opened(file.parent) as folder:
        data = private.read_at(folder, file)
        whole, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if _digest(whole) != digest:  # before it is loaded: a part of a library kills the process
            raise OSError(f"{file}: damaged")
        # In the folder that was looked at, whatever is called so now.
        through = Path(f"/proc/self/fd/{folder}") / file.name
        return _declared(ctypes.CDLL(str(through if through.exists() else file)))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def _compiler() -> str | None:
    for name in filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++")):
        if path := shutil.which(name):
            return os.path.realpath(path)
    return None


def _key(compiler: str) -> str:
    about = os.stat(compiler)
    words = (
        SOURCE.read_text(encoding="utf-8"),
        compiler,
        about.st_size,
        about.st_mtime_ns,
        FLAGS,
        processor(),
        processor_features(),
    )
    return hashlib.blake2b(repr(words).encode(), digest_size=8).hexdigest()


def _build(compiler: str, place: Path) -> Path:
    """Compile in a folder.

    It is linked without a library for OpenMP, so that it finds the one that PyTorch has loaded, and its threads.
    """
    built, linked = place / "native.o", place / "native.so"
    for command in ([*FLAGS, "-c", str(SOURCE), "-o", str(built)], ["-shared", str(built), "-o", str(linked)]):
        _run([compiler, *command])
    return linked


def _run(command: Sequence[str]) -> None:
    """Run a compiler. Raises `OSError` where it fails and `subprocess.TimeoutExpired` where it takes too long."""
    # The compiler is the user's own, and nothing of a spec gets into its arguments.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as running:
        try:
            _, said = running.communicate(timeout=SECONDS)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)  # with whatever it has started
            raise
    if running.returncode:
        raise OSError(f"{command[0]}: {said.strip()[:500]}")


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int
    parts = ctypes.POINTER(PartArgs)
    found.mgcompile_winograd_kernel.argtypes = [pointer, parts, number, number, pointer, number]
    found.mgcompile_winograd_size.argtypes = [parts, number, number]
    found.mgcompile_winograd_size.restype = ctypes.c_size_t
    found.mgcompile_winograd.argtypes = [pointer, pointer, pointer, pointer, number]
    found.mgcompile_pool_2x2.argtypes = [pointer, pointer, *[number] * 6]
    found.mgcompile_finish.argtypes = [pointer, ctypes.c_size_t, number, number, number]
    for name in ("mgcompile_winograd_kernel", "mgcompile_pool_2x2"):
        getattr(found, name).restype = None
    return found


def _computes(found: ctypes.CDLL) -> bool:
    """Whether a small convolution comes out right."""
    from mgcompile.lowering.native.winograd import Parts, Winograd, transformed

    x = torch.linspace(-1, 1, 2 * 3 * 5 * 6).reshape(2, 5, 6, 3).permute(0, 3, 1, 2)
    weight = torch.linspace(1, -1, 4 * 3 * 9).reshape(4, 3, 3, 3)
    parts = Parts([(2, 3, 5, 6)], [0], (5, 6), ((1, 1), (1, 1)))
    conv = Winograd(found, parts, transformed(found, parts, weight), 4, None, relu=False)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):  # whatever the first caller works in
        y = conv.run([x], [])
        return y is not None and torch.allclose(y, F.conv2d(x, weight, padding=1), rtol=1e-4, atol=1e-4)
