"""How fast a training step of a compiled network is, against the same network written by hand.

    python benchmarks/training.py                                  # every case and form; torch.compile takes minutes
    python benchmarks/training.py --cases r34-b8 --forms naive training --runs 5
    python benchmarks/training.py --quick

A step is forward, the mean square of the output as loss, and backward, from no gradients. With `--sgd` it also holds a
step of SGD, in every form. The ratio is the speed against the hand-written network as it is (eager, NCHW) in the same
round, the median over the rounds; all forms take the same plain NCHW images. Outputs and gradients of all weights are
held against those of the hand-written network with equal weights, and the errors are printed.

Peak memory is measured in a process of its own for each form: the peak of its resident memory over two steps, with
weights and gradients, less what it was after the imports.
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from _common import (
    CASES,
    Call,
    Case,
    Equal,
    begin,
    cells,
    equal_networks,
    forget_compiled,
    hold,
    interleaved,
    largest_relative_error,
    parser,
    say,
    seconds,
    show,
    show_ratios,
    speed_ratio,
    with_weights,
    write_json,
)
from torch import nn

import mgcompile

DEFAULT = ["r34-b8", "cifar-b64", "pmg-b16"]
MEMORY = "r34-b16"
LABELS = {
    "naive": "written by hand, eager, NCHW",
    "channels-last": "written by hand, channels-last",
    "compile": "written by hand, torch.compile",
    "training": 'compiled, optimize="training"',
    "naive-bf16": "written by hand, channels-last, autocast bf16",
    "bf16": 'compiled, optimize="training", precision="bf16"',
}
SLOW = {"compile"}
MEMORY_FORMS = ["naive", "channels-last", "training", "naive-bf16", "bf16"]
ERROR_LIMITS = {"float32": 1e-2, "bfloat16": 1.0}
"""Of outputs; batch norm over a small batch makes much of the last digit, so these only find what is wrong."""


class Step:
    """A training step of a model; calling it leaves the gradients where they are and returns the output."""

    def __init__(self, model: nn.Module, image: torch.Tensor, *, last: bool = False, bf16: bool = False) -> None:
        self.model, self.image, self.last, self.bf16 = model, image, last, bf16
        self.parameters = list(model.parameters())
        self.optimizer: torch.optim.Optimizer | None = None

    def __call__(self) -> torch.Tensor:
        for parameter in self.parameters:
            parameter.grad = None
        image = self.image.contiguous(memory_format=torch.channels_last) if self.last else self.image
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            output = self.model(image).float()
        output.square().mean().backward()
        if self.optimizer is not None:
            self.optimizer.step()
        return output.detach()


def naive_step(form: str, naive: nn.Module, image: torch.Tensor) -> Step:
    """A step of the hand-written network, which is changed."""
    if form == "naive":
        return Step(naive, image)
    if form == "compile":
        return Step(torch.compile(naive, dynamic=False), image)
    naive = naive.to(memory_format=torch.channels_last)
    return Step(naive, image, last=True, bf16=form == "naive-bf16")


def compiled_step(form: str, spec: Any, image: torch.Tensor) -> Step:
    """A step of the compiled network."""
    kind = "bf16" if form == "bf16" else "fp32"
    return Step(mgcompile.compile(spec, seed=0, optimize="training", precision=kind).train(), image)


def is_ours(form: str) -> bool:
    """Whether the form is a compiled network's."""
    return form in ("training", "bf16")


def prepared(form: str, case: Case, equal: Equal, image: torch.Tensor) -> Step:
    """The step, ready, called once. Weights and statistics are those of `equal`."""
    steps: list[Step] = []

    def make() -> None:
        if is_ours(form):
            step = compiled_step(form, case.spec, image)
            with_weights(step.model, equal.state)
        else:
            step = naive_step(form, copy.deepcopy(equal.naive), image)
        steps.append(step)

    building = seconds(make)
    first = seconds(steps[0])
    say(f"{case.title}: {form} made in {building:.1f} s, first step {first:.1f} s")
    return steps[0]


def gradient_error(step: Step, equal: Equal, ours: bool) -> float | None:
    """The norm of the difference of all gradients over the norm of the gradients of the hand-written network.

    The parameters of the compiled network are found by name; None where none is found.
    """
    if ours:
        found = dict(step.model.named_parameters())
        pairs = [(found[name], right) for name, right in equal.parameters.items() if name in found]
    else:
        pairs = list(zip(step.parameters, equal.naive.parameters(), strict=True))
    gradients = [(a.grad, b.grad) for a, b in pairs if a.grad is not None and b.grad is not None]
    if not gradients:
        return None
    difference = sum(float((a.float() - b).square().sum()) for a, b in gradients)
    return (difference / sum(float(b.square().sum()) for _, b in gradients)) ** 0.5


def measure(case: Case, forms: list[str], runs: int, sgd: bool) -> dict[str, dict[str, float | None]]:
    """For each form, the time of a step in ms, its speed against the first form, and its errors."""
    forget_compiled(SLOW.intersection(forms))
    equal, image = equal_networks(case), torch.randn(case.shape)
    equal.naive.train()
    steps: dict[str, Step] = {form: prepared(form, case, equal, image) for form in forms}
    right = Step(equal.naive, image)()
    errors, gradients = {}, {}
    for form, step in steps.items():
        errors[form] = largest_relative_error(step(), right)
        gradients[form] = gradient_error(step, equal, is_ours(form))
        hold(f"{case.title}, {form}", errors[form], ERROR_LIMITS["bfloat16" if form.endswith("bf16") else "float32"])
        if sgd:
            step.optimizer = torch.optim.SGD(step.parameters, lr=1e-4)
    calls: dict[str, Call] = dict(steps)
    times = interleaved(calls, runs)
    return {
        form: {
            "ms": 1000 * statistics.median(times[form]),
            "ratio": speed_ratio(times, form, forms[0]),
            "ratio_to_naive_bf16": speed_ratio(times, form, "naive-bf16") if "naive-bf16" in times else None,
            "error": errors[form],
            "gradient_error": gradients[form],
        }
        for form in forms
    }


def resident_peak() -> float:
    """The largest resident memory that this process ever had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the memory of the process that started this one
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def print_peak(form: str, case: Case) -> None:
    """Print by how many MiB the resident memory of this process grows with two steps. To be called in a fresh one."""
    small = {"input": {"channels": 3, "size": 8}, "layers": [{"conv": {"channels": 8}}, {"unit": {"channels": 8}}]}
    compiled_step(form, small, torch.randn(2, 3, 8, 8))()  # imports what a first compilation and a first step import
    before = resident_peak()
    image = torch.randn(case.shape)
    if is_ours(form):
        step = compiled_step(form, case.spec, image)
    else:
        from _common import build

        step = naive_step(form, build(case.task, case.model).train(), image)
    step()
    step()
    print(resident_peak() - before)


def peak_memory(form: str, options: argparse.Namespace) -> float:
    """Peak memory of a step in MiB, measured in another process."""
    command = [sys.executable, __file__, "--peak-of", form, "--threads", str(options.threads)]
    done = subprocess.run(command + ["--quick"] * options.quick, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def report(figures: dict[str, dict[str, dict[str, float | None]]]) -> None:
    """Print the tables of the steps."""
    ratios = {case: {form: found["ratio"] for form, found in forms.items()} for case, forms in figures.items()}
    show_ratios("Training step: speed, times that of the first row", LABELS, ratios)
    if all("naive-bf16" in forms and "bf16" in forms for forms in figures.values()):
        against = {case: {"bf16": forms["bf16"]["ratio_to_naive_bf16"]} for case, forms in figures.items()}
        show_ratios("The same in bf16: speed, times that of the hand-written network with autocast", LABELS, against)
    used = [form for form in LABELS if any(form in forms for forms in figures.values())]
    for title, key, pattern in [
        ("Milliseconds of a step", "ms", "{:.1f}"),
        ("Largest relative error of the output against the first row", "error", "{:.1e}"),
        ("Relative error of the gradients of all weights together (norms)", "gradient_error", "{:.1e}"),
    ]:
        rows = [
            [LABELS[form], *cells((forms.get(form, {}).get(key) for forms in figures.values()), pattern)]
            for form in used
        ]
        show(title, ["", *figures], [row for row in rows if set(row[1:]) != {"-"}])


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for; the hand-written network in eager mode always goes first."""
    reader = parser(__doc__, cases=list(CASES), forms=list(LABELS), runs=5)
    reader.add_argument("--sgd", action="store_true", help="a step of SGD belongs to the step")
    reader.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    reader.add_argument("--peak-of", choices=MEMORY_FORMS, help=argparse.SUPPRESS)
    options = reader.parse_args(words)
    chosen = options.forms or [form for form in LABELS if not (options.quick and form in SLOW)]
    options.forms = ["naive", *(form for form in chosen if form != "naive")]
    options.cases = options.cases or (["pmg-b16"] if options.quick else DEFAULT)
    return options


def main() -> None:
    """Measure every case, one after the other, then memory, and print the tables."""
    options = options_of()
    memory_case = CASES["pmg-b16"].small(2, 32) if options.quick else CASES[MEMORY]
    if options.peak_of:
        torch.set_num_threads(options.threads)
        print_peak(options.peak_of, memory_case)
        return
    machine = begin(options)
    figures: dict[str, dict[str, dict[str, float | None]]] = {}
    written = {"machine": machine, "sgd": options.sgd, "cases": figures}
    for name in options.cases:
        case = CASES[name].small(2, 32) if options.quick else CASES[name]
        figures[case.title] = measure(case, options.forms, options.runs, options.sgd)
        write_json(options.json, written)
    report(figures)
    if not options.no_memory:
        measured = [form for form in MEMORY_FORMS if form in options.forms]
        measured = [form for form in measured if form in ("naive", "training")] if options.quick else measured
        peaks = {form: peak_memory(form, options) for form in measured}
        write_json(options.json, {**written, "peak_memory_mib": {memory_case.title: peaks}})
        rows = [[LABELS[form], f"{mib:.0f}", f"{mib / peaks['naive']:.2f}"] for form, mib in peaks.items()]
        title = f"Peak resident memory of a step of {memory_case.title}, without what the imports take"
        show(title, ["", "MiB", "of the first row"], rows)


if __name__ == "__main__":
    main()
