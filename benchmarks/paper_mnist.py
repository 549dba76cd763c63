"""The paper's MNIST experiments at a budget that two cores finish: which networks learn attention and routing?

    python benchmarks/paper_mnist.py --data mnist --out runs/paper                      # all of it
    python benchmarks/paper_mnist.py --data mnist --out runs/paper --parts segmentation  # the separation alone
    python benchmarks/paper_mnist.py --data mnist --out runs/paper --seeds 0 --jobs 1
    python benchmarks/paper_mnist.py --quick             # two networks a part, a few steps on made-up digits

Each training is `mgcompile train` in a process of its own, with one thread, `--jobs` of them at a time, and goes on
where it was stopped when the command is given again. Scores are those of test scenes, made from digits that no training
sees. Where the paper has a figure, at its budget (160,000 steps of 64 on 28-pixel digits), it stands beside. The last
line of a table is the best answer that does not look at the image, the mean of the test targets: a network with no less
loss than that has learnt nothing of where a digit is and which.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import begin, parser, say, show, write_json
from tasks import strokes

import mgcompile
from mgcompile.analysis.published import published_figures
from mgcompile.training.evaluation import baseline
from mgcompile.training.tasks import TASKS, Settings


@dataclass(frozen=True)
class Network:
    """A spec of the zoo, made narrower by its params."""

    name: str
    params: Mapping[str, int]

    def spec(self, folder: str) -> str:
        return f"{folder}/{self.name.lower()}"


@dataclass(frozen=True)
class Part:
    """A task at a budget: for each network a training a seed. `folder` of the zoo has the networks."""

    about: str
    task: str
    folder: str
    networks: Sequence[Network]
    recipe: Mapping[str, object]


BUDGET = {"batch": 16, "schedule": "one-cycle", "lr": 0.2, "digit": 14, "evaluate_samples": 200, "evaluate_every": 300}
QUICK = {"steps": 3, "batch": 4, "size": 32, "evaluate_every": 2, "evaluate_samples": 4, "test_samples": 4}
NARROW = {"width": 16, "least": 8}

PARTS = {
    "translation": Part(
        "bring a digit of 14 pixels to the centre of a canvas of 64",
        "mnist-translation",
        "mnist-spatial",
        [Network("U-NET-11", {"width": 13}), Network("R-PMG-20", NARROW)],
        {**BUDGET, "steps": 1200},
    ),
    "small translation": Part(
        "the same on a canvas of 32, which the U-Net's field covers",
        "mnist-translation",
        "mnist-spatial",
        [Network("U-NET-11", {"width": 13}), Network("R-PMG-20", NARROW)],
        {**BUDGET, "size": 32, "steps": 600},
    ),
    "segmentation": Part(
        "digits of 14 pixels on a canvas of 32, the published geometry at half the size",
        "mnist-seg",
        "mnist-seg",
        [Network("U-NET-11", {"width": 13}), Network("SG-11", {"width": 16}), Network("PMG-11", NARROW),
         Network("R-PMG-20", NARROW)],
        {**BUDGET, "size": 32, "steps": 6000, "test_samples": 2000},
    ),
    "spatial": Part(
        "rotation, shear, scale and translation of digits of 14 pixels on a canvas of 32",
        "mnist-spatial",
        "mnist-spatial",
        [Network("U-NET-11", {"width": 13}), Network("SG-11", {"width": 16}), Network("PMG-11", NARROW),
         Network("R-PMG-20", NARROW)],
        {**BUDGET, "size": 32, "steps": 5000, "test_samples": 2000},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Training:
    """One training: a network for a part, from a seed."""

    part: str
    network: Network
    seed: int

    def folder(self, out: Path) -> Path:
        return out / f"{self.part.replace(' ', '-')}-{self.network.name.lower()}-{self.seed}"

    def command(self, data: Path, out: Path, quick: bool) -> list[str]:
        part = PARTS[self.part]
        recipe = {**part.recipe, "seed": self.seed}
        if quick:
            recipe |= QUICK
        flags = [word for key, value in recipe.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        sets = [word for key, value in self.network.params.items() for word in ("--set", f"{key}={value}")]
        return [
            *(sys.executable, "-m", "mgcompile.cli", "train", self.network.spec(part.folder), *sets),
            *("--task", part.task, *flags, "--data", str(data), "--threads", "1"),
            *("--output", str(self.folder(out)), "--resume", "--device", "cpu", "--format", "json"),
        ]


@dataclass(frozen=True)
class Result:
    """What came of a training, on test scenes."""

    iou: float
    error: float
    loss: float


def trained(training: Training, data: Path, out: Path, quick: bool) -> Result:
    """Train, or go on, or take what is there already."""
    folder = training.folder(out)
    command = training.command(data, out, quick)
    if not (folder / "model.safetensors").exists():
        start = time.perf_counter()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{shlex.join(command)}\n{done.stderr}")
        say(f"{folder.name}: {(time.perf_counter() - start) / 60:.1f} minutes, {one_line(done.stdout)}")
    last = rows(folder / "evaluation.csv")[-1]
    return Result(float(last["iou"]), float(last["error"]), float(last["loss"]))


def one_line(text: str) -> str:
    record = json.loads(text)
    return ", ".join(f"{name} {record[name]:.4g}" for name in ("loss", "iou", "error"))


def blind(part: Part, data: Path, quick: bool) -> Result:
    """What the mean of the test targets is worth as the answer to every test scene."""
    recipe: dict[str, Any] = {**part.recipe, **(QUICK if quick else {})}
    scenes = TASKS[part.task].open(data, Settings(size=recipe.get("size"), digit=recipe["digit"]))
    found = baseline(scenes, "test", limit=recipe.get("test_samples", scenes.samples("test")))
    return Result(found.metrics["iou"], found.metrics["error"], found.loss)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def spread(values: Sequence[float], digits: int) -> str:
    """The mean, and the least and the largest where there are several."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(part: Part, results: Mapping[str, Sequence[Result]], constant: Result) -> Iterator[list[str]]:
    printed = {(line.task, line.model): line for line in published_figures()}
    for network in part.networks:
        found = results.get(network.name, ())
        if not found:
            continue
        cost = mgcompile.audit(network.spec(part.folder), params=network.params, size=part.recipe.get("size"))
        line = printed.get((part.task, network.name))
        yield [
            f"{network.name} ({', '.join(f'{key} {value}' for key, value in network.params.items())})",
            f"{cost.params / 1e3:,.0f} k",
            f"{cost.macs / 1e6:,.0f} M",
            spread([result.iou for result in found], 1),
            spread([result.error for result in found], 1),
            spread([result.loss for result in found], 4),
            f"{line.iou} / {line.error}" if line else "-",
        ]
    scores = (f"{constant.iou:.1f}", f"{constant.error:.1f}", f"{constant.loss:.4f}")
    yield ["the mean target, whatever the image", "-", "-", *scores, "-"]


def made_up(folder: Path) -> None:
    """MNIST's four files with digits that are none."""
    for start, count in (("train", 60), ("t10k", 20)):
        images = strokes(count)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            (folder / f"{start}-{name}-ubyte").write_bytes(head + values.tobytes())


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    arguments.add_argument("--data", type=Path, metavar="FOLDER", help="where MNIST's four files are")
    arguments.add_argument("--out", type=Path, metavar="FOLDER", help="where the trainings go")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time (default: cores)")
    options = arguments.parse_args()
    options.threads = 1
    if not options.quick and not (options.data and options.out):
        arguments.error("--data and --out are needed")
    place = begin(options, f"{options.jobs} trainings at a time, a process each")
    with tempfile.TemporaryDirectory() as scratch:
        if options.quick:
            options.data, options.out, options.seeds = Path(scratch), Path(scratch), options.seeds[:1]
            made_up(options.data)
        options.out.mkdir(parents=True, exist_ok=True)
        run(options, place)


def run(options: argparse.Namespace, place: Mapping[str, object]) -> None:
    plan = [
        Training(name, network, seed)
        for name in options.parts
        for seed in options.seeds
        for network in (
            PARTS[name].networks[:: len(PARTS[name].networks) - 1] if options.quick else PARTS[name].networks
        )
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(lambda each: trained(each, options.data, options.out, options.quick), plan))
    record: dict[str, object] = {"machine": place}
    for name in options.parts:
        part = PARTS[name]
        results = {
            network.name: [
                result for each, result in zip(plan, found, strict=True) if (each.part, each.network) == (name, network)
            ]
            for network in part.networks
        }
        steps, batch = ((QUICK if options.quick else part.recipe)[key] for key in ("steps", "batch"))
        budget = f"{steps:,} steps of {batch}, seeds {', '.join(map(str, options.seeds))}"
        heads = ["network", "params", "MACs", "IoU, %", "error, %", "test loss", "published IoU / error"]
        constant = blind(part, options.data, options.quick)
        show(f"{name}: {part.about}; {budget}", heads, table(part, results, constant))
        record[name] = {network: [vars(result) for result in each] for network, each in results.items()}
        record[f"{name}, the mean target"] = vars(constant)
        write_json(options.json, record)


if __name__ == "__main__":
    main()
