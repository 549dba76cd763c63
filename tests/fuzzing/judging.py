"""Watches what becomes of mutated inputs: in processes of their own, whose time, memory and doings are looked at.

Nothing but a refusal with a place, soon and in little memory, or a result is right.
"""

from __future__ import annotations

import builtins
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.fuzzing.mutation import MARK, MUTATIONS, prepare
from tests.fuzzing.targets import TARGETS, Told, warm_up

__all__ = ["Verdict", "generated", "judged"]

SECONDS = 1.0
"""Of processor time, for a refusal."""
PATIENCE = 60
"""Seconds for anything."""
BYTES = 2**30
IN_ONE_PROCESS = 200
LONGEST_LINE, LONGEST_TEXT = 9_000, 200_000
WRONG = 2
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "socket.bind")
SECRETS = ("/etc/passwd", "/dev/zero", "/dev/random")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one input: `fault` is empty where it was right."""

    kind: str
    name: str
    accepted: bool
    has_line: bool
    seconds: float
    mebibytes: float
    fault: str
    told: str


def generated(kind: str, seed: int, number: int) -> tuple[str, bytes]:
    """The suffix and the bytes of one input: the same for the same seed and number."""
    return MUTATIONS[kind](random.Random(f"{kind} {seed} {number}"))


def judged(kind: str, seed: int, numbers: Iterable[int]) -> Iterator[Verdict]:
    """The verdicts on some inputs."""
    prepare()
    warm_up()
    left = list(numbers)
    while left:
        batch, left = left[:IN_ONE_PROCESS], left[IN_ONE_PROCESS:]
        yield from _batch(kind, seed, batch)


def _batch(kind: str, seed: int, numbers: list[int]) -> Iterator[Verdict]:
    """In one process; where an input ends it, another goes on with those that are left."""
    context = multiprocessing.get_context("fork")
    while numbers:
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(theirs, kind, seed, numbers))
        child.start()
        theirs.close()
        fault = ""
        try:
            while numbers:
                if not ours.poll(2 * PATIENCE):
                    fault = "hangs"
                    break
                yield Verdict(**json.loads(ours.recv()))
                numbers = numbers[1:]
        except EOFError:
            pass
        child.kill() if fault else child.join(PATIENCE)
        child.join()
        ours.close()
        if numbers:
            yield Verdict(kind, _name(seed, numbers[0]), False, False, 0, 0, fault or f"ends with {child.exitcode}", "")
            numbers = numbers[1:]


def _name(seed: int, number: int) -> str:
    return f"{seed}:{number}"


class _TooLong(BaseException):
    """Not to be caught by what is watched."""


def _child(pipe: Connection, kind: str, seed: int, numbers: list[int]) -> None:
    doings: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.chdir(folder)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        before = _memory("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (before + 3 * BYTES,) * 2)
        signal.signal(signal.SIGPROF, _stop)
        sys.addaudithook(lambda event, args: _watch(event, args, doings, folder))
        for number in numbers:
            doings.clear()
            pipe.send(json.dumps(asdict(_verdict(kind, seed, number, doings))))
    pipe.close()
    os._exit(0)


def _stop(*_: Any) -> None:
    raise _TooLong


def _watch(event: str, args: tuple[Any, ...], doings: list[str], folder: Path) -> None:
    """Note what reading an input is no reason for."""
    if event in STARTS:
        doings.append(f"{event} {args!r:.200}")
    elif event == "open" and isinstance(args[0], str):
        path, flags = args[0], args[2] if isinstance(args[2], int) else 0
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if path.startswith(SECRETS) or (
            writes and not os.path.abspath(path).startswith((str(folder), "/dev/", "/proc/self/"))
        ):
            doings.append(f"open {path!r:.200}")


def _verdict(kind: str, seed: int, number: int, doings: list[str]) -> Verdict:
    suffix, data = generated(kind, seed, number)
    path = Path(f"input{suffix}")
    path.write_bytes(data)
    told, fault, seconds, mebibytes = _tried(kind, path)
    for _ in range(2):  # a busy machine may slow one down
        if fault or told[0] != WRONG or seconds <= SECONDS:
            break
        told, fault, seconds, mebibytes = _tried(kind, path)
    status, text = told
    if hasattr(builtins, MARK):
        delattr(builtins, MARK)
        fault = "runs its text"
    elif doings:
        fault = f"does {doings[0]}"
    elif not fault and status == WRONG:
        fault = _wrong_refusal(text, path, seconds, mebibytes)
    elif not fault and status:
        fault = f"status {status}"
    has_line = f"{path}:" in text and text.split(f"{path}:", 1)[1][:1].isdigit()
    return Verdict(kind, _name(seed, number), not status, has_line, seconds, mebibytes, fault, text[:2000])


def _wrong_refusal(text: str, path: Path, seconds: float, mebibytes: float) -> str:
    if seconds > SECONDS:
        return f"takes {seconds:.1f} s"
    if mebibytes > BYTES >> 20:
        return f"takes {mebibytes:.0f} MiB"
    if not text.strip():
        return "says nothing"
    if str(path) not in text:
        return "no place"
    if bad := next((letter for line in text.splitlines() for letter in line if not letter.isprintable()), ""):
        return f"puts {bad!r} into a message"
    if any(len(line) > LONGEST_LINE for line in text.splitlines()) or len(text) > LONGEST_TEXT:
        return "a long message"
    return ""


def _tried(kind: str, path: Path) -> tuple[Told, str, float, float]:
    """What was told, what went wrong, processor seconds, and MiB beyond those before."""
    _forget_peak()
    memory, start = _memory("VmRSS"), time.process_time()
    told, fault = (0, ""), ""
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        told = TARGETS[kind](path)
    except _TooLong:
        fault = f"takes over {PATIENCE} s"
    except BaseException:
        told, fault = (1, traceback.format_exc()[-1500:]), "traceback"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return told, fault, time.process_time() - start, (_memory("VmHWM") - memory) / 2**20


def _memory(field: str) -> int:
    """Bytes, as Linux tells them of this process."""
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(f"{field}:"))
    return int(line.split()[1]) << 10


def _forget_peak() -> None:
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
