"""Recipes: what was published, what files and flags change, every mistake with its place; and the learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LRScheduler, MultiStepLR, OneCycleLR

import mgcompile
from mgcompile.errors import Problem, SpecError
from mgcompile.spec.source import parse_source
from mgcompile.training.optimizers import make_optimizer
from mgcompile.training.recipe import Recipe, given_in, problem_with, recipe_for
from mgcompile.training.schedules import SCHEDULES, learning_rate
from mgcompile.training.tasks import TASKS

MANY = settings(max_examples=25, deadline=None, derandomize=True)
PLAIN = mgcompile.load({"name": "plain", "input": {"size": 16}, "layers": [{"conv": {"channels": 4}}]}).graph
RESIDUAL = mgcompile.load(
    {"name": "residual", "input": {"size": 16}, "layers": [{"unit": {"channels": 4, "by": "residual"}}]}
).graph
DIGITS = ("mnist-seg", "mnist-spatial", "mnist-rotation", "mnist-affine", "mnist-scaling", "mnist-translation")


def told(text: str, graph: mgcompile.Graph = PLAIN) -> Recipe:
    return recipe_for(parse_source(text, "r.yaml"), graph)


def refusal(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        told(text)
    return str(caught.value).splitlines()


# --- what was published


def test_all_tasks_are_here() -> None:
    assert set(TASKS) == {*DIGITS, "cifar10", "cifar100", "image-folder"}


@pytest.mark.parametrize("task", [*DIGITS, "cifar10", "cifar100"])
def test_small_pictures_are_trained_on_as_published(task: str) -> None:
    epochs, epoch, batch = (200, 800, 64) if task in DIGITS else (200, 300, 128)
    plain, residual = (recipe_for({"task": task}, graph) for graph in (PLAIN, RESIDUAL))
    for recipe in (plain, residual):
        assert (recipe.steps, recipe.batch, recipe.accumulate) == (epochs * epoch, batch, 1)
        assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.nesterov) == ("sgd", 0.1, 0.9, False)
        assert recipe.weight_decay == 5e-4
        assert recipe.evaluate_every == recipe.checkpoint_every == epoch
    assert (plain.schedule, residual.schedule) == ("exponential", "step")
    rates = [learning_rate(residual, part * epochs // 100 * epoch) for part in (0, 30, 60, 80)]
    assert rates == pytest.approx([0.1, 0.02, 0.004, 0.0008])
    before = [learning_rate(residual, part * epochs // 100 * epoch - 1) for part in (30, 60, 80, 100)]
    assert before == pytest.approx([0.1, 0.02, 0.004, 0.0008])
    assert learning_rate(plain, 0) == pytest.approx(0.1)
    assert learning_rate(plain, epochs * epoch - 1) == pytest.approx(1e-4)


@pytest.mark.parametrize("graph", [PLAIN, RESIDUAL])
def test_folders_are_trained_on_as_published(graph: mgcompile.Graph) -> None:
    recipe = recipe_for({"task": "image-folder"}, graph)
    assert (recipe.batch, recipe.lr, recipe.momentum, recipe.weight_decay) == (256, 0.1, 0.9, 1e-4)
    epoch = recipe.steps // 90
    assert recipe.steps == 90 * epoch
    assert 1_281_167 - 256 < epoch * 256 <= 1_281_167
    rates = [learning_rate(recipe, epochs * epoch) for epochs in (0, 30, 60)]
    assert rates == pytest.approx([0.1, 0.01, 0.001])
    assert [learning_rate(recipe, epochs * epoch - 1) for epochs in (30, 60, 90)] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("mnist-seg/pmg-11", "exponential"),
        ("mnist-seg/r-pmg-20", "step"),
        ("mnist-seg/u-net-11", "exponential"),
        ("cifar100/vgg-6", "exponential"),
        ("cifar100/r-mg-12", "step"),
        ("cifar100/pmg-9", "exponential"),
        ("cifar100/res-12", "step"),
    ],
)
def test_residual_networks_have_the_schedule_with_drops(name: str, schedule: str) -> None:
    assert recipe_for({"task": "cifar100"}, mgcompile.load(name).graph).schedule == schedule


def test_what_is_said_wins_over_what_was_published() -> None:
    recipe = told("task: cifar10\nsteps: 7\nschedule: step\nevaluate_every: 3\nlr: 1e-5\nmomentum: 0\ndrops: []\n")
    assert (recipe.steps, recipe.schedule, recipe.lr, recipe.momentum, recipe.drops) == (7, "step", 1e-5, 0, ())
    assert (recipe.evaluate_every, recipe.checkpoint_every) == (3, 3)
    assert recipe.batch == 128
    assert told("task: cifar10\nevaluate_every: 3\ncheckpoint_every: 5\n").checkpoint_every == 5
    assert recipe.settings.seed == recipe.seed
    asked = told("task: mnist-seg\nsize: 24\ndigit: 14\nsamples: 9\nseed: 4\n").settings
    assert (asked.size, asked.digit, asked.samples, asked.seed, asked.resize) == (24, 14, 9, 4, None)


SAID = st.fixed_dictionaries(
    {"task": st.just("mnist-seg")},
    optional={
        "lr": st.floats(1e-12, 1e6),
        "weight_decay": st.floats(0, 1e3),
        "drops": st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), max_size=4),
        "seed": st.integers(0, 2**63 - 1),
        "nesterov": st.booleans(),
        "size": st.integers(1, 4096),
    },
)


ADAMW = st.fixed_dictionaries({"task": st.just("mnist-seg"), "optimizer": st.just("adamw")})


@given(said=SAID | ADAMW)
@MANY
def test_a_recipe_is_read_back_from_its_file(said: dict[str, Any]) -> None:
    recipe = recipe_for(said, RESIDUAL)
    source = parse_source(recipe.to_yaml(), "r.yaml")
    assert recipe_for(source, RESIDUAL) == recipe
    assert source.data == recipe.model_dump(exclude_none=True, mode="json")


# --- mistakes


def test_all_mistakes_are_told_at_once_with_their_places() -> None:
    text = """\
task: cifar10
step: 5
lr: -1
batch: 0
nesterov: yes please
drops: [0.5, 2]
optimizer: adam
precision: fp16
digit: 7
seed: -1
steps: 2.5
schedule: 3
keep: null
weight_decay: [1]
"""
    assert refusal(text) == [
        "r.yaml:2:1: step: unknown key 'step'; did you mean steps?",
        "r.yaml:3:5: lr: expected a number from 1e-12 to 1e+06, found -1",
        "r.yaml:4:8: batch: expected an integer from 1 to 65536, found 0",
        "r.yaml:5:11: nesterov: expected true or false, found 'yes please'",
        "r.yaml:6:8: drops: expected a number from 0 to 1, found 2",
        "r.yaml:7:12: optimizer: expected one of sgd, adamw, found 'adam'",
        "r.yaml:8:12: precision: expected one of fp32, bf16, found 'fp16'",
        "r.yaml:9:1: digit: cifar10 has no such option; of data it has resize, size",
        "r.yaml:10:7: seed: expected an integer from 0 to 9223372036854775807, found -1",
        "r.yaml:11:8: steps: expected an integer from 1 to 2147483647, found 2.5",
        "r.yaml:12:11: schedule: expected one of constant, step, exponential, cosine, one-cycle, found 3",
        "r.yaml:13:7: keep: expected an integer from 1 to 1000000, found nothing (null)",
        "r.yaml:14:15: weight_decay: expected a number from 0 to 1000, found [1]",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 5\n", "r.yaml:1:1: task: task is missing; it must be given"),
        ("task: [1]\n", "r.yaml:1:7: task: expected one of mnist-seg, "),
        ("task: cifar\n", "r.yaml:1:7: task: expected one of mnist-seg, "),
        (
            "task: cifar10\nbatch: 10\naccumulate: 3\n",
            "r.yaml:3:1: accumulate: a batch of 10 cannot be computed in 3 equal parts",
        ),
        (
            "task: cifar10\naccumulate: 3\n",
            "r.yaml:2:1: accumulate: a batch of 128 cannot be computed in 3 equal parts",
        ),
        ("task: cifar10\nlr: .inf\n", "r.yaml:2:5: lr: expected a finite number"),
        ("task: cifar10\nlr: true\n", "r.yaml:2:5: lr: expected a number from 1e-12 to 1e+06, found true"),
        ("task: cifar10\nsteps: true\n", "r.yaml:2:8: steps: expected an integer from 1 to 2147483647, found true"),
        ("task: cifar10\nzzz: 1\n", "r.yaml:2:1: zzz: unknown key 'zzz'; known: accumulate, batch, "),
        ("task: cifar10\nsamples: 5\n", "r.yaml:2:1: samples: cifar10 has no such option; of data it has resize, size"),
        ("task: image-folder\ndigit: 7\n", "r.yaml:2:1: digit: image-folder has no such option"),
        ("task: mnist-seg\nresize: 9\n", "r.yaml:2:1: resize: mnist-seg has no such option; of data it has digit, "),
    ],
)
def test_a_mistake_is_told_in_a_line(text: str, said: str) -> None:
    (line,) = refusal(text)
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr: 1e-5\n", "2:1: lr: the rate of schedule exponential would rise from 1e-05 (--lr) to 0.0001 (--final-lr)"),
        ("schedule: cosine\nfinal_lr: 0.2\n", "1:1: lr: the rate of schedule cosine would rise from 0.1 (--lr) to 0.2"),
        ("schedule: one-cycle\nlr: 9e-5\n", "3:1: lr: the rate of schedule one-cycle would rise from 9e-05 (--lr)"),
        ("schedule: one-cycle\nwarmup: 1\n", "3:1: warmup: the rate of schedule one-cycle would rise to the last step"),
        (
            "schedule: step\ndrops: [0, 0.5]\n",
            "3:1: drops: the rate would be lowered before the first step (--drops 0)",
        ),
        ("schedule: step\ndrops: [0.5, 1]\n", "3:1: drops: the rate would be lowered after the last step (--drops 1)"),
        ("momentum: 0\nnesterov: true\n", "3:1: nesterov: Nesterov's momentum (--nesterov true) of 0 (--momentum 0)"),
        ("optimizer: adamw\nnesterov: true\n", "3:1: nesterov: optimizer adamw (--optimizer) has no nesterov; sgd has"),
        ("optimizer: adamw\nmomentum: 0.5\n", "3:1: momentum: optimizer adamw (--optimizer) has no momentum; sgd has"),
        ("warmup: 0.1\n", "2:1: warmup: schedule exponential (--schedule) has no warmup; one-cycle has"),
        ("schedule: cosine\ndrops: [0.5]\n", "3:1: drops: schedule cosine (--schedule) has no drops; step has"),
        ("drop_factor: 0.5\n", "2:1: drop_factor: schedule exponential (--schedule) has no drop_factor; step has"),
        ("schedule: constant\nfinal_lr: 0.01\n", "3:1: final_lr: schedule constant (--schedule) has no final_lr; "),
    ],
)
def test_what_would_not_do_as_it_says_is_refused(text: str, said: str) -> None:
    (line,) = refusal("task: cifar10\n" + text)
    assert line.startswith(f"r.yaml:{said}"), line


@given(
    lr=st.floats(1e-12, 1e6),
    final=st.floats(1e-12, 1e6),
    warmup=st.floats(0, 1),
    schedule=st.sampled_from([*SCHEDULES]),
)
@MANY
def test_no_rate_is_above_the_largest_nor_rises_at_the_end(
    lr: float, final: float, warmup: float, schedule: str
) -> None:
    said = {"task": "cifar10", "steps": 40, "schedule": schedule, "lr": lr, "final_lr": final, "warmup": warmup}
    reads = {"final_lr": schedule in ("exponential", "cosine", "one-cycle"), "warmup": schedule == "one-cycle"}
    try:
        recipe = recipe_for({key: value for key, value in said.items() if reads.get(key, True)}, PLAIN)
    except SpecError:
        assert reads["final_lr"]
        assert final > lr or warmup == 1
        return
    found = [learning_rate(recipe, step) for step in range(40)]
    top = found.index(max(found))
    assert max(found) <= lr * (1 + 1e-9)
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in pairwise(found[top:]))


HOSTILE = [
    *(
        "\x1b[2J",
        "\u202e",
        "a: &a [*a]",
        "{{",
        "!!python/object/apply:os.system [id]",
        "? ",
        "- - - -",
        "\t",
        "%YAML 9",
    ),
    *("1e999", "0x7fffffffffffffffffff", "9" * 5000, "~", "[" * 200, "{a: " * 200, '"' + "x" * 70_000 + '"', ".nan"),
    *(
        "true",
        "2026-11-28",
        "!!binary aGk=",
        "<<: {steps: 1}",
        "1_000",
        "0o7",
        "${steps}",
        "extends: r.yaml",
        "é",
        "\x00",
    ),
]


@given(noise=st.randoms(use_true_random=False), pieces=st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=4))
@settings(
    max_examples=150, deadline=1000, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_mutated_recipe_is_read_or_refused_with_its_place(tmp_path: Path, noise: Random, pieces: list[str]) -> None:
    """Values, keys and bytes of a whole recipe are replaced, moved, doubled."""
    lines = Recipe(task="mnist-seg", steps=9).to_yaml().splitlines()
    for piece in pieces:
        at = noise.randrange(len(lines))
        key, _, value = lines[at].partition(":")
        lines[at] = noise.choice(
            [f"{key}: {piece}", f"{piece}: {value}", piece, f"{key}:\n  {piece}: {value}", f"{key}:{value}{piece}"]
        )
        lines.insert(noise.randrange(len(lines)), lines[noise.randrange(len(lines))]) if noise.random() < 0.2 else None
    file = tmp_path / "r.yaml"
    text = "\n".join(lines).encode(errors="surrogatepass")
    cut = noise.randrange(len(text)) if noise.random() < 0.2 else len(text)
    file.write_bytes(text[:cut])
    problems: Sequence[Problem] = ()
    try:
        recipe_for(given_in(file), PLAIN)
    except SpecError as error:
        problems = error.errors
    for problem in problems:
        assert problem.file == str(file)
        assert problem.line or not text.strip() or "is " in problem.message or "holds" in problem.message
        assert problem.message.isprintable()
        assert len(problem.message) < 10_000


@pytest.mark.parametrize(
    ("text", "said"),
    [("", ": is empty; expected keys like `steps`"), ("- 3\n", ":1:1: expected a mapping with keys like `steps`")],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        given_in(file)
    assert str(caught.value).startswith(f"{file}{said}")
    with pytest.raises(SpecError, match="no such file"):
        given_in(tmp_path / "none.yaml")


def test_a_value_alone_is_held_to_its_field() -> None:
    assert not problem_with("lr", 0.1)
    assert not problem_with("size", None)
    assert not problem_with("drops", [0.1, 0.2])
    assert problem_with("drops", 0.1) == "expected a list of parts of the training, such as [0.3, 0.6], found 0.1"
    assert problem_with("lr", "fast") == "expected a number from 1e-12 to 1e+06, found 'fast'"


# --- learning rates


def followed(make: Any, lr: float, steps: int) -> list[float]:
    """The rates of one of PyTorch's schedulers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler: LRScheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(found) < steps else None
    return found


def rates(**said: Any) -> list[float]:
    recipe = Recipe(task="cifar10", **said)
    return [learning_rate(recipe, step) for step in range(recipe.steps)]


@given(steps=st.integers(2, 60), lr=st.floats(1e-3, 10), final=st.floats(1e-6, 1e-1))
@MANY
def test_exponential_and_cosine_are_those_of_pytorch(steps: int, lr: float, final: float) -> None:
    final = min(final, lr)
    factor = (final / lr) ** (1 / (steps - 1))
    expected = followed(lambda optimizer: ExponentialLR(optimizer, factor), lr, steps)
    assert rates(schedule="exponential", steps=steps, lr=lr, final_lr=final) == pytest.approx(expected, rel=1e-9)
    expected = followed(lambda optimizer: CosineAnnealingLR(optimizer, steps - 1, eta_min=final), lr, steps)
    assert rates(schedule="cosine", steps=steps, lr=lr, final_lr=final) == pytest.approx(expected, rel=1e-9)


@given(steps=st.integers(2, 60), factor=st.floats(1e-3, 1), drops=st.lists(st.floats(0.02, 1), max_size=4))
@MANY
def test_step_is_that_of_pytorch(steps: int, factor: float, drops: list[float]) -> None:
    milestones = [round(part * steps) for part in drops]
    if 0 in milestones:  # PyTorch's begins with the first step after
        drops = [part for part in drops if round(part * steps)]
        milestones = [step for step in milestones if step]
    expected = followed(lambda optimizer: MultiStepLR(optimizer, milestones, factor), 0.3, steps)
    found = rates(schedule="step", steps=steps, lr=0.3, drops=drops, drop_factor=factor)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("steps", "warmup"), [(2, 0.999), (4, 0.95), (20, 0.96), (100, 0.999)])
def test_one_cycle_ends_at_its_final_rate_however_late_it_turns(steps: int, warmup: float) -> None:
    assert rates(schedule="one-cycle", steps=steps, lr=0.2, warmup=warmup)[-1] == pytest.approx(1e-4)


@given(steps=st.integers(4, 60), warmup=st.floats(0.05, 0.95), lr=st.floats(1e-2, 10))
@MANY
def test_one_cycle_is_that_of_pytorch(steps: int, warmup: float, lr: float) -> None:
    def make(optimizer: torch.optim.Optimizer) -> LRScheduler:
        part = (warmup * (steps - 1) + 1) / steps
        return OneCycleLR(
            optimizer, lr, total_steps=steps, pct_start=part, div_factor=25, final_div_factor=lr / 25 / 1e-4
        )

    expected = followed(make, lr, steps)
    found = rates(schedule="one-cycle", steps=steps, lr=lr, final_lr=1e-4, warmup=warmup)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.99])
def test_every_schedule_has_a_rate_for_a_single_step(schedule: str, warmup: float) -> None:
    for steps in (1, 2):
        found = rates(schedule=schedule, steps=steps, warmup=warmup)
        assert all(0 < rate <= 0.1 and math.isfinite(rate) for rate in found)
    assert rates(schedule="constant", steps=3, lr=0.4) == [0.4, 0.4, 0.4]


def test_optimisers_are_told_what_the_recipe_says() -> None:
    model = torch.nn.Linear(2, 2)
    said = {"task": "cifar10", "steps": 1, "lr": 0.3, "weight_decay": 0.02}
    sgd = make_optimizer(Recipe(**said, momentum=0.7, nesterov=True), model)
    assert isinstance(sgd, torch.optim.SGD)
    group = sgd.param_groups[0]
    assert [group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")] == [0.3, 0.7, True, 0.02]
    assert sum(len(group["params"]) for group in sgd.param_groups) == 2
    adamw = make_optimizer(Recipe(**said, optimizer="adamw"), model)
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["weight_decay"] == 0.02
