"""At its smallest: a growing pyramid learns where the centre of a canvas is, which a single grid does not see.

To bring a figure there takes more steps than a suite has time for; `benchmarks/paper_mnist.py` trains longer.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

import mgcompile
from mgcompile.training.loop import train
from mgcompile.training.recipe import recipe_for
from mgcompile.training.tasks import TASKS
from tests.training import made

RECIPE = {
    "task": "mnist-translation",
    "size": 24,
    "digit": 7,
    "steps": 500,
    "batch": 16,
    "schedule": "one-cycle",
    "lr": 0.2,
    "evaluate_every": 500,
    "pictures": 0,
}


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_growing_pyramid_separates_from_a_single_grid(tmp_path: Path) -> None:
    """In loss, while it trains and on scenes of figures that were not trained on, by more than a quarter."""
    folder = made.mnist(tmp_path / "mnist", train=200, test=50)
    losses = {}
    for name in ("pmg-11", "sg-11"):
        spec = mgcompile.load(f"mnist-spatial/{name}", params={"width": 8})
        recipe = recipe_for(RECIPE, spec.graph)
        data = TASKS[recipe.task].open(folder, recipe.settings)
        data.counts["test"] = 100  # type: ignore[attr-defined]
        trained = train(spec, recipe, data, tmp_path / name, device="cpu")
        lines = (tmp_path / name / "training.csv").read_text().splitlines()[-50:]
        losses[name] = statistics.fmean(float(line.split(",")[2]) for line in lines), trained.test.loss
    for pyramid, grid in zip(losses["pmg-11"], losses["sg-11"], strict=True):
        assert pyramid < 0.75 * grid
