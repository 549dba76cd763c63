"""Predicted time of a forward pass beside the measured one, of networks that differ, on this machine.

    python benchmarks/roofline.py
    python benchmarks/roofline.py --forms inference --batch 8 --runs 15
    python benchmarks/roofline.py --quick

The peaks are measured first (`mgcompile machine`); times are predicted from the graph and the peaks alone. Two forms:
the plain model, eager and channels-last, and the one that is optimised for inference, predicted from its own graph.
All networks of a form and batch run in turn, in rounds. On a machine that does other things too, `--cpu-time` counts
the time of this process alone, with one thread; what the others take of the caches is still in it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from _common import begin, parser, say, show, write_json

import mgcompile
from mgcompile.analysis.machine import Machine
from mgcompile.analysis.roofline import roofline
from mgcompile.measuring.machine import SECONDS, measure_machine
from mgcompile.measuring.timing import Call, interleaved
from mgcompile.passes import optimize

NETWORKS = [
    "cifar100/vgg-6",
    "cifar100/r-mg-12",
    "cifar100/r-pmg-16",
    "mnist-seg/u-net-11",
    "mnist-seg/u-mg-11",
    "imagenet/resnet-50",
    "imagenet/r-mg-34",
    "imagenet/vgg-16",
    "beyond/mobilenet-v2",
    "beyond/efficientnet-b0",
    "beyond/hrnet-w18",
    "beyond/densenet-121",
]
FORMS = ["plain", "inference"]
QUICK = ["cifar100/vgg-6", "cifar100/r-mg-12", "mnist-seg/u-mg-11"]


@dataclass(frozen=True)
class Found:
    """A network in a form: predicted and measured seconds of a forward pass of the batch."""

    network: str
    form: str
    batch: int
    predicted: float
    measured: float
    bound: str

    @property
    def error(self) -> float:
        """The relative error of the prediction."""
        return self.predicted / self.measured - 1


def compare(
    networks: Sequence[str], form: str, batch: int, runs: int, *, machine: Machine, clock: Callable[[], float]
) -> list[Found]:
    """Each network's prediction beside its median time; all run in turn."""
    mode = "inference" if form == "inference" else None
    calls: dict[str, Call] = {}
    predicted = {}
    for name in networks:
        say(f"{form}, batch {batch}: {name}")
        spec = mgcompile.load(name)
        predicted[name] = roofline(optimize(spec.graph, mode), machine, batch=batch)
        calls[name] = prepared(spec, mode, batch)
    times = interleaved(calls, runs=runs, warmup=1, clock=clock)
    return [
        Found(name, form, batch, found.seconds or 0.0, times[name].median, str(found.total.bound))
        for name, found in predicted.items()
    ]


def prepared(spec: mgcompile.Spec, mode: str | None, batch: int) -> Call:
    """A forward pass in evaluation, grids channels last; it has run twice."""
    model = mgcompile.compile(spec, seed=0, optimize=mode).eval().to(memory_format=torch.channels_last)
    shape = spec.graph.shapes()[spec.graph.input.name]
    images = torch.randn(batch, *shape).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def call() -> object:
        return model(images)

    call()
    call()
    return call


def rank_correlation(found: Sequence[Found]) -> float:
    """Spearman's, of predicted and measured times; 1 of fewer than two."""
    if len(found) < 2:
        return 1.0
    return statistics.correlation(ranks([each.predicted for each in found]), ranks([each.measured for each in found]))


def ranks(values: Sequence[float]) -> list[int]:
    """The place of each among all of them, in order."""
    order = sorted(range(len(values)), key=values.__getitem__)
    return [order.index(place) for place in range(len(values))]


def report(found: Sequence[Found]) -> None:
    """The table of one form and batch, and how near the predictions come."""
    first = found[0]
    heads = ["network", "predicted ms", "measured ms", "error %", "bound"]
    rows = [
        [
            each.network,
            f"{1e3 * each.predicted:.2f}",
            f"{1e3 * each.measured:.2f}",
            f"{100 * each.error:+.0f}",
            each.bound,
        ]
        for each in found
    ]
    show(f"{first.form}, batch {first.batch}", heads, rows)
    errors = [100 * abs(each.error) for each in found]
    print(
        f"\nSpearman's rank correlation {rank_correlation(found):.3f}, median error {statistics.median(errors):.0f} %, "
        f"largest {max(errors):.0f} %",
        flush=True,
    )


def main() -> None:
    arguments = parser(__doc__ or "", forms=FORMS)
    arguments.add_argument("--networks", nargs="+", metavar="SPEC", help="default: twelve that differ")
    arguments.add_argument("--batch", type=int, nargs="+", default=[1], help="batch sizes (default 1)")
    arguments.add_argument("--cpu-time", action="store_true", help="of this process alone; one thread")
    options = arguments.parse_args()
    if options.cpu_time:
        options.threads = 1
    place = begin(options)
    clock = time.process_time if options.cpu_time else time.perf_counter
    machine = measure_machine(keep=False, seconds=0.0 if options.quick else SECONDS, clock=clock)
    found: list[Found] = []
    for form in options.forms or FORMS:
        for batch in options.batch:
            networks = options.networks or (QUICK if options.quick else NETWORKS)
            own = compare(networks, form, batch, options.runs, machine=machine, clock=clock)
            report(own)
            found += own
            write_json(
                options.json, {"machine": place, "peaks": asdict(machine), "found": [asdict(each) for each in found]}
            )


if __name__ == "__main__":
    main()
