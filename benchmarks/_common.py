"""What the benchmarks share: the cases, networks with equal weights, interleaved timing, and tables.

Times are wall-clock seconds. GFLOP/s are 2 x MACs / seconds / 1e9, MACs being those of convolutions and linear layers.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

import mgcompile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the hand-written networks lie with the tests

from tests.reference import INPUT_SHAPES, build, in_call_order  # noqa: E402

Call = Callable[[], Any]
Times = dict[str, list[float]]

KINDS = (nn.ConvTranspose2d, nn.Conv2d, nn.BatchNorm2d, nn.Linear)


# --- cases


@dataclass(frozen=True)
class Case:
    """A network of the paper at a batch size and at a square input of `side` pixels."""

    task: str
    model: str
    batch: int
    side: int

    @property
    def title(self) -> str:
        """What the columns of the tables are called."""
        nominal = INPUT_SHAPES[self.task][-1]
        return f"{self.model} B{self.batch}" + (f" at {self.side}" if self.side != nominal else "")

    @property
    def spec(self) -> str:
        """The name of the spec in the zoo."""
        return f"{self.task}/{self.model.lower()}"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the input: (batch, channels, height, width)."""
        return (self.batch, INPUT_SHAPES[self.task][0], self.side, self.side)

    @cached_property
    def nominal_macs(self) -> int:
        """MACs of the network as the paper writes it, for the whole batch."""
        return self.batch * mgcompile.audit(self.spec, size=self.side).macs

    def executed_macs(self, mode: str) -> int:
        """MACs left after the passes of `mode` ("training" or "inference"), for the whole batch."""
        from mgcompile.analysis import audit_graph
        from mgcompile.passes import optimize

        graph = optimize(mgcompile.load(self.spec).graph, mode)
        return self.batch * audit_graph(graph, (self.side, self.side)).macs

    def small(self, batch: int, side: int) -> Case:
        """The same network with less to do, for `--quick`."""
        return replace(self, batch=min(batch, self.batch), side=min(side, self.side))


def _case(task: str, model: str, batch: int) -> Case:
    return Case(task, model, batch, INPUT_SHAPES[task][-1])


CASES = {
    "r34-b1": _case("imagenet", "R-MG-34", 1),
    "r34-b8": _case("imagenet", "R-MG-34", 8),
    "r34-b16": _case("imagenet", "R-MG-34", 16),
    "cifar-b1": _case("cifar100", "R-MG-22", 1),
    "cifar-b64": _case("cifar100", "R-MG-22", 64),
    "pmg-b1": _case("mnist-seg", "R-PMG-20", 1),
    "pmg-b16": _case("mnist-seg", "R-PMG-20", 16),
}


# --- networks with equal weights


@dataclass(frozen=True)
class Equal:
    """A hand-written network, and its weights under the names of the compiled one.

    `state` is a `state_dict` that the compiled network takes, in whatever form; `parameters` are the hand-written
    network's own, by the compiled network's names.
    """

    naive: nn.Module
    state: dict[str, torch.Tensor]
    parameters: dict[str, nn.Parameter]


def equal_networks(case: Case) -> Equal:
    """The hand-written network, in eval mode, with random weights and statistics of batch norms.

    Modules of a kind are matched in the order in which the two networks call them.
    """
    torch.manual_seed(0)
    compiled, naive = mgcompile.compile(case.spec, seed=0), build(case.task, case.model)
    calls = [str(node.target) for node in compiled.graph.nodes if node.op == "call_module"]
    ours = [(name, compiled.get_submodule(name)) for name in calls]
    theirs = in_call_order(naive, torch.zeros(1, *case.shape[1:]))
    parameters: dict[str, nn.Parameter] = {}
    for kind in KINDS:
        copies = [(name, module) for name, module in ours if isinstance(module, kind)]
        originals = [module for module in theirs if isinstance(module, kind)]
        for (name, copy), original in zip(copies, originals, strict=True):
            if isinstance(original, nn.BatchNorm2d):
                nn.init.uniform_(original.running_mean, -0.1, 0.1)
                nn.init.uniform_(original.running_var, 0.5, 1.5)
                nn.init.uniform_(original.weight, 0.5, 1.5)
                nn.init.uniform_(original.bias, -0.1, 0.1)
            copy.load_state_dict(original.state_dict())
            parameters |= {f"{name}.{part}": value for part, value in original.named_parameters()}
    return Equal(naive.eval(), compiled.state_dict(), parameters)


def with_weights(model: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """The model, with these weights."""
    model.load_state_dict(state)
    return model


def largest_relative_error(found: torch.Tensor, right: torch.Tensor) -> float:
    """The largest absolute difference, over the largest absolute value of what is right."""
    return float((found.float() - right.float()).abs().max() / right.float().abs().max())


def hold(name: str, error: float, limit: float) -> None:
    """Stop where two networks that are to be compared do not compute the same."""
    if not error <= limit:
        sys.exit(f"{name}: relative error {error:.1e} is over {limit:.0e}; it does not compute the same")


# --- torch.compile; it is imported only where it is used, for that takes seconds


def freezing() -> AbstractContextManager[None]:
    """Within it, what torch.compile compiles takes the weights as constants: it folds and lays them out anew."""
    from torch._inductor import config

    return config.patch(freezing=True)


def forget_compiled(used: Collection[str]) -> None:
    """Drop what torch.compile made for an earlier case, where it is used at all.

    It takes only so many models of one class before it leaves the rest as they are.
    """
    if used:
        torch._dynamo.reset()


# --- timing


def say(text: str) -> None:
    """A line on how far the benchmark is; on standard error, so that standard output holds the tables alone."""
    print(text, file=sys.stderr, flush=True)


def seconds(action: Call) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def interleaved(candidates: Mapping[str, Call], runs: int, turn: float = 0.05) -> Times:
    """Seconds of one call of each candidate, in each of `runs` rounds.

    After a warm-up, every candidate has its turn in every round; every other round goes backwards. A turn is as many
    calls as take the slowest candidate about `turn` seconds, the same number for all.
    """
    for call in candidates.values():
        call()
    slowest = max(seconds(call) for call in candidates.values())
    calls = max(1, math.ceil(turn / slowest)) if runs > 1 else 1
    times: Times = {name: [] for name in candidates}
    for number in range(runs):
        for name in candidates if number % 2 == 0 else reversed(candidates):
            call = candidates[name]
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - start) / calls)
    return times


def speed_ratio(times: Times, name: str, baseline: str) -> float:
    """How many times as fast as the baseline: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(times[baseline], times[name], strict=True))


def geometric_mean(ratios: Iterable[float]) -> float:
    """Of positive numbers; nan of none."""
    values = list(ratios)
    return statistics.geometric_mean(values) if values else math.nan


PEAK_SHAPES = [(8, 64, 56), (8, 128, 28), (8, 256, 14), (8, 512, 7), (4, 256, 28)]
"""Batch, channels in and out, side of the grid."""


def convolution_peak(dtype: torch.dtype, runs: int) -> float:
    """GFLOP/s of the fastest of some single 3x3 convolutions, channels-last, by PyTorch and by prepacked oneDNN."""
    best = 0.0
    for batch, channels, side in PEAK_SHAPES if runs > 1 else PEAK_SHAPES[:1]:
        macs = 9 * batch * channels * channels * side * side
        x = torch.randn(batch, channels, side, side, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
        candidates = {"torch": lambda x=x, w=weight: nn.functional.conv2d(x, w, padding=1)}
        if torch.backends.mkldnn.is_available() and (dtype is torch.float32 or _has_bf16()):
            candidates["oneDNN"] = _prepacked(x, weight)
        with torch.inference_mode():
            times = interleaved(candidates, runs, turn=0.02)
        fastest = min(statistics.median(taken) for taken in times.values())
        best = max(best, 2 * macs / fastest / 1e9)
    return best


def _has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _prepacked(x: torch.Tensor, weight: torch.Tensor) -> Call:
    """A 3x3 convolution by oneDNN whose weight already lies as oneDNN wants it for this input."""
    one = (1, 1)
    packed = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), one, one, one, 1, x.shape)
    return lambda: torch.ops.mkldnn._convolution_pointwise(x, packed, None, one, one, one, 1, "none", [], "")


# --- command line and tables


def parser(
    text: str, *, cases: Sequence[str] = (), forms: Sequence[str] = (), runs: int = 9
) -> argparse.ArgumentParser:
    """The options that the benchmarks have in common; `cases` and `forms` are those that can be chosen from."""
    result = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    if cases:
        result.add_argument("--cases", nargs="+", choices=cases, metavar="CASE", help=", ".join(cases))
    if forms:
        result.add_argument("--forms", nargs="+", choices=forms, metavar="FORM", help=", ".join(forms))
    result.add_argument(
        "--runs", type=int, default=runs, help="rounds; the medians are over them (default %(default)s)"
    )
    result.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="default: as many as PyTorch takes"
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    result.add_argument("--quick", action="store_true", help="small inputs, one round, nothing that compiles for long")
    return result


def begin(options: argparse.Namespace, how: str | None = None) -> dict[str, Any]:
    """Set the threads, shorten the rounds where it is to be quick, and say where and with what this is measured."""
    torch.set_num_threads(options.threads)
    if options.quick:
        options.runs = 1
    machine = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "threads": options.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "runs": options.runs,
    }
    print(
        f"{machine['processor']}, {options.threads} threads, PyTorch {machine['torch']}, Python {machine['python']}, "
        f"{machine['date']}; {how or f'medians of {options.runs} interleaved rounds in one process'}.",
        flush=True,
    )
    return machine


def processor() -> str:
    """What the system calls its processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_json(path: Path | None, figures: Any) -> None:
    """Write what was measured, where a file was asked for. Called after every case, so that nothing is lost."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")


def show(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table below a line that says what it holds."""
    print(f"\n{title}\n")
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def show_ratios(title: str, labels: Mapping[str, str], ratios: Mapping[str, Mapping[str, float]]) -> None:
    """Print `ratios[case][form]` as a row for each form, with the geometric mean over the cases that it ran in."""
    rows = []
    for form, label in labels.items():
        values = [found.get(form) for found in ratios.values()]
        if any(value is not None for value in values):
            mean = geometric_mean(value for value in values if value is not None)
            rows.append([label, *cells(values, "{:.2f}"), f"{mean:.2f}"])
    show(title, ["", *ratios, "geometric mean"], rows)


def cells(values: Iterable[float | None], pattern: str) -> list[str]:
    """The values as the pattern writes them, a dash for one that is not there."""
    return ["-" if value is None else pattern.format(value) for value in values]
