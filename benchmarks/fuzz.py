"""Mutated specs, recipes and checkpoints: is each a result, or refused with a place, soon, in little memory?

    python benchmarks/fuzz.py                       # 20,000 inputs, two processes
    python benchmarks/fuzz.py --kinds spec --inputs 1000 --seed 7
    python benchmarks/fuzz.py --show spec 1:42      # prints one input

What is wrong: a traceback, a hang, text of the input that runs, a process or a file outside of the input's folder, a
refusal with another exit status than 2, without the file's name, after more than a second of processor time or with
more than a GiB. Exits 1 where anything is.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from _common import begin, parser, say, show, write_json

from tests.fuzzing.judging import Verdict, generated, judged
from tests.fuzzing.mutation import MUTATIONS

SHARES = {"spec": 0.7, "recipe": 0.15, "checkpoint": 0.15}
PIECE = 500


def main() -> int:
    options = _options()
    if options.show:
        kind, name = options.show
        sys.stdout.buffer.write(generated(kind, *map(int, name.split(":")))[1])
        return 0
    begin(options, how=f"{options.inputs:,} inputs of seed {options.seed}, {options.processes} processes")
    start = time.perf_counter()
    found: dict[str, list[Verdict]] = {kind: [] for kind in options.kinds}
    for verdict in _verdicts(options):
        found[verdict.kind].append(verdict)
        if verdict.fault:
            say(f"{verdict.kind} {verdict.name}: {verdict.fault}\n    {verdict.told[-500:]}")
    heads = ["", "inputs", "results", "refused", "with a line", "s at most", "median ms", "MiB at most", "faults"]
    show(f"In {time.perf_counter() - start:.0f} s:", heads, [_row(kind, told) for kind, told in found.items()])
    faults = collections.Counter(each.fault.split(":")[0] for told in found.values() for each in told if each.fault)
    write_json(options.json, {"faults": faults, "inputs": {kind: len(told) for kind, told in found.items()}})
    return 1 if faults else 0


def _options() -> argparse.Namespace:
    result = parser(__doc__ or "")
    result.add_argument("--inputs", type=int, default=20_000, help="how many (default %(default)s)")
    result.add_argument("--seed", type=int, default=1)
    result.add_argument("--kinds", nargs="+", choices=MUTATIONS, default=list(MUTATIONS), metavar="KIND")
    result.add_argument("--processes", type=int, default=2)
    result.add_argument("--show", nargs=2, metavar=("KIND", "NAME"), help="print the input of this name, such as 1:42")
    options = result.parse_args()
    if options.quick:
        options.inputs = 60
    return options


def _verdicts(options: argparse.Namespace) -> Iterator[Verdict]:
    whole = sum(SHARES[kind] for kind in options.kinds)
    pieces = []
    for kind in options.kinds:
        count = round(options.inputs * SHARES[kind] / whole)
        pieces += [(kind, options.seed, range(first, min(first + PIECE, count))) for first in range(0, count, PIECE)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        for verdicts in pool.map(_piece, pieces):
            yield from verdicts


def _piece(piece: tuple[str, int, range]) -> list[Verdict]:
    return list(judged(*piece))


def _row(kind: str, told: list[Verdict]) -> list[str]:
    refused = [each for each in told if not each.accepted and not each.fault]
    seconds = sorted(each.seconds for each in refused) or [0.0]
    return [
        kind,
        f"{len(told):,}",
        f"{sum(each.accepted and not each.fault for each in told):,}",
        f"{len(refused):,}",
        f"{sum(each.has_line for each in refused):,}",
        f"{seconds[-1]:.2f}",
        f"{1000 * seconds[len(seconds) // 2]:.1f}",
        f"{max([each.mebibytes for each in refused], default=0):.0f}",
        f"{sum(bool(each.fault) for each in told):,}",
    ]


if __name__ == "__main__":
    sys.exit(main())
