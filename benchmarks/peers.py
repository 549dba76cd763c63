"""R-MG-34 against networks of timm: how much of the arithmetic each gets through in a second.

    python benchmarks/peers.py                       # batch 8 and 1
    python benchmarks/peers.py --freezing            # the peers by torch.compile with freezing too; takes minutes
    python benchmarks/peers.py --quick

GFLOP/s are 2 x MACs / time, the MACs being those of the network as it is written, not those left after rewriting. All
networks of a batch size run interleaved in one process, at 224 pixels, channels-last, with random weights. The peers
run as timm makes them and with their batch norms folded into the convolutions (torch.fx). The ratio is how many times
as many GFLOP/s the compiled R-MG-34 reaches, the median over the rounds; that of the
faster of its two forms.

timm needs torchvision, which has no build for every torch; the peers use nothing of it, so that it is replaced where it
is missing:

    pip install huggingface_hub safetensors pyyaml && pip install --no-deps 'timm>=1.0.3,<2'
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext
from enum import Enum
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from _common import (
    CASES,
    Call,
    begin,
    equal_networks,
    forget_compiled,
    freezing,
    hold,
    interleaved,
    largest_relative_error,
    parser,
    say,
    show,
    speed_ratio,
    with_weights,
    write_json,
)
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.utils.flop_counter import FlopCounterMode

import mgcompile

Take = Callable[[torch.Tensor], torch.Tensor]
"""From an NCHW image to scores."""

HOW = "To install it: pip install huggingface_hub safetensors pyyaml && pip install --no-deps 'timm>=1.0.3,<2'"
PEERS = ["resnet34", "resnet50", "hrnet_w18"]
BATCHES = {1: "r34-b1", 8: "r34-b8"}
OURS = 'R-MG-34, compiled, optimize="inference"'
TORCHVISION = [
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
]


class Interpolation(Enum):
    """Stands for torchvision's `InterpolationMode`, whose members timm lists when it is imported."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class Absent(ModuleType):
    """A module in which every name that is asked for is an empty class."""

    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = Interpolation if name == "InterpolationMode" else type(name, (), {})
        setattr(self, name, value)
        return value


def timm_without_torchvision() -> ModuleType | None:
    """timm, or None where it is missing. A missing torchvision is replaced while timm is imported."""
    if importlib.util.find_spec("timm") is None:
        return None
    absent = [] if importlib.util.find_spec("torchvision") else TORCHVISION
    for name in absent:
        module = Absent(name)
        module.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        import timm
    finally:
        for name in absent:  # others are to see that it is missing
            del sys.modules[name]
    return timm


def channels_last(model: nn.Module) -> Take:
    """The model, its weights in channels-last, on an image that it converts."""
    model = model.to(memory_format=torch.channels_last)
    return lambda image: model(image.contiguous(memory_format=torch.channels_last))


def macs_of(model: nn.Module, image: torch.Tensor) -> int:
    """MACs of convolutions and linear layers, by PyTorch's counter."""
    with FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() // 2


def forms_of(name: str, model: nn.Module, options: argparse.Namespace, foldable: bool) -> dict[str, Take]:
    """How a network that is not compiled by mgcompile runs, by what is said of it. The model is in eval mode."""
    forms: dict[str, Take] = {f"{name}, eager, NCHW": model}
    forms[f"{name}, channels-last"] = channels_last(copy.deepcopy(model))
    if foldable:
        forms[f"{name}, channels-last, batch norm folded"] = channels_last(fuse(model))
    if options.freezing:
        frozen = copy.deepcopy(model).to(memory_format=torch.channels_last)
        forms[f"{name}, channels-last, torch.compile with freezing"] = channels_last(
            torch.compile(frozen, dynamic=False)
        )
    return forms


def first_call(label: str, take: Take, image: torch.Tensor) -> torch.Tensor:
    """The output of the first call, at which torch.compile compiles."""
    with freezing() if "freezing" in label else nullcontext():
        output = take(image)
    say(f"batch {len(image)}: {label} ready")
    return output


def measure(batch: int, timm: ModuleType | None, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """For each network and form, its time in ms, its GFLOP/s, and how many times as many R-MG-34 reaches."""
    case = CASES[BATCHES[batch]].small(1, 64) if options.quick else CASES[BATCHES[batch]]
    forget_compiled(["freezing"] if options.freezing else [])
    image, equal = torch.randn(case.shape), equal_networks(case)
    peers = PEERS[:1] if options.quick else PEERS
    calls: dict[str, Call] = {}
    macs: dict[str, int] = {}

    def add(forms: dict[str, Take], work: int) -> None:
        right = None
        for label, take in forms.items():
            output = first_call(label, take, image)
            right = output if right is None else right
            hold(label, largest_relative_error(output, right), 1e-4)
            calls[label], macs[label] = partial(take, image), work

    with torch.inference_mode():
        ours = forms_of("R-MG-34, written by hand", equal.naive, options, foldable=False)
        for label, more in {OURS: {}, f"{OURS}, tune": {"tune": True}}.items():
            model = mgcompile.compile(case.spec, seed=0, optimize="inference", **more)
            ours[label] = with_weights(model, equal.state)
        add(ours, case.nominal_macs)
        for name in peers if timm is not None else []:
            model = timm.create_model(name, pretrained=False).eval().requires_grad_(False)
            add(forms_of(name, model, options, foldable=True), macs_of(model, image))
        times = interleaved(calls, options.runs)
    best = min((OURS, f"{OURS}, tune"), key=lambda label: statistics.median(times[label]))
    figures = {}
    for label in calls:
        taken = statistics.median(times[label])
        figures[label] = {
            "gmacs": macs[label] / 1e9,
            "ms": 1000 * taken,
            "gflops": 2 * macs[label] / taken / 1e9,
            "ratio": speed_ratio(times, best, label) * macs[best] / macs[label],
        }
    return figures


def main() -> None:
    """Measure every batch size and print a table for each."""
    reader = parser(__doc__, runs=7)
    reader.add_argument("--batches", type=int, nargs="+", choices=list(BATCHES), default=[8, 1])
    reader.add_argument("--freezing", action="store_true", help="also by torch.compile with freezing; takes minutes")
    options = reader.parse_args()
    if options.quick:
        options.batches = options.batches[:1]
    machine = begin(options)
    timm = timm_without_torchvision()
    if timm is None:
        print(f"\ntimm is missing, so that the peers are left out. {HOW}", flush=True)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for batch in options.batches:
        found = figures[f"batch {batch}"] = measure(batch, timm, options)
        write_json(options.json, {"machine": machine, "timm": getattr(timm, "__version__", None), "batches": figures})
        rows = [
            [label, f"{row['gmacs']:.2f}", f"{row['ms']:.1f}", f"{row['gflops']:.0f}", f"{row['ratio']:.2f}"]
            for label, row in found.items()
        ]
        heads = ["", "GMACs", "ms", "GFLOP/s", "compiled R-MG-34 is faster per MAC, times"]
        show(f"Batch {batch}{' or fewer' * options.quick}, per MAC as written", heads, rows)


if __name__ == "__main__":
    main()
