"""Files that are whole or not there: links, modes, streams, long names, and what is refused."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import nn

import mgcompile
from mgcompile.errors import MgcompileError
from mgcompile.lowering.checkpoints import save
from mgcompile.outputs import replacing, write_file
from tests.test_cli import process

SPEC = "{version: 1, name: small, input: {channels: 3, size: 8}, layers: [conv: {channels: 4}]}"

Writer = Callable[[Path], object]


def spec_files(folder: Path) -> None:
    (folder / "small.yaml").write_text(
        "{version: 1, name: small, input: {channels: 3, size: 8}, layers: [conv: {channels: 4}]}"
    )


def by_command(*args: str) -> Writer:
    def write(path: Path) -> None:
        from click.testing import CliRunner

        from mgcompile.cli import main

        result = CliRunner().invoke(main, [*args, "-o", str(path)])
        if result.exit_code:
            raise MgcompileError(result.stderr)

    return write


WRITERS: dict[str, tuple[str, Writer]] = {
    "write_file": (".txt", lambda path: write_file(path, b"new")),
    "save": (".safetensors", lambda path: save(nn.Linear(2, 2), path)),
    "draw": (".svg", lambda path: mgcompile.draw("small.yaml", path)),
    "compile": (".safetensors", by_command("compile", "small.yaml")),
    "source": (".py", by_command("compile", "small.yaml")),
    "audit": (".json", by_command("audit", "small.yaml")),
    "report": (".html", by_command("report", "small.yaml")),
    "fit": (".yaml", by_command("fit", "family.yaml", "--vary", "n", "--params", "1000")),
}


@pytest.fixture(params=WRITERS)
def writer(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Writer]]:
    monkeypatch.chdir(tmp_path)
    spec_files(tmp_path)
    (tmp_path / "family.yaml").write_text(
        "{version: 1, name: f, params: {n: 2}, input: {channels: 3, size: 8}, layers: [conv: {channels: '${n}'}]}"
    )
    (tmp_path / "to").mkdir()
    before = os.umask(0o027)
    yield WRITERS[request.param]
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_writer_keeps_what_is_there(writer: tuple[str, Writer], tmp_path: Path) -> None:
    suffix, write = writer
    folder = tmp_path / "to"
    new = folder / f"{'x' * (255 - len(suffix))}{suffix}"
    write(new)
    assert mode(new) == 0o640
    content = new.read_bytes()
    target, link, twin = (folder / f"{name}{suffix}" for name in ("target", "link", "twin"))
    target.write_bytes(b"old" * 10_000)
    target.chmod(0o604)
    link.symlink_to(target.name)
    twin.hardlink_to(target)
    write(link)
    assert link.is_symlink()
    assert twin.samefile(target)
    assert len(target.read_bytes()) == len(content)
    assert mode(target) == 0o604
    assert len(list(folder.iterdir())) == 4
    target.chmod(0o444)
    kept = target.read_bytes()
    with pytest.raises(MgcompileError, match="read-only"):
        write(target)
    with pytest.raises(MgcompileError):
        write(folder / f"{'x' * 256}{suffix}")
    with pytest.raises(MgcompileError, match="there is no folder"):
        write(tmp_path / "none" / f"x{suffix}")
    assert target.read_bytes() == kept
    assert len(list(folder.iterdir())) == 4


def test_streams_are_written_to(writer: tuple[str, Writer], tmp_path: Path) -> None:
    suffix, write = writer
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write(pipe)
    reader.join(10)
    assert got[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    null = tmp_path / f"null{suffix}"
    null.symlink_to(os.devnull)
    write(null)
    assert not Path(os.devnull).is_file()


def test_a_link_that_leads_nowhere_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("later")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "later").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "far").symlink_to("none/later")
    with pytest.raises(MgcompileError, match=r"there is no folder .*none"):
        write_file(tmp_path / "far", b"new")


@pytest.mark.parametrize("name", ["a\0b", ".", "é" * 200, "\udcff"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    target = f"{tmp_path}/{name}"
    if name == "\udcff":
        write_file(target, b"new")
        return
    with pytest.raises(MgcompileError):
        write_file(target, b"new")
    assert not list(tmp_path.iterdir())


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")

    def fail() -> None:
        with replacing(target, sync=True) as draft:
            draft.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]
    write_file(target, b"new", sync=True)
    assert target.read_bytes() == b"new"


def test_standard_output_that_is_a_file(tmp_path: Path) -> None:
    """What was written there before stays, and nothing is written over what is new."""
    spec_files(tmp_path)
    with open(tmp_path / "out", "ab") as out:
        out.write(b"before\n")
        out.flush()
        command = ["show", "small.yaml", "-o", "/dev/stdout"]
        done = process(*command, cwd=tmp_path, stdout=out, stderr=subprocess.PIPE, capture_output=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = (tmp_path / "out").read_text().splitlines()
    assert first == "before"
    assert rest[0] == "version: 1"
    assert "wrote" not in rest[-1]
