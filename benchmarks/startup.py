"""Whole-process times of the commands that need no torch, against `python -c "import torch"`.

    python benchmarks/startup.py [--runs 7] [--spec imagenet/r-mg-34]

Medians of interleaved runs after one warm-up each; the ratio is to importing torch alone, run by run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(command: list[str]) -> float:
    """Wall time of a process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print a row for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--spec", default="imagenet/r-mg-34")
    parser.add_argument("--quick", action="store_true", help="one run, the first")
    options = parser.parse_args()
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        own = [python, "-m", "mgcompile.cli"]
        commands = {
            "import torch": [python, "-c", "import torch"],
            "check": [*own, "check", options.spec],
            "audit": [*own, "audit", options.spec],
            "draw": [*own, "draw", options.spec, "-o", str(Path(folder) / "drawing.svg")],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for run in range(1 if options.quick else options.runs + 1):
            for name, command in commands.items():
                taken = seconds(command)
                if run or options.quick:  # the first reads the files from the disk
                    times[name].append(taken)
    for name, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken, times["import torch"], strict=True))
        spread = f"{min(taken):.2f} to {max(taken):.2f}"
        print(f"{name:12} {statistics.median(taken):5.2f} s ({spread})  {ratio:5.2f} of importing torch")


if __name__ == "__main__":
    main()
