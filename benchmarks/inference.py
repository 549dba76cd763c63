"""How fast the forms of a compiled network are at inference, against the same network written by hand.

    python benchmarks/inference.py                                 # every case and form; torch.compile takes minutes
    python benchmarks/inference.py --cases r34-b8 pmg-b16 --forms naive inference tune --runs 9
    python benchmarks/inference.py --quick

The ratio is the speed against the hand-written network as it is (eager, NCHW) in the same round, the median over the
rounds. All forms take the same plain NCHW image, with equal weights; a form that works in channels-last converts it
within the time that is measured. Compiling and the first calls are not measured. The largest relative error of each
form is printed, and the benchmark stops where an fp32 form is off by more than 1e-4.

Percent of the peak: 2 x MACs / time, against the fastest single convolution of the run in the same precision. Executed
work is what is left after the passes; nominal work is that of the network as the paper writes it.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from _common import (
    CASES,
    Call,
    Case,
    Equal,
    begin,
    cells,
    convolution_peak,
    equal_networks,
    forget_compiled,
    freezing,
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

CHOICE = [name for name in CASES if name != "r34-b16"]
LABELS = {
    "naive": "written by hand, eager, NCHW",
    "channels-last": "written by hand, channels-last",
    "compile": "written by hand, torch.compile",
    "freezing": "written by hand, channels-last, torch.compile with freezing",
    "naive-bf16": "written by hand, channels-last, bf16",
    "inference": 'compiled, optimize="inference"',
    "tune": "compiled, + tune",
    "torch-compile": "compiled, + tune + torch_compile",
    "bf16": 'compiled, + precision="bf16"',
}
SLOW = {"compile", "freezing", "torch-compile"}
"""Forms that take long to compile."""

OURS = {
    "inference": {},
    "tune": {"tune": True},
    "torch-compile": {"tune": True, "torch_compile": True},
    "bf16": {"precision": "bf16"},
}
ERROR_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 0.2}


def precision(form: str) -> torch.dtype:
    """Of the convolutions."""
    return torch.bfloat16 if form.endswith("bf16") else torch.float32


def channels_last(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """The output of a model that works in channels-last."""
    return model(image.contiguous(memory_format=torch.channels_last))


def in_bf16(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """The output, in fp32, of a model that works in bf16 and channels-last."""
    return channels_last(model, image.to(torch.bfloat16)).float()


def candidate(form: str, case: Case, equal: Equal) -> Callable[[torch.Tensor], torch.Tensor]:
    """From an fp32 NCHW image to an fp32 output."""
    if form in OURS:
        model = mgcompile.compile(case.spec, seed=0, optimize="inference", **OURS[form])
        return with_weights(model, equal.state)
    if form == "naive":
        return equal.naive
    naive = copy.deepcopy(equal.naive).requires_grad_(False)
    if form == "compile":
        return torch.compile(naive, dynamic=False)
    naive = naive.to(memory_format=torch.channels_last)
    if form == "freezing":
        return partial(channels_last, torch.compile(naive, dynamic=False))
    if form == "naive-bf16":
        return partial(in_bf16, naive.to(torch.bfloat16))
    return partial(channels_last, naive)


def prepared(form: str, case: Case, equal: Equal, image: torch.Tensor) -> Call:
    """The form, ready: compiled, called once with the image. torch.compile compiles at that call."""
    calls: list[Callable[[torch.Tensor], torch.Tensor]] = []
    with freezing() if form == "freezing" else nullcontext():
        building = seconds(lambda: calls.append(candidate(form, case, equal)))
        first = seconds(lambda: calls[0](image))
    say(f"{case.title}: {form} made in {building:.1f} s, first call {first:.1f} s")
    return partial(calls[0], image)


def measure(case: Case, forms: list[str], runs: int) -> dict[str, dict[str, float]]:
    """For each form, its time in ms, its speed against the first form, its error, and its work in MACs."""
    forget_compiled(SLOW.intersection(forms))
    equal, image = equal_networks(case), torch.randn(case.shape)
    with torch.inference_mode():
        calls = {form: prepared(form, case, equal, image) for form in forms}
        right = equal.naive(image)
        errors = {form: largest_relative_error(call(), right) for form, call in calls.items()}
        for form, error in errors.items():
            hold(f"{case.title}, {form}", error, ERROR_LIMITS[precision(form)])
        times = interleaved(calls, runs)
    executed = case.executed_macs("inference") if any(form in OURS for form in forms) else 0
    return {
        form: {
            "ms": 1000 * statistics.median(times[form]),
            "ratio": speed_ratio(times, form, forms[0]),
            "error": errors[form],
            "executed_macs": executed if form in OURS else case.nominal_macs,
            "nominal_macs": case.nominal_macs,
        }
        for form in forms
    }


def report(figures: dict[str, dict[str, dict[str, float]]], peaks: dict[str, float]) -> None:
    """Print the tables."""
    ratios = {case: {form: found["ratio"] for form, found in forms.items()} for case, forms in figures.items()}
    show_ratios("Inference: speed, times that of the first row", LABELS, ratios)
    used = [form for form in LABELS if any(form in forms for forms in figures.values())]

    def rows(key: str, pattern: str) -> list[list[str]]:
        return [
            [LABELS[form], *cells((forms.get(form, {}).get(key) for forms in figures.values()), pattern)]
            for form in used
        ]

    def percent(form: str, found: dict[str, float]) -> str:
        reached = [
            200 * found[work] / (found["ms"] / 1000) / 1e9 / peaks[str(precision(form))]
            for work in ("executed_macs", "nominal_macs")
        ]
        return "{:.0f} / {:.0f}".format(*reached)

    show("Milliseconds of a batch", ["", *figures], rows("ms", "{:.2f}"))
    gflops = ", ".join(f"{peak:.0f} GFLOP/s ({dtype.removeprefix('torch.')})" for dtype, peak in peaks.items())
    show(
        f"Percent of the fastest single convolution, {gflops}: executed / nominal work",
        ["", *figures],
        [
            [LABELS[form], *(percent(form, forms[form]) if form in forms else "-" for forms in figures.values())]
            for form in used
        ],
    )
    show("Largest relative error of the output against the first row", ["", *figures], rows("error", "{:.1e}"))


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for; the hand-written network in eager mode always goes first."""
    options = parser(__doc__, cases=CHOICE, forms=list(LABELS)).parse_args(words)
    chosen = options.forms or [form for form in LABELS if not (options.quick and form in SLOW)]
    options.forms = ["naive", *(form for form in chosen if form != "naive")]
    options.cases = options.cases or (["pmg-b16"] if options.quick else CHOICE)
    return options


def main() -> None:
    """Measure every case, one after the other, and print the tables."""
    options = options_of()
    machine = begin(options)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    dtypes = list(dict.fromkeys(precision(form) for form in options.forms))
    peaks = {str(dtype): 0.0 for dtype in dtypes}
    for name in options.cases:
        case = CASES[name].small(1, 32) if options.quick else CASES[name]
        for dtype in dtypes:  # measured beside every case: a processor does not run at one speed all the time
            peaks[str(dtype)] = max(peaks[str(dtype)], convolution_peak(dtype, options.runs))
        figures[case.title] = measure(case, options.forms, options.runs)
        write_json(options.json, {"machine": machine, "peaks_gflops": peaks, "cases": figures})
    report(figures, peaks)


if __name__ == "__main__":
    main()
