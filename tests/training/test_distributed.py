"""Two processes are one: batch norms over both, the losses of a single process, and resumed to the same numbers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from mgcompile.errors import InputError
from mgcompile.training.loop import train
from mgcompile.training.processes import share
from tests.training.made import figures, losses, pmg, recipe, rows, scenes
from tests.training.together import (
    KILLED_AT,
    NORMS,
    SCENE_STEPS,
    command,
    norm_of,
    norm_results,
    prepared,
    start,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("together"))


@pytest.fixture(scope="module")
def together(folder: Path) -> subprocess.CompletedProcess[str]:
    """Two processes that did all that `together` does."""
    return start("tests.training.together", str(folder), "whole", processes=2)


def test_two_processes_print_one_result(together: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert together.returncode == 0, together.stderr
    record = json.loads(together.stdout)
    last = rows(folder / "whole/evaluation.csv")[-1]
    assert last["step"] == "100"
    assert (record["samples"], record["loss"]) == (12, float(last["loss"]))
    assert together.stderr.count("begins") == 1
    assert "Traceback" not in together.stderr
    # PyTorch says once that no weight is unused, of networks in which this is so.
    told = [line for line in together.stderr.splitlines() if "find_unused_parameters" not in line]
    assert not [line for line in told if "Warning" in line]


@pytest.mark.parametrize("name", NORMS)
def test_batch_norms_are_those_of_the_whole_batch(
    together: subprocess.CompletedProcess[str], folder: Path, name: str
) -> None:
    assert together.returncode == 0, together.stderr
    expected = norm_results(*norm_of(name))
    parts = [torch.load(folder / f"{name} {rank}.pt", weights_only=True) for rank in range(2)]
    assert parts[0].keys() == expected.keys()
    for what, wanted in expected.items():
        first, second = (part[what] for part in parts)
        if what.startswith("sum of"):
            found = first + second
        elif first.ndim > 1:
            found = torch.cat([first, second])
        else:
            assert torch.equal(first, second)
            found = first
        exact = 1e-6 if name == "far from zero" else 1e-12
        torch.testing.assert_close(found, wanted, rtol=exact, atol=exact, msg=lambda text, what=what: f"{what}: {text}")


@pytest.mark.parametrize("accumulate", SCENE_STEPS)
def test_losses_are_those_of_one_process(
    together: subprocess.CompletedProcess[str], folder: Path, tmp_path: Path, accumulate: int
) -> None:
    assert together.returncode == 0, together.stderr
    spec = pmg()
    told = recipe(spec, accumulate=accumulate, **SCENE_STEPS[accumulate])
    train(spec, told, scenes(folder / "mnist", seed=2), tmp_path / "run", device="cpu")
    alone, both = losses(tmp_path / "run"), losses(folder / f"accumulate {accumulate}")
    assert len(both) == 20
    assert both == pytest.approx(alone, abs=1e-5)
    ours, theirs = (rows(path / "evaluation.csv") for path in (tmp_path / "run", folder / f"accumulate {accumulate}"))
    assert [(row["step"], row["samples"]) for row in theirs] == [(row["step"], row["samples"]) for row in ours]
    assert [float(row["loss"]) for row in theirs] == pytest.approx([float(row["loss"]) for row in ours], abs=1e-4)


def test_a_process_that_is_killed_goes_on_to_the_same_numbers(
    together: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert together.returncode == 0, together.stderr
    killed = start("tests.training.together", str(folder), "killed", processes=2)
    assert killed.returncode != 0
    assert (folder / "killed/training.csv").read_text().splitlines()[-1] == f"{KILLED_AT},0.0"
    assert not (folder / "killed/model.safetensors").exists()
    resumed = start("mgcompile.cli", *command(folder, "killed", "--resume"), processes=2)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{folder / 'killed'}: cifar10, goes on after step 40" in resumed.stderr
    assert figures(folder / "killed") == figures(folder / "whole")


def test_a_batch_that_does_not_divide_is_refused() -> None:
    told = recipe(pmg(), steps=1, batch=12, accumulate=2)
    assert share(told, 3) == 2
    with pytest.raises(
        InputError, match="batch of 12 in 2 parts does not divide among 4 processes; take a multiple of 8"
    ):
        share(told, 4)
