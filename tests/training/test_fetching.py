"""Downloads from a server on this machine that behaves well, and badly in every way that networks do."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mgcompile.training import fetching
from mgcompile.training.fetching import REMOTES, Remote, fetch
from mgcompile.training.files import DataError

FIRST, SECOND = bytes(range(256)) * 10_000, gzip.compress(b"second", mtime=0)  # the first comes in three chunks


class Handler(BaseHTTPRequestHandler):
    """The path of a request says how it is answered."""

    def do_GET(self) -> None:
        asked.append(self.path)
        _, way, name = self.path.split("/")
        body = {"first.bin": FIRST, "second.gz": SECOND}[name]
        if way == "gone":
            self.send_error(404)
            return
        if way == "garbage":
            self.wfile.write(b"who is there?\r\n\r\n")
            return
        if way in {"moved", "away"}:
            address = f"/good/{name}" if way == "moved" else f"https://127.0.0.1:1/good/{name}"
            self.send_response(302)
            self.send_header("Location", address)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        if way in {"vast", "nonsense"}:
            self.send_header("Content-Length", {"vast": str(1 << 40), "nonsense": "9" * 5000}[way])
        elif way not in {"unsized", "endless"}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if way in {"endless", "drip"}:
            self.send_for_long(bytes(1 << 16) if way == "endless" else b"x")
            return
        if way == "stalled":
            self.wfile.write(body[:1])
            self.wfile.flush()
            released.wait(10)
            return
        self.wfile.write({"cut": body[: len(body) // 2], "wrong": body[:-1] + b"?"}.get(way, body))

    def send_for_long(self, some: bytes) -> None:
        for _ in range(200):
            self.wfile.write(some)
            self.wfile.flush()
            if len(some) == 1 and released.wait(0.02):
                return

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: here clients hang up in the middle on purpose."""


asked: list[str] = []
released = threading.Event()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def unproxied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetching, "SCHEMES", frozenset({"http"}))
    asked.clear()
    released.clear()


def served(monkeypatch: pytest.MonkeyPatch, address: str, way: str) -> None:
    """Two files for mnist, the second in the way that is asked for."""
    remotes = (
        Remote("first.bin", f"{address}/good/first.bin", md5(FIRST)),
        Remote("second.gz", f"{address}/{way}/second.gz", md5(SECOND), md5(b"second")),
    )
    monkeypatch.setattr(fetching, "REMOTES", {"mnist": remotes})


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        fetch("mnist", folder)
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_served_arrives(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, server, "good")
    seen: list[tuple[str, int, int | None]] = []
    folder = tmp_path / "new" / "folder"
    paths = fetch("mnist", folder, progress=lambda *report: seen.append(report))
    assert paths == (folder / "first.bin", folder / "second.gz")
    assert [path.read_bytes() for path in paths] == [FIRST, SECOND]
    assert names(folder) == ["first.bin", "second.gz"]
    of_first = [(done, total) for name, done, total in seen if name == "first.bin"]
    assert of_first == sorted(of_first)
    assert of_first[-1] == (len(FIRST), len(FIRST))
    assert seen[-1] == ("second.gz", len(SECOND), len(SECOND))


def test_what_is_there_is_not_asked_for(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, server, "good")
    anew = gzip.compress(b"second", 0)  # the same content in another packing
    (tmp_path / "second.gz").write_bytes(anew)
    fetch("mnist", tmp_path)
    fetch("mnist", tmp_path)
    assert asked == ["/good/first.bin"]
    assert (tmp_path / "second.gz").read_bytes() == anew


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("first.bin", b"mine", f"is there with the MD5 {md5(b'mine')}; expected {md5(FIRST)}; remove it to have it"),
        ("second.gz", gzip.compress(b"mine", mtime=0), f"expected {md5(SECOND)}; remove it"),
        ("second.gz", SECOND[:-1], "damaged: it cannot be unpacked"),
    ],
    ids=["another file", "another content", "a file cut short"],
)
def test_what_is_there_and_differs_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, said: str
) -> None:
    served(monkeypatch, "http://127.0.0.1:1", "good")
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path / name}: ")
    assert said in message
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("way", ["moved", "unsized"])
def test_other_ways_to_serve(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    served(monkeypatch, server, way)
    totals: list[int | None] = []
    fetch("mnist", tmp_path, progress=lambda name, done, total: totals.append(total))
    assert (tmp_path / "second.gz").read_bytes() == SECOND
    assert totals[-1] == (None if way == "unsized" else len(SECOND))


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("wrong", f"what came has the MD5 {md5(SECOND[:-1] + b'?')}; expected {md5(SECOND)}; it is removed again"),
        ("cut", f"the connection ended after {len(SECOND) // 2} of {len(SECOND)} bytes"),
        ("gone", "cannot be fetched: the server answers 404 (Not Found)"),
        ("garbage", "cannot be fetched: "),
        ("away", "it leads to https://127.0.0.1:1/good/second.gz, and only http is allowed"),
    ],
)
def test_what_goes_wrong_is_said_and_leaves_nothing(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, way: str, said: str
) -> None:
    served(monkeypatch, server, way)
    message = refusal(tmp_path)
    assert message.startswith(f"{server}/{way}/second.gz: ")
    assert said in message
    assert message.endswith(f"; try later, or bring first.bin, second.gz into {tmp_path} by hand")
    assert names(tmp_path) == ["first.bin"]  # whole, and kept
    served(monkeypatch, server, "good")
    fetch("mnist", tmp_path)
    assert names(tmp_path) == ["first.bin", "second.gz"]


def test_a_server_that_stalls(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, server, "stalled")
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 0.3)
    assert "cannot be fetched: timed out; try later" in refusal(tmp_path)
    released.set()
    assert names(tmp_path) == ["first.bin"]


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("endless", "the server sends more than 4,000,000 bytes"),
        ("vast", "the server has 1,099,511,627,776 bytes of it; expected at most 4,000,000"),
        ("drip", "bytes came in 0.1 seconds"),
    ],
)
def test_a_server_that_sends_too_much_or_too_slowly(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, way: str, said: str
) -> None:
    served(monkeypatch, server, way)
    monkeypatch.setattr(fetching, "MOST_BYTES", 4_000_000)
    monkeypatch.setattr(fetching, "PATIENCE_SECONDS", 0.1)
    assert said in refusal(tmp_path)
    released.set()
    assert names(tmp_path) == ["first.bin"]


def test_a_length_that_is_none(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, server, "nonsense")
    fetch("mnist", tmp_path)
    assert (tmp_path / "second.gz").read_bytes() == SECOND


def test_what_lies_there_is_not_unpacked_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, "http://127.0.0.1:1", "good")
    monkeypatch.setattr(fetching, "MOST_BYTES", 1 << 22)
    (tmp_path / "second.gz").write_bytes(gzip.compress(bytes(1 << 24)) * 8)
    (tmp_path / "first.bin").write_bytes(FIRST)
    read: list[int] = []
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, count: read.append(count) or bytes(count))
    assert "is there with the MD5" in refusal(tmp_path)
    assert sum(read) <= 1 << 22
    (tmp_path / "second.gz").unlink()
    os.mkfifo(tmp_path / "second.gz")
    assert "second.gz: is no regular file" in refusal(tmp_path)


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        served(monkeypatch, address, "good")
        assert refusal(tmp_path / "data") == (
            f"{address}/good/first.bin: cannot be fetched: Connection refused; try later, or bring first.bin, "
            f"second.gz into {tmp_path / 'data'} by hand"
        )
    assert not names(tmp_path)


def test_an_interrupt_leaves_nothing(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, server, "good")
    drafts: list[list[str]] = []

    def interrupt(name: str, done: int, total: int | None) -> None:
        drafts.append(names(tmp_path))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("mnist", tmp_path, progress=interrupt)
    ((draft,),) = drafts
    assert draft.startswith(".first.bin.")
    assert not names(tmp_path)


def test_a_progress_that_fails_is_not_taken_for_the_disk(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(monkeypatch, server, "good")

    def closed(name: str, done: int, total: int | None) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        fetch("mnist", tmp_path, progress=closed)
    assert not names(tmp_path)


def test_a_folder_that_cannot_be(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, server, "good")
    (tmp_path / "file").touch()
    assert "cannot be written: Not a directory" in refusal(tmp_path / "file" / "folder")
    assert "cannot be written: File exists" in refusal(tmp_path / "file")


@pytest.mark.parametrize("scheme", ["http", "ftp", "file"])
def test_only_https_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.undo()
    remote = replace(REMOTES["cifar10"][0], address=f"{scheme}://127.0.0.1:1/set.tar.gz")
    monkeypatch.setattr(fetching, "REMOTES", {"mnist": (remote,)})
    assert f"{scheme}://127.0.0.1:1/set.tar.gz: cannot be fetched: only https is allowed" in refusal(tmp_path)


def test_the_table_is_sound() -> None:
    assert set(REMOTES) == {"mnist", "cifar10", "cifar100"}
    remotes = [remote for files in REMOTES.values() for remote in files]
    assert all(
        remote.address.startswith("https://") and remote.address.endswith(f"/{remote.name}") for remote in remotes
    )
    sums = [md5 for remote in remotes for md5 in (remote.md5, remote.content_md5) if md5 is not None]
    assert len(set(sums)) == len(sums) == 10
    assert all(len(md5) == 32 and int(md5, 16) for md5 in sums)


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'imagenet' is not known; expected 'mnist' or 'cifar10' or 'cifar100'"):
        fetch("imagenet", tmp_path)  # type: ignore[arg-type]
