"""How checking, auditing, the passes, figures, drawing and compiling grow with the number of layers.

    python benchmarks/scale.py                      # 1,000 and 10,000 layers, two kinds of network
    python benchmarks/scale.py --layers 500 2000 --runs 5

Times are medians of interleaved runs in one process; the ratio is that of the largest to the smallest network, which is
10 where time is linear in 1,000 to 10,000 layers. Compiling is on the meta device.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import mgcompile
from mgcompile.analysis.changes import diff_graphs
from mgcompile.passes import optimize

NETWORKS: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    # One grid; each layer is a convolution with batch norm and ReLU, written out.
    "conv": lambda layers: [{"conv": {"channels": 8}} for _ in range(layers)],
    # Three grids; each layer is a residual multigrid unit (35 operations), repeated.
    "unit": lambda layers: [
        {"pyramid": 3},
        {"conv": {"channels": [8, 4, 2], "reach": 0}},
        {"unit": {"channels": [8, 4, 2]}, "repeat": layers},
    ],
}


def spec(kind: str, layers: int) -> dict[str, Any]:
    """A network of so many layers."""
    return {"version": 1, "name": f"{kind}-{layers}", "input": {"size": 32}, "layers": NETWORKS[kind](layers)}


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def once(kind: str, layers: int, steps: list[str]) -> dict[str, float]:
    """Seconds of each step for one network."""
    data = spec(kind, layers)
    seconds: dict[str, float] = {}
    seconds["check"], checked = timed(lambda: mgcompile.load(data, allow_large=True))
    seconds["audit"], _ = timed(lambda: mgcompile.audit(checked))
    if "passes" in steps:
        seconds["passes"], _ = timed(lambda: optimize(checked.graph, "inference"))
    if "explain" in steps:
        seconds["field"], _ = timed(lambda: mgcompile.receptive_field(checked))
        seconds["memory"], _ = timed(lambda: mgcompile.memory(checked))
        seconds["roofline"], _ = timed(lambda: mgcompile.roofline(checked))
        seconds["diff"], _ = timed(lambda: diff_graphs(checked.graph, optimize(checked.graph, "inference")))
        seconds["page"], _ = timed(lambda: mgcompile.draw(checked, format="html"))
    if "draw" in steps:
        seconds["draw"], _ = timed(lambda: mgcompile.draw(checked))
    if "compile" in steps:
        seconds["compile"], _ = timed(lambda: mgcompile.compile(checked, device="meta"))
    return seconds


def main() -> None:
    """Print a row for each kind of network and step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    steps = ["passes", "explain", "draw", "compile"]
    parser.add_argument("--steps", nargs="*", choices=steps, default=steps)
    options = parser.parse_args()
    once("conv", 10, options.steps)  # imports and first calls are not what is measured here
    for kind in options.kinds:
        runs = {layers: [] for layers in options.layers}
        for _ in range(options.runs):
            for layers in options.layers:
                runs[layers].append(once(kind, layers, options.steps))
        for step in runs[options.layers[0]][0]:
            medians = [statistics.median(run[step] for run in runs[layers]) for layers in options.layers]
            figures = "  ".join(f"{n:>6} layers {t:8.3f} s" for n, t in zip(options.layers, medians, strict=True))
            print(f"{kind:5} {step:8} {figures}  ratio {medians[-1] / medians[0]:5.1f}", flush=True)


if __name__ == "__main__":
    main()
