"""The loop: against one that is written by hand, and against itself, stopped and resumed."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import mgcompile
from mgcompile.errors import MgcompileError
from mgcompile.spec import Spec
from mgcompile.training import loop
from mgcompile.training.feeding import shuffled
from mgcompile.training.files import DataError
from mgcompile.training.loop import Diverged, train
from mgcompile.training.recipe import Recipe
from mgcompile.training.schedules import learning_rate
from mgcompile.training.tasks import Data, Examples
from mgcompile.training.tasks.digits import Scenes
from tests.training import made
from tests.training.made import SMALL, figures, losses, pmg, recipe, rows, scenes

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more workers than there are processors
]


class Stopped(Exception):
    pass


class StopsAt:
    """A watcher that stops a training after a step, as an interrupt would, or once it was evaluated after that."""

    def __init__(self, step: int, *, evaluated: bool = False) -> None:
        self.step, self.evaluations = step, evaluated

    def transferred(self, record: Mapping[str, Any]) -> None:
        pass

    def started(self, step: int, recipe: Recipe, folder: Path) -> None:
        pass

    def stepped(self, step: int, lr: float, loss: float) -> None:
        if step == self.step and not self.evaluations:
            raise Stopped

    def evaluated(self, step: int, evaluation: Any) -> None:
        if step == self.step:
            raise Stopped


# --- beside a loop that is written by hand


def by_hand(model: nn.Module, told: Recipe, data: Data, *, logits: bool) -> list[float]:
    """The losses of plain PyTorch's steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, weight_decay=5e-4)
    order = np.concatenate([shuffled(24, told.seed, epoch) for epoch in range(3)])
    found = []
    for step in range(told.steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1e-4 / 0.1) ** (step / (told.steps - 1))
        batch = data.training(order[8 * step : 8 * step + 8], np.arange(8))
        output = model(batch.inputs)
        loss = F.binary_cross_entropy(output.sigmoid() if logits else output, batch.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("name", ["small", "pmg-11"])
def test_steps_are_those_of_a_plain_loop(digits: Path, tmp_path: Path, name: str, optimize: bool) -> None:
    spec = mgcompile.load(SMALL) if name == "small" else pmg()
    told = recipe(spec, steps=5, seed=3, optimize=optimize)
    data = scenes(digits, seed=3)
    model: nn.Module = mgcompile.compile(spec, seed=3)
    before = {weight: tensor.clone() for weight, tensor in model.state_dict().items()}
    if name == "small":
        model = made.plain(model.state_dict())
    expected = by_hand(model, told, data, logits=name == "small")
    trained = train(spec, told, data, tmp_path / "run", device="cpu")
    # What is rewritten adds in another order, and differences grow from step to step.
    assert losses(tmp_path / "run") == pytest.approx(expected, rel=1e-5 if optimize else 1e-6)
    assert len(set(expected)) == 5
    tolerance = 1e-3 if optimize else 1e-6
    found = trained.model.state_dict()
    for weight, wanted in zip(before, model.state_dict().values(), strict=True):
        if optimize and torch.equal(found[weight], before[weight]):
            assert "norm" in weight or torch.equal(wanted, before[weight])  # statistics that no output needs stay
        else:
            torch.testing.assert_close(found[weight], wanted, rtol=tolerance, atol=tolerance)
    assert sum(not torch.equal(found[weight], tensor) for weight, tensor in before.items()) > len(before) / 2


def test_parts_that_are_accumulated_have_their_own_statistics(digits: Path, tmp_path: Path) -> None:
    spec, data = mgcompile.load(SMALL), scenes(digits)
    told = recipe(spec, steps=1, accumulate=2, optimize=False, momentum=0, weight_decay=0, schedule="constant")
    model = made.plain(mgcompile.compile(spec, seed=0).state_dict())
    order = shuffled(24, 0, 0)
    for half in (order[:4], order[4:8]):
        batch = data.training(half, half)
        loss = F.binary_cross_entropy_with_logits(model(batch.inputs), batch.targets) / 2
        loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    trained = train(spec, told, data, tmp_path / "run", device="cpu")
    for found, wanted in zip(trained.model.state_dict().values(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_bfloat16_comes_close(digits: Path, tmp_path: Path) -> None:
    spec, data = mgcompile.load(SMALL), scenes(digits)
    for precision in ("fp32", "bf16"):
        train(spec, recipe(spec, steps=6, precision=precision), data, tmp_path / precision, device="cpu")
    exact, rough = losses(tmp_path / "fp32"), losses(tmp_path / "bf16")
    assert rough == pytest.approx(exact, rel=0.01)
    assert rough != exact
    assert all(weight.dtype != torch.bfloat16 for weight in load_file(tmp_path / "bf16/model.safetensors").values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
def test_a_network_that_torch_compiles_comes_close(digits: Path, tmp_path: Path) -> None:
    spec, data = mgcompile.load(SMALL), scenes(digits)
    for name, compiled in (("plain", False), ("compiled", True)):
        told = recipe(spec, steps=4, evaluate_every=2, torch_compile=compiled)
        train(spec, told, data, tmp_path / name, device="cpu")
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    names = [set(load_file(tmp_path / name / "model.safetensors")) for name in ("plain", "compiled")]
    assert names[0] == names[1]


# --- beside itself


def dropping() -> Spec:
    return mgcompile.load(SMALL | {"layers": [{"conv": {"channels": 4}}, {"dropout": 0.3}, *SMALL["layers"][1:]]})


SMALL_SPEC = mgcompile.load(SMALL)
CASES: dict[str, tuple[Spec, dict[str, Any], int]] = {
    "momentum, in parts": (pmg(), {"accumulate": 2, "weight_decay": 5e-4}, 24),
    "adamw, with dropout": (dropping(), {"optimizer": "adamw", "lr": 0.01, "schedule": "cosine"}, 24),
    "a batch of several epochs": (SMALL_SPEC, {"nesterov": True, "schedule": "one-cycle", "precision": "bf16"}, 3),
    "plain sgd, not rewritten": (SMALL_SPEC, {"momentum": 0, "optimize": False}, 20),
}
STEPS = {"steps": 10, "evaluate_every": 4, "checkpoint_every": 3}


@pytest.fixture(scope="module")
def never_stopped(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    torch.set_num_threads(1)
    found = {}
    for name, (spec, given, samples) in CASES.items():
        found[name] = tmp_path_factory.mktemp("whole") / "run"
        train(spec, recipe(spec, **STEPS, **given), scenes(digits, samples=samples), found[name], device="cpu")
    return found


@pytest.mark.parametrize("case", CASES)
def test_what_was_stopped_goes_on_to_the_same_numbers(
    never_stopped: Mapping[str, Path], digits: Path, tmp_path: Path, case: str
) -> None:
    spec, given, samples = CASES[case]
    told, data = recipe(spec, **STEPS, **given), scenes(digits, samples=samples)
    run = tmp_path / "run"
    # Before the first checkpoint, between two, at one before it is written, and after the last.
    for step in (2, 8, 9, 10):
        with pytest.raises(Stopped):
            train(spec, told, data, run, resume=step > 2, device="cpu", watcher=StopsAt(step))
    with pytest.raises(Stopped):  # tested, but not finished
        train(spec, told, data, run, resume=True, device="cpu", watcher=StopsAt(10, evaluated=True))
    for _ in range(2):  # and once more when all is done
        train(spec, told, data, run, resume=True, device="cpu")
        assert figures(run) == figures(never_stopped[case])
    assert {"training.csv", "evaluation.csv", "model.safetensors", "pictures/0000000004.png"} < set(figures(run))
    state = load_file(run / "checkpoints/0000000010/optimizer.safetensors")
    assert bool(state) == (given.get("momentum") != 0)


def test_the_last_checkpoint_holds_the_final_weights(never_stopped: Mapping[str, Path]) -> None:
    for run in never_stopped.values():
        found = figures(run)
        assert found["checkpoints/0000000010/model.safetensors"] == found["model.safetensors"]


@pytest.mark.parametrize("case", ["adamw, with dropout", "a batch of several epochs"])
def test_workers_change_nothing(never_stopped: Mapping[str, Path], digits: Path, tmp_path: Path, case: str) -> None:
    spec, given, samples = CASES[case]
    told, data = recipe(spec, **STEPS, **given), scenes(digits, samples=samples)
    with pytest.raises(Stopped):
        train(spec, told, data, tmp_path / "run", device="cpu", workers=2, watcher=StopsAt(7))
    train(spec, told, data, tmp_path / "run", device="cpu", workers=1, resume=True)
    assert figures(tmp_path / "run") == figures(never_stopped[case])


def test_another_seed_gives_other_numbers(never_stopped: Mapping[str, Path], digits: Path, tmp_path: Path) -> None:
    spec, given, samples = CASES["adamw, with dropout"]
    told = recipe(spec, **STEPS, **given, seed=1)
    train(spec, told, scenes(digits, samples=samples, seed=1), tmp_path / "run", device="cpu")
    assert losses(tmp_path / "run") != losses(never_stopped["adamw, with dropout"])


def test_dropout_draws_anew_at_each_step(digits: Path, tmp_path: Path) -> None:
    told = recipe(dropping(), steps=3, lr=1e-12, final_lr=1e-12, momentum=0, seed=0)
    train(dropping(), told, scenes(digits, samples=8), tmp_path / "run", device="cpu")
    assert len(set(losses(tmp_path / "run"))) == 3  # of the same eight samples, with the same weights


def test_rates_and_evaluations_are_where_they_should_be(never_stopped: Mapping[str, Path]) -> None:
    for name, run in never_stopped.items():
        spec, given, _ = CASES[name]
        told = recipe(spec, **STEPS, **given)
        written = [(int(row["step"]), float(row["lr"])) for row in rows(run / "training.csv")]
        assert written == [(step + 1, learning_rate(told, step)) for step in range(10)]
        judged = [(row["step"], row["split"], row["samples"]) for row in rows(run / "evaluation.csv")]
        assert judged == [("4", "test", "4"), ("8", "test", "4"), ("10", "test", "6")]


def test_a_validation_set_is_watched_and_the_test_set_is_for_the_end(digits: Path, tmp_path: Path) -> None:
    told = recipe(SMALL_SPEC, steps=3, evaluate_every=1, pictures=0)
    trained = train(SMALL_SPEC, told, scenes(digits, validation=5), tmp_path / "run", device="cpu")
    judged = [(row["step"], row["split"], row["samples"]) for row in rows(tmp_path / "run/evaluation.csv")]
    assert judged == [("1", "validation", "4"), ("2", "validation", "4"), ("3", "test", "6")]
    assert not (tmp_path / "run/pictures").exists()
    assert not trained.model.training
    assert trained.test.samples == 6
    again = mgcompile.load_model(tmp_path / "run/model.safetensors")
    assert again.meta["mgcompile"]["name"] == "small"


# --- what goes wrong


def linear() -> Spec:
    """Without norms, so that weights can grow."""
    bare = {"channels": 1, "norm": "none", "act": "none"}
    return mgcompile.load(SMALL | {"layers": [{"conv": bare}, {"conv": bare}]})


def diverged(digits: Path, run: Path, **given: Any) -> str:
    told = recipe(linear(), steps=60, schedule="constant", weight_decay=5e-4, evaluate_every=60, **given)
    with pytest.raises(Diverged) as caught:
        train(linear(), told, scenes(digits), run, device="cpu")
    return str(caught.value)


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = diverged(digits, run, lr=1e6, checkpoint_every=1, keep=100)
    done = losses(run)
    assert said.startswith(f"step {len(done) + 1}: the loss is ")
    assert all(map(math.isfinite, done))
    last = run / "checkpoints" / f"{len(done):010}"
    assert f"the last good checkpoint is {last}; try a lower lr" in said
    files = sorted(run.rglob("*.safetensors"))
    assert files[-1].parent == last
    for file in files:
        assert all(tensor.isfinite().all() for tensor in load_file(file).values()), file


def test_without_a_checkpoint_a_loss_that_is_not_finite_says_so(digits: Path, tmp_path: Path) -> None:
    said = diverged(digits, tmp_path / "run", lr=1e6, checkpoint_every=100)
    assert "; there is no checkpoint before it; try a lower lr" in said
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("which", ["weight", "momentum"])
def test_a_checkpoint_holds_no_value_that_is_not_finite(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    update = loop._update

    def harmful(model: nn.Module, optimizer: torch.optim.Optimizer, *args: Any, **options: Any) -> float:
        loss = update(model, optimizer, *args, **options)
        weight: Tensor = next(model.parameters())
        harmed = weight if which == "weight" else optimizer.state[weight]["momentum_buffer"]
        if options["stream"] == (0, 1):
            harmed.detach()[0] = math.inf
        return loss

    monkeypatch.setattr(loop, "_update", harmful)
    with pytest.raises(Diverged, match=r"^step 2: .* is not finite; there is no checkpoint"):
        train(SMALL_SPEC, recipe(SMALL_SPEC, steps=4, evaluate_every=2), scenes(digits), tmp_path / "run", device="cpu")
    assert not list(tmp_path.rglob("*.safetensors"))


class Failing(Scenes):
    """Data that fail at the second batch: they are damaged, or the process that makes them is killed."""

    killed = False

    def training(self, samples: Any, numbers: Any) -> Examples:
        if numbers[0] < 8:
            return super().training(samples, numbers)
        if self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise DataError("picture.png: damaged: it is cut off")


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_data_are_told_in_a_line(digits: Path, tmp_path: Path, workers: int) -> None:
    data = scenes(digits)
    data.__class__ = Failing
    with pytest.raises(DataError) as caught:
        train(SMALL_SPEC, recipe(SMALL_SPEC, steps=4), data, tmp_path / "run", device="cpu", workers=workers)
    assert str(caught.value) == "picture.png: damaged: it is cut off"


def test_a_worker_that_is_killed_is_told_in_a_line(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = scenes(digits)
    data.__class__ = Failing
    monkeypatch.setattr(Failing, "killed", True)
    with pytest.raises(MgcompileError) as caught:
        train(SMALL_SPEC, recipe(SMALL_SPEC, steps=4), data, tmp_path / "run", device="cpu", workers=1)
    assert str(caught.value).startswith("a process that makes examples has stopped: DataLoader worker")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("take fewer workers")
