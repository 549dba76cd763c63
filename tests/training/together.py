"""Processes of their own: `python -m tests.training.together FOLDER WHAT`, or under torchrun with `-m`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from mgcompile.cli import main
from mgcompile.lowering.checkpoints import read_checkpoint
from mgcompile.training.loop import train
from mgcompile.training.records import Table
from mgcompile.training.runs import Run
from mgcompile.training.synchronization import synchronize
from tests.training.made import PICTURES, cifar, figures, mnist, pmg, recipe, scenes

ROOT = Path(__file__).parents[2]
KILLED_AT = 53
NORMS: dict[str, tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = {
    "maps": (nn.BatchNorm2d, {}, (6, 3, 5, 4)),
    "vectors": (nn.BatchNorm1d, {"momentum": 0.3, "eps": 1e-3}, (8, 3)),
    "not affine": (nn.BatchNorm2d, {"affine": False}, (4, 3, 2, 2)),
    "mean of all": (nn.BatchNorm2d, {"momentum": None}, (4, 3, 3, 3)),
    "far from zero": (nn.BatchNorm2d, {}, (4, 3, 6, 6)),
}
SCENE_STEPS: dict[int, dict[str, Any]] = {
    1: {"steps": 20, "evaluate_every": 10, "seed": 2},
    # The norms of small parts let differences in the last digit grow a hundredfold in a few steps of 0.1.
    2: {"steps": 20, "evaluate_every": 10, "seed": 2, "batch": 16, "lr": 0.01},
}
"""What is said of trainings on scenes, by how many parts a batch is computed in."""


def norm_of(name: str) -> tuple[nn.Module, list[Tensor], Tensor]:
    """A batch norm, the whole batches that it is given, and what the outputs are weighted by."""
    make, options, shape = NORMS[name]
    torch.manual_seed(len(name))
    norm = make(3, **options).double()
    for weight in norm.parameters():
        nn.init.normal_(weight)
    offset = 1e6 if name == "far from zero" else 0.5
    return norm, [torch.randn(shape, dtype=torch.double) * 2 + offset for _ in range(3)], torch.randn(shape).double()


def norm_results(norm: nn.Module, batches: list[Tensor], weights: Tensor) -> dict[str, Tensor]:
    """Outputs, gradients and statistics after all batches, and what the norm gives in evaluation mode."""
    found = {}
    for number, batch in enumerate(batches):
        given = batch.clone().requires_grad_()
        output = norm(given)
        (output * weights).sum().backward()
        found |= {f"output {number}": output.detach(), f"gradient {number}": given.grad}
    found |= {f"sum of {name}": weight.grad for name, weight in norm.named_parameters()}
    found |= {name: buffer.clone() for name, buffer in norm.named_buffers()}
    return found | {"evaluated": norm.eval()(batches[0]).detach()}


def halves() -> None:
    """Each of two processes takes half of the batches of each norm, and says what it has found."""
    rank, folder = dist.get_rank(), Path(sys.argv[1])
    for name in NORMS:
        norm, batches, weights = norm_of(name)
        synchronize(norm)
        own = slice(rank * len(weights) // 2, (rank + 1) * len(weights) // 2)
        found = norm_results(norm, [batch[own] for batch in batches], weights[own])
        torch.save(found, folder / f"{name} {rank}.pt")


def scene_runs(folder: Path) -> None:
    spec, data = pmg(), scenes(folder / "mnist", seed=2)
    for accumulate, given in SCENE_STEPS.items():
        told = recipe(spec, accumulate=accumulate, **given)
        train(spec, told, data, folder / f"accumulate {accumulate}", device="cpu")


def prepared(folder: Path) -> Path:
    mnist(folder / "mnist")
    cifar(folder / "cifar")
    (folder / "tiny.yaml").write_text(PICTURES, encoding="utf-8")
    return folder


def command(folder: Path, run: str, *more: str) -> list[str]:
    """The command that trains on the pictures of a folder that is prepared."""
    sizes = ["--task", "cifar10", "--size", "8", "--resize", "10", "--batch", "8", "--accumulate", "2"]
    goes = ["--steps", "100", "--evaluate-every", "25", "--checkpoint-every", "20", "--pictures", "3", "--lr", "0.01"]
    places = ["--data", str(folder / "cifar"), "-o", str(folder / run), "--device", "cpu", "--threads", "1"]
    return ["train", str(folder / "tiny.yaml"), *sizes, *goes, *places, *more]


def be_killed(step: int) -> None:
    """From now on, this process is killed while it writes a row of the table."""
    add = Table.add

    def adding(table: Table, row: Mapping[str, Any]) -> None:
        if row["step"] == step:
            table.file.write(f"{step},0.0")
            table.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        add(table, row)

    Table.add = adding  # type: ignore[method-assign]


def signals(folder: Path, trials: int = 18) -> dict[str, Any]:
    """Signals at random moments of trainings that are forked here, each until it has finished. After each, all that is
    there must be whole, and at the end byte for byte what it is where nothing was sent.
    """
    noise = np.random.default_rng(3)
    began = time.monotonic()
    assert _forked(folder, "whole", None) == 0
    length, wanted, statuses, sent = time.monotonic() - began, figures(folder / "whole"), set(), 0
    while sent < trials:
        name, status = f"run {sent}", -1
        while status != 0:
            number = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT)[sent % 3] if sent < trials else None
            status = _forked(folder, name, number, float(noise.uniform(0, length)))
            assert status in (0, -9, 130, 143, -15), status
            sent += number is not None
            statuses.add(status)
            _see_whole(folder / name)
        assert figures(folder / name) == wanted, name
    return {"statuses": sorted(statuses), "sent": sent}


def _forked(folder: Path, run: str, number: int | None, after: float = 0) -> int:
    """The status of a short training in a process of its own, to which a signal is sent after so many seconds."""
    child = os.fork()
    if not child:
        status = 99
        try:
            told = ("--steps", "20", "--evaluate-every", "7", "--checkpoint-every", "5", "--resume")
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            main(command(folder, run, *told))
        except SystemExit as left:
            status = int(left.code or 0)
        finally:
            os._exit(status)
    if number is not None:
        time.sleep(after)
        os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _see_whole(run: Path) -> None:
    for step in Run(run).steps():
        for name in ("model.safetensors", "optimizer.safetensors"):
            assert read_checkpoint(Run(run).checkpoint(step) / name)[1]
    for picture in run.glob("pictures/*.png"):
        with Image.open(picture) as image:
            image.load()
    for name in ("recipe.yaml", "spec.yaml"):
        assert not (run / name).exists() or (run / name).read_text(encoding="utf-8")


def start(*args: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Python with `-m` and these arguments, where there are several processes under torchrun."""
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m")
    return subprocess.run(
        [sys.executable, "-m", *(torchrun if processes > 1 else ()), *args],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[2] == "signals":
        print(json.dumps(signals(Path(sys.argv[1]))))
    elif sys.argv[2] == "killed":
        be_killed(KILLED_AT)
        main(command(Path(sys.argv[1]), "killed"))
    else:
        Accelerator(cpu=True)
        halves()
        scene_runs(Path(sys.argv[1]))
        main(command(Path(sys.argv[1]), "whole", "--format", "json"))
