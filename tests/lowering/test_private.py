"""What is kept on disk is used where nobody else can have written it and it is whole; nothing fails without it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mgcompile.lowering import machine, private, tuning
from mgcompile.lowering.fused import FusedConv2d
from mgcompile.lowering.native import library as native
from mgcompile.lowering.native.library import library

needs_compiler = pytest.mark.skipif(library() is None, reason="no C++ compiler whose code works here")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
OTHER = 54321
"""A user that no system has."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where things are kept: not made yet. Nothing is loaded and nothing is known."""
    monkeypatch.setenv(machine.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(native.NATIVE, raising=False)
    library.cache_clear()
    tuning.forget()
    yield tmp_path / "cache"
    library.cache_clear()
    tuning.forget()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, compiled."""
    compiler = native._compiler()
    assert compiler is not None
    return native._build(compiler, tmp_path_factory.mktemp("built"))


@pytest.fixture
def quick(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled, is compiled already."""
    monkeypatch.setattr(native, "_build", lambda compiler, place: Path(shutil.copy(built, place)))


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    """A library that makes a file when it is loaded, its digest behind it, and that file."""
    place = tmp_path_factory.mktemp("plant")
    source, linked, mark = place / "plant.c", place / "plant.so", place / "it ran"
    source.write_text(
        f'#include <stdio.h>\n__attribute__((constructor)) void run(void) {{ fclose(fopen("{mark}", "w")); }}\n'
    )
    compiler = native._compiler()
    assert compiler is not None
    subprocess.run([compiler, "-xc", "-shared", "-fPIC", str(source), "-o", str(linked)], check=True)
    data = linked.read_bytes()
    return data + hashlib.blake2b(data, digest_size=32).digest(), mark


def expected_file(folder: Path) -> Path:
    compiler = native._compiler()
    assert compiler is not None
    return folder / f"native-{native._key(compiler)}.so"


def computes() -> bool:
    """Whether the first forward, with all that may be kept, is right."""
    conv = FusedConv2d(3, 4, (3, 3), padding=((1, 1), (1, 1))).eval().requires_grad_(False)
    conv.tune = True
    x = torch.linspace(-1, 1, 3 * 25).view(1, 3, 5, 5)
    return torch.allclose(conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1), atol=1e-5)


def link(file: Path, data: bytes) -> None:
    elsewhere = file.parent.parent / "elsewhere.so"
    elsewhere.write_bytes(data)
    file.symlink_to(elsewhere)


def others(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    os.chown(file, OTHER, OTHER)


def others_folder(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    os.chown(file.parent, OTHER, OTHER)


def mode(bits: int, *, of_folder: bool) -> Callable[[Path, bytes], None]:
    def write(file: Path, data: bytes) -> None:
        file.write_bytes(data)
        (file.parent if of_folder else file).chmod(bits)

    return write


PLANTS = [
    pytest.param(mode(0o777, of_folder=True), id="folder of all"),
    pytest.param(mode(0o1777, of_folder=True), id="sticky folder of all"),
    pytest.param(mode(0o770, of_folder=True), id="folder of a group"),
    pytest.param(mode(0o666, of_folder=False), id="file of all"),
    pytest.param(mode(0o660, of_folder=False), id="file of a group"),
    pytest.param(link, id="link"),
    pytest.param(others, id="file of another", marks=needs_root),
    pytest.param(others_folder, id="folder of another", marks=needs_root),
]


@needs_compiler
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("put", PLANTS)
def test_a_planted_library_is_not_loaded(
    put: Callable[[Path, bytes], None], folder: Path, plant: tuple[bytes, Path]
) -> None:
    data, mark = plant
    folder.mkdir(mode=0o700)
    file = expected_file(folder)
    put(file, data)
    before = folder.stat()
    mark.unlink(missing_ok=True)
    assert library() is not None
    assert not mark.exists()
    assert computes()
    if stat.S_IMODE(before.st_mode) != 0o700 or before.st_uid != os.geteuid():
        assert list(folder.iterdir()) == [file]  # and nothing is written there


@needs_compiler
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"no library",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:4096],
        lambda data: data[:5000] + b"\0" + data[5001:],
        lambda data: data + b"more",
    ],
)
def test_a_damaged_library_is_compiled_again(damage: Callable[[bytes], bytes], folder: Path) -> None:
    library()
    file = expected_file(folder)
    whole = file.read_bytes()
    draft = folder / "draft"  # the one that is loaded must not change under the process
    draft.write_bytes(damage(whole))
    draft.replace(file)
    library.cache_clear()
    assert library() is not None
    assert computes()
    assert file.read_bytes() == whole


@needs_compiler
@pytest.mark.usefixtures("quick")
def test_what_is_kept_is_for_this_user_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        assert computes()
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert {file.suffix for file in folder.iterdir()} == {".so", ".json", ".lock"}


def home(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(machine.CACHE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if value is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", value)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("value", [None, "", "/nonexistent", "/dev/null", "relative", "FILE", "READ-ONLY"])
def test_homes(value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    (tmp_path / "READ-ONLY").mkdir(mode=0o500)
    (tmp_path / "drafts").mkdir()
    home(str(tmp_path / value) if value and value.isupper() else value, monkeypatch)
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path / "drafts"))

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert computes()
    if value != "READ-ONLY":
        (made,) = (tmp_path / "drafts").iterdir()
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert not (tmp_path / "relative").exists()
    assert not Path("/nonexistent").exists()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("made", [True, False])
def test_a_relative_folder_for_caches_is_ignored(made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home(str(tmp_path), monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "here" if not made else str(tmp_path / "xdg"))
    assert machine.cache_folder() == tmp_path / ("xdg" if made else ".cache") / "mgcompile"
    assert computes()


@pytest.mark.usefixtures("quick")
def test_no_folder_for_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    home("/nonexistent", monkeypatch)

    def none() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(machine.tempfile, "gettempdir", none)
    assert computes()


NAMELESS = """
import os, torch, mgcompile
from mgcompile.lowering import machine, tuning
from mgcompile.lowering.native.library import library
model = mgcompile.compile("cifar100/mg-6", optimize="inference", tune=True)
for _ in range(3):
    model(torch.ones(1, 3, 8, 8))  # what it imports may be out of reach of others
os.environ.pop("MGCOMPILE_CACHE")
os.setgroups([])
os.setgid({0})
os.setuid({0})
library.cache_clear()
tuning.forget()
print(tuple(model.eval()(torch.ones(1, 3, 8, 8)).shape), machine.cache_folder())
"""


@needs_root
def test_a_user_without_a_name(tmp_path: Path) -> None:
    """As in a container that is given the number of a user: hardly an environment, no entry in the list of users."""
    with tempfile.TemporaryDirectory() as drafts:
        os.chmod(drafts, 0o777)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TMPDIR": drafts,
            machine.CACHE: str(tmp_path),
        }
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", NAMELESS.format(OTHER)],
            env=environment,
            cwd=drafts,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        expected = f"(1, 100) {drafts}/mgcompile-{OTHER}"
        assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "value", ["FILE", "FILE/below", "/dev/null", "/proc/self", "x" * 300, "/" + "y/" * 3000, "\udcff"]
)
def test_folders_that_cannot_be(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    monkeypatch.setenv(machine.CACHE, value)
    assert computes()


@pytest.mark.parametrize(
    "text", ["nonsense", "FOLDER", "exit 1", "head -c 9 /dev/urandom >&2; exit 1", "exit 0", "kill $$"]
)
def test_compilers(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cxx"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    monkeypatch.setenv("CXX", {"nonsense": "no such compiler", "FOLDER": str(tmp_path)}.get(text, str(file)))
    assert computes()


def test_a_compiler_that_hangs_goes_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cxx"
    file.write_text(f"#!/bin/sh\nsleep 60 & echo $! > {tmp_path}/number\nwait\n")
    file.chmod(0o700)
    monkeypatch.setenv("CXX", str(file))
    monkeypatch.setattr(native, "SECONDS", 0.5)
    start = time.monotonic()
    assert computes()
    assert time.monotonic() - start < 20
    number = int((tmp_path / "number").read_text())
    end = time.monotonic() + 10
    while is_running(number) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(number)


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@needs_compiler
def test_a_disk_that_is_full(folder: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    seen = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        assert computes()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, seen)
    assert not [*folder.glob("*.so"), *folder.glob("*.json"), *folder.glob(".*")]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "large", "numbers", "deep", "surrogate"])
def test_choices_that_are_none(kind: str, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    file = tuning.cache_file()
    victim = folder.parent / "victim"
    victim.write_text("mine")
    if kind == "pipe":
        os.mkfifo(file)
        os.mkfifo(file.with_suffix(".lock"))
    elif kind == "link":
        file.symlink_to(victim)
        file.with_suffix(".lock").symlink_to(victim)
    elif kind == "folder":
        file.mkdir()
        file.with_suffix(".lock").mkdir()
    else:
        head = f'{{"machine": "{machine.machine()}", "ways": '
        texts = {
            "large": " " * (private.MOST_BYTES + 1),
            "numbers": head + '{"a": ' + "1" * 5000 + "}}",
            "deep": head + "[" * 100_000,
            "surrogate": head + '{"\\ud800": "\\udfff"}}',
        }
        file.write_text(texts[kind])
    assert computes()
    assert victim.read_text() == "mine"


@pytest.mark.usefixtures("quick")
def test_a_lock_that_nobody_gives_back(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with tuning.cache_file().with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert computes()
    assert tuning.cache_file().is_file()
