"""Made-up data, small networks and what is read back of a training, for the tests of trainings."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

import mgcompile
from mgcompile.spec import Spec
from mgcompile.training.recipe import Recipe, recipe_for
from mgcompile.training.scenes import SCENES
from mgcompile.training.tasks import Settings
from mgcompile.training.tasks.digits import Scenes

SMALL = {
    "name": "small",
    "input": {"channels": 1, "size": 16},
    "layers": [{"conv": {"channels": 4}}, {"conv": {"channels": 1, "act": "none"}}],
}
"""Two convolutions with batch norms, and logits."""

PICTURES = """\
name: tiny
input: {channels: 3, size: 8}
layers:
  - conv: {channels: 8}
  - pool
  - conv: {channels: 8}
  - classify: 10
"""
"""For `cifar` of size 8."""


def pmg() -> Spec:
    return mgcompile.load("mnist-spatial/pmg-11", params={"width": 8})


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def rings(count: int, seed: int) -> np.ndarray:
    """(count, 28, 28): rings of different form, about as much ink as digits have."""
    noise = np.random.default_rng(seed)
    across = (np.arange(28) - 13.5)[None, None, :] / noise.uniform(3, 7, (count, 1, 1))
    down = (np.arange(28) - 13.5)[None, :, None] / noise.uniform(6, 9, (count, 1, 1))
    return np.clip(255 * (2 - 6 * abs(np.hypot(across, down) - 1)), 0, 255).astype(np.uint8)


def mnist(folder: Path, train: int = 24, test: int = 12) -> Path:
    """The files of MNIST, of a few rings."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate((("train", train), ("t10k", test))):
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx(rings(count, seed)))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx((np.arange(count) % 10).astype(np.uint8)))
    return folder


def cifar(folder: Path) -> Path:
    """The files of CIFAR-10: 20 pictures to train on, 12 to test with."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for seed, name in enumerate(names):
        count = 12 if name == "test_batch" else 4
        noise = np.random.default_rng(seed)
        records = noise.integers(0, 256, (count, 3073), np.uint8)
        records[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("".join(f"kind{number}\n" for number in range(10)), encoding="utf-8")
    return folder


def scenes(
    folder: Path, task: str = "mnist-spatial", *, samples: int = 24, validation: int = 0, seed: int = 0
) -> Scenes:
    """Few scenes of 16x16 from the rings in a folder; 6 to test with."""
    counts = {"train": samples, "validation": validation, "test": 6}
    return Scenes(SCENES[task], counts, folder, Settings(size=16, digit=7, seed=seed))


def recipe(spec: Spec, **given: Any) -> Recipe:
    usual = {"task": "mnist-spatial", "size": 16, "digit": 7, "batch": 8, "evaluate_samples": 4, "pictures": 2}
    return recipe_for(usual | given, spec.graph)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def losses(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in rows(folder / "training.csv")]


def figures(folder: Path) -> dict[str, bytes]:
    """All that a training computes, byte for byte: what a folder has but the recipe and TensorBoard's files. Of weights
    the tensors and what is said of them; safetensors writes the latter in any order.
    """
    return {
        str(path.relative_to(folder)): _tensors(path) if path.suffix == ".safetensors" else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "tensorboard" and path.name != "recipe.yaml"
    }


def _tensors(path: Path) -> bytes:
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        told = [sorted((file.metadata() or {}).items()), [(name, each.shape) for name, each in tensors.items()]]
    return repr(told).encode() + b"".join(each.tobytes() for each in tensors.values())


def plain(state: Mapping[str, torch.Tensor]) -> nn.Sequential:
    """`SMALL` written by hand, with the weights of a state in its order."""
    parts = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    model = nn.Sequential(*parts, nn.Conv2d(4, 1, 3, padding=1), nn.BatchNorm2d(1))
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    return model
