"""A plain and an optimised model side by side, through random sequences of all that people do to models."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from torch import nn

import mgcompile
from mgcompile.lowering.ways import WAYS

from . import changes, images, networks, watching
from .pair import GRAD_MODES, Pair, Seen, named

STEPS = 10
SETTINGS = settings(
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NOT_IN_HALF = frozenset(
    {
        *("learn", "train", "train_a_norm", "freeze_a_norm", "functional_gradients", "derivative", "dual"),
        *("of another precision", "in half precision", "under_autocast", "double", "bfloat16"),
    }
)
"""Not for a form that computes in half precision: a step in it is another, and it takes what a plain model refuses."""
seeds = st.integers(0, 7)
sizes = st.sampled_from(images.SIZES)
batches = st.integers(1, 3)
grad_modes = st.sampled_from(sorted(GRAD_MODES))


def refresh(model: nn.Module, how: str) -> None:
    """One of the documented steps after a change of which PyTorch gives no sign."""
    if how == "refresh" and hasattr(mgcompile, "refresh"):
        mgcompile.refresh(model)
    elif how == "eval" and not model.training:
        model.eval()
    else:
        for module in list(model.modules()):  # as it is: parts may be in another mode than the whole
            modes = [(each, each.training) for each in module.modules()]
            module.train(module.training)
            for each, mode in modes:
                each.training = mode


class Forms(RuleBasedStateMachine):
    """Rules do the same to both; then both are called with the image that the last call has had."""

    form = "training"

    def __init__(self) -> None:
        super().__init__()
        self.pair: Pair
        self.image: tuple[tuple[int, int], int, int] = ((8, 8), 1, 0)
        self.stack = ExitStack()

    @initialize(
        network=st.sampled_from(sorted(networks.NETWORKS)),
        way=st.sampled_from(sorted(WAYS)),
        size=sizes,
        batch=batches,
    )
    def begin(self, network: str, way: str, size: tuple[int, int], batch: int) -> None:
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(type(WAYS[way]), "nanoseconds", lambda *_: 0.0)  # it is taken wherever it serves
        self.pair = Pair(self.form, network)
        self.image = (size, batch, 0)
        self.pair.compare_state()
        self.pair.both(lambda model, _: model.eval())
        for _ in range(3):  # by then an optimised model runs by a plan
            self.look()

    def teardown(self) -> None:
        self.stack.close()

    def may(self, what: str) -> bool:
        """Whether it is tried on this form."""
        return self.form != "bf16" or what not in NOT_IN_HALF

    def made(self, size: tuple[int, int], batch: int, seed: int) -> torch.Tensor:
        dtype = next((each.dtype for each in self.pair.plain.parameters()), torch.float32)
        return images.noise((batch, self.pair.channels, *size), dtype, seed)

    def look(self) -> None:
        """Both once more, with the image as before."""
        self.pair.call(self.made(*self.image), "no_grad")

    # --- calls

    @rule(
        size=sizes,
        batch=batches,
        seed=seeds,
        kind=st.sampled_from(sorted(images.KINDS)),
        grad=grad_modes,
        times=st.integers(1, 3),
    )
    def call(self, *, size: tuple[int, int], batch: int, seed: int, kind: str, grad: str, times: int) -> None:
        if not self.may(kind):
            return
        grad = "no_grad" if kind in images.UNLEARNED else grad
        if kind in images.BROKEN:
            self.pair.both(lambda model, _: model.eval())
        for _ in range(times):
            image = images.KINDS[kind](self.made(size, batch, seed))
            self.pair.call(image, grad, backward=grad == "grad" and self.may("learn"))
        self.image = (size, batch, seed)
        self.look()

    @rule(how=st.sampled_from(sorted(watching.CALLS)), size=sizes, batch=batches, seed=seeds)
    def call_otherwise(self, how: str, size: tuple[int, int], batch: int, seed: int) -> None:
        if not self.may(how):
            return
        image = self.made(size, batch, seed)
        self.pair.compare_runs(lambda model, _: watching.CALLS[how](model, image), rough="autocast" in how)
        self.look()

    @rule(seed=seeds, grad=grad_modes)
    def call_in_threads(self, seed: int, grad: str) -> None:
        self.pair.both(lambda model, _: model.eval())
        work = [self.made(size, batch, seed) for size in images.SIZES[:4] for batch in (1, 2)] * 2

        def run(model: nn.Module, seen: Seen) -> dict[str, torch.Tensor]:
            def one(x: torch.Tensor) -> dict[str, torch.Tensor]:
                with GRAD_MODES[grad]():
                    return named(model(x))

            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(one, work))
            seen.calls.clear()
            return {
                f"{name} of call {number}": value for number, each in enumerate(found) for name, value in each.items()
            }

        self.pair.compare_runs(run)
        self.look()

    # --- changes

    @rule(what=st.sampled_from(sorted(changes.SIGNED)), seed=seeds)
    def change(self, what: str, seed: int) -> None:
        if not self.may(what):
            return
        self.pair.both(lambda model, _: changes.SIGNED[what](model, Random(seed)))
        self.pair.compare_state()
        self.look()

    @rule(
        what=st.sampled_from(sorted(changes.SILENT)),
        seed=seeds,
        then=st.sampled_from(["train", "eval", "refresh"]),
    )
    def change_without_a_sign(self, what: str, seed: int, then: str) -> None:
        self.pair.both(lambda model, _: changes.SILENT[what](model, Random(seed)))
        self.pair.both(lambda model, _: refresh(model, then))
        self.pair.compare_state()
        self.look()

    @rule(what=st.sampled_from(sorted(watching.WATCHES)), seed=seeds, grad=grad_modes)
    def hook(self, what: str, seed: int, grad: str) -> None:
        self.pair.both(lambda model, seen: watching.WATCHES[what](model, Random(seed), seen))
        self.pair.call(self.made(*self.image), grad, backward=grad == "grad" and self.may("learn"))

    @rule(seed=seeds)
    def hook_all(self, seed: int) -> None:
        factor = 0.5 + seed / 10
        kinds = (nn.BatchNorm2d, nn.Linear)
        hook = nn.modules.module.register_module_forward_hook(
            lambda module, _, output: output * factor if isinstance(module, kinds) else None
        )
        try:
            self.look()
        finally:
            hook.remove()
        self.look()

    @rule(
        seed=seeds,
        mode=st.sampled_from(["train", "evaluate", "train_a_norm", "freeze_a_norm"]),
        learned=st.sampled_from(["unfreeze", "freeze_a_part"]),
        optimiser=st.sampled_from(sorted(changes.OPTIMISERS)),
        back=st.booleans(),
    )
    def learn(self, seed: int, mode: str, learned: str, optimiser: str, back: bool) -> None:
        if not self.may("learn"):
            return
        for what in (mode, learned):
            self.pair.both(lambda model, _, what=what: changes.SIGNED[what](model, Random(seed)))
        self.pair.call(self.made(*self.image), "grad", backward=True)
        self.pair.step(changes.OPTIMISERS[optimiser])
        if "fused" in optimiser:  # it moves no versions
            self.pair.both(lambda model, _: refresh(model, "train"))
        if back:
            self.pair.both(lambda model, _: model.eval())
        self.pair.compare_state()
        self.look()

    @rule(how=st.sampled_from(sorted(changes.REPLACEMENTS)))
    def replace(self, how: str) -> None:
        self.pair.replace(changes.REPLACEMENTS[how])
        self.pair.compare_state()
        self.look()


def machine(form: str) -> type[Forms]:
    """The state machine for one form."""
    return type(f"Forms_{form}", (Forms,), {"form": form})


SHARES = {"training": 0.35, "inference": 0.5, "bf16": 0.15}
"""Of the sequences."""


def run(form: str, sequences: float, **options: Any) -> None:
    """Try so many sequences. Raises what the first that fails raises, and prints the shortest that does."""
    run_state_machine_as_test(machine(form), settings=settings(SETTINGS, max_examples=round(sequences), **options))


@pytest.mark.parametrize("form", SHARES)
def test_forms_stay_equal(form: str, request: pytest.FixtureRequest, one_thread: None) -> None:
    run(form, SHARES[form] * request.config.getoption("sequences"))


@pytest.mark.slow
@pytest.mark.parametrize("form", SHARES)
def test_forms_stay_equal_at_length(form: str, one_thread: None) -> None:
    run(form, SHARES[form] * 300)
