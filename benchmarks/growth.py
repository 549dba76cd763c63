"""How inference time grows with depth, width, resolution, batch and threads; times of compiling, auditing, starting.

    python benchmarks/growth.py
    python benchmarks/growth.py --parts growth build --runs 5
    python benchmarks/growth.py --quick

The network of the growth is a small pyramid of three grids: `depth` residual multigrid units of `width`, `width`/2 and
`width`/4 channels. One figure is changed at a time. Its tables say the time against that of the smallest value, beside
the MACs against those of the smallest value; where the first grows as the second, time is linear in the work.

Building, auditing and starting are of R-MG-34. Starting is a fresh process from the name of the spec to the first
output at batch 1, less a fresh process that imports torch, run by run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from _common import (
    CASES,
    ROOT,
    Call,
    Case,
    Times,
    begin,
    build,
    interleaved,
    parser,
    say,
    seconds,
    show,
    speed_ratio,
    write_json,
)

import mgcompile

PARTS = ["growth", "build", "audit", "start"]
FORMS: dict[str, dict[str, Any]] = {"as written": {}, "inference": {"optimize": "inference"}}


@dataclass(frozen=True)
class Network:
    """A small pyramid network and what it is run on; `side` is the input's height and width in pixels."""

    depth: int = 4
    width: int = 32
    side: int = 64
    batch: int = 8
    threads: int = 1

    @property
    def spec(self) -> dict[str, Any]:
        """The spec, as YAML would say it."""
        channels = [self.width, self.width // 2, self.width // 4]
        layers = [
            {"pyramid": 3},
            {"conv": {"channels": channels, "reach": 0}},
            {"unit": {"channels": channels}, "repeat": self.depth},
        ]
        return {"version": 1, "name": "small", "input": {"channels": 3, "size": self.side}, "layers": layers}

    def call(self, **options: Any) -> Call:
        """Inference of a batch, with as many threads as it wants."""
        model = mgcompile.compile(self.spec, seed=0, **options).eval()
        image = torch.randn(self.batch, 3, self.side, self.side)

        def infer() -> Any:
            torch.set_num_threads(self.threads)
            with torch.inference_mode():
                return model(image)

        return infer

    @property
    def macs(self) -> int:
        """MACs of the batch."""
        return self.batch * mgcompile.audit(self.spec).macs


AXES = {
    "depth": [2, 4, 8, 16, 32],
    "width": [16, 32, 64, 128],
    "side": [32, 64, 128, 256],
    "batch": [1, 2, 4, 8, 16, 32],
    "threads": [1, 2],
}
QUICK_AXES = {"depth": [1, 2], "width": [8, 16], "side": [16, 32], "batch": [1, 2], "threads": [1]}


def growth(options: argparse.Namespace) -> dict[str, Any]:
    """Print a table for each figure that is changed. All values and forms of a table run interleaved."""
    base = Network(depth=1, width=8, side=16, batch=1) if options.quick else Network()
    figures: dict[str, Any] = {"base": asdict(base)}
    for axis, values in (QUICK_AXES if options.quick else AXES).items():
        networks = {value: replace(base, **{axis: value}) for value in values}
        calls = {
            f"{value} {form}": network.call(**keywords)
            for value, network in networks.items()
            for form, keywords in FORMS.items()
        }
        say(f"{axis}: {len(calls)} networks made")
        times = interleaved(calls, options.runs, turn=0.0)
        torch.set_num_threads(options.threads)
        rows, first = [], values[0]
        for value, network in networks.items():
            ms = {form: 1000 * statistics.median(times[f"{value} {form}"]) for form in FORMS}
            row = [str(value), f"{network.macs / 1e9:.3g}", f"{network.macs / networks[first].macs:.2f}"]
            for form in FORMS:
                grown = 1 / speed_ratio(times, f"{value} {form}", f"{first} {form}")
                row += [f"{ms[form]:.2f}", f"{grown:.2f}", f"{2 * network.macs / ms[form] / 1e6:.0f}"]
            rows.append(row)
            figures.setdefault(axis, []).append({axis: value, "macs": network.macs, "ms": ms})
        heads = [axis, "GMACs", "MACs, times"]
        for form in FORMS:
            heads += [f"{form}: ms", "times", "GFLOP/s"]
        rest = ", ".join(f"{name} {value}" for name, value in asdict(base).items() if name != axis)
        show(f"Inference against {axis} ({rest})", heads, rows)
    return figures


def show_times(title: str, times: Times, baseline: str) -> dict[str, float]:
    """Print seconds and their ratio to the baseline's; return the medians."""
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    rows = [[name, f"{medians[name]:.3f}", f"{1 / speed_ratio(times, name, baseline):.2f}"] for name in times]
    show(title, ["", "seconds", f"of {baseline}"], rows)
    return medians


def building(case: Case, options: argparse.Namespace) -> dict[str, float]:
    """How long compiling a spec takes, against making the network that is written by hand."""
    candidates: dict[str, Call] = {
        "written by hand, made": lambda: build(case.task, case.model),
        "compiled": lambda: mgcompile.compile(case.spec, seed=0),
        "compiled, on the meta device": lambda: mgcompile.compile(case.spec, device="meta"),
        'compiled, optimize="training"': lambda: mgcompile.compile(case.spec, seed=0, optimize="training"),
        'compiled, optimize="inference"': lambda: mgcompile.compile(case.spec, seed=0, optimize="inference"),
    }
    times = interleaved(candidates, options.runs, turn=0.0)
    return show_times(f"From the name of the spec of {case.model} to a model", times, "written by hand, made")


def count_with_fvcore(case: Case) -> int:
    """MACs of one sample, by making the network that is written by hand and tracing it."""
    from fvcore.nn import FlopCountAnalysis

    model, image = build(case.task, case.model).eval(), torch.zeros(1, *case.shape[1:])
    analysis = FlopCountAnalysis(model, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return analysis.total()


def auditing(case: Case, options: argparse.Namespace) -> dict[str, float]:
    """How long the audit takes, from the name of the spec and of the loaded one to its figures, against fvcore."""
    loaded = mgcompile.load(case.spec)
    candidates: dict[str, Call] = {
        "mgcompile.audit, of the loaded spec": lambda: mgcompile.audit(loaded, size=case.side),
        "mgcompile.audit, from its name": lambda: mgcompile.audit(case.spec, size=case.side),
        "fvcore, network made and traced": lambda: count_with_fvcore(case),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's tracer, about what fvcore asks of it
        times = interleaved(candidates, options.runs, turn=0.0)
    return show_times(f"MACs of {case.model} at {case.side} pixels", times, next(iter(candidates)))


IMPORT = "import torch"
SETTING = "torch.set_num_threads({threads}); x = torch.zeros({shape})"
STARTS: dict[str, str] = {
    "written by hand": "from tests.reference import build; model = build({task!r}, {model!r}).eval()",
    "compiled": "import mgcompile; model = mgcompile.compile({spec!r}, seed=0).eval()",
    'compiled, optimize="inference"': "import mgcompile; "
    'model = mgcompile.compile({spec!r}, seed=0, optimize="inference")',
}


def starting(case: Case, options: argparse.Namespace) -> dict[str, float]:
    """How long a fresh process takes to its first output, beyond importing torch."""
    words = {"threads": options.threads, "shape": (1, *case.shape[1:]), "task": case.task}
    words |= {"model": case.model, "spec": case.spec}
    programs = {IMPORT: IMPORT}
    for name, making in STARTS.items():
        lines = [IMPORT, SETTING.format(**words), making.format(**words), "with torch.inference_mode(): model(x)"]
        programs[name] = "\n".join(lines)

    def run(program: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)

    runs: list[dict[str, float]] = []
    for number in range(options.runs + 1 - options.quick):
        taken = {name: seconds(run(program)) for name, program in programs.items()}
        if number or options.quick:  # the first reads the files from the disk
            runs.append({name: value - taken[IMPORT] if name != IMPORT else value for name, value in taken.items()})
    times = {name: [taken[name] for taken in runs] for name in programs}
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    rows = []
    for name, found in times.items():
        label = name if name == IMPORT else f"{name}, beyond it"
        rows.append([label, f"{medians[name]:.2f}", f"{min(found):.2f} to {max(found):.2f}"])
    show(f"Fresh process to the first output of {case.model}, batch 1", ["", "seconds", "range"], rows)
    return medians


def main() -> None:
    """Measure the parts that are asked for, one after the other."""
    reader = parser(__doc__, runs=7)
    reader.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = reader.parse_args()
    machine = begin(options)
    case = CASES["pmg-b1"].small(1, 32) if options.quick else CASES["r34-b1"]
    figures: dict[str, Any] = {"machine": machine}
    actions: dict[str, Callable[[], Any]] = {
        "growth": lambda: growth(options),
        "build": lambda: building(case, options),
        "audit": lambda: auditing(case, options),
        "start": lambda: starting(case, options),
    }
    for part in options.parts:
        figures[part] = actions[part]()
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
