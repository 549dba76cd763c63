"""A plain and an optimised model side by side, and when they count as equal.

Equal is: within rounding of the largest number of a tensor or, where a network makes more of rounding (a ReLU at zero,
a norm of few values), within what the plain model itself makes of noise in the last digit of its image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import nn

from . import networks

Tensors = dict[str, torch.Tensor]
GRAD_MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "grad": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}
CLOSE = 2e-4
"""Of the largest number of a tensor; of a tensor in half precision it is `ROUGH`."""
ROUGH = 0.1
DIGIT = 2e-6
"""The relative noise on an image that stands for rounding."""
TRIES = 4
GRADIENT = "the gradient of "


@dataclass
class Seen:
    """What hooks saw, in the order of the calls: the module's name and what came out (not copied)."""

    calls: list[tuple[str, Any]] = field(default_factory=list)
    asleep: bool = False

    def add(self, name: str, value: Any) -> None:
        if not self.asleep:
            self.calls.append((name, value))


class Pair:
    """Two models that are to stay equal. What is done to one is done to the other, by `both`."""

    def __init__(self, form: str, network: str) -> None:
        self.form = form
        self.plain, self.ours = networks.plain_and(form, network)
        self.channels = networks.channels(network)
        self.seen = {"plain": Seen(), "ours": Seen()}

    @property
    def models(self) -> dict[str, nn.Module]:
        return {"plain": self.plain, "ours": self.ours}

    @property
    def rough(self) -> bool:
        """Whether numbers are in half precision somewhere."""
        half = any(each.dtype in (torch.bfloat16, torch.float16) for each in self.plain.parameters())
        return half or torch.is_autocast_enabled("cpu") or self.form == "bf16"

    def both(self, change: Callable[[nn.Module, Seen], Any]) -> tuple[Any, Any] | None:
        """Do something to both. Both do it, or both raise the same kind of error: then None."""
        found = {name: _tried(change, model, self.seen[name]) for name, model in self.models.items()}
        plain, ours = found["plain"], found["ours"]
        if isinstance(plain, Exception) or isinstance(ours, Exception):
            same = isinstance(ours, type(plain)) or isinstance(plain, type(ours))
            if not same or not (isinstance(plain, Exception) and isinstance(ours, Exception)):
                cause = ours if isinstance(ours, Exception) else None
                raise AssertionError(f"plain: {_short(plain)}\noptimised: {_short(ours)}") from cause
            return None
        return plain, ours

    def call(self, image: torch.Tensor, grad: str, *, backward: bool = False) -> None:
        """Call both with an image, and compare the outputs, what hooks saw and, with `backward`, the gradients."""
        kept = image.detach().clone()
        backward = backward and (not self.rough or bool(torch.isfinite(kept).all()))  # in half, what is left is noise
        own = {id(model): _own(image) for model in self.models.values()}

        def run(model: nn.Module, seen: Seen) -> Tensors:
            seen.calls.clear()
            x = own[id(model)]
            with GRAD_MODES[grad]():
                outputs = named(model(x))
                return outputs | (gradients(model, x, outputs) if backward else {})

        found = self.both(run)
        if found is not None:
            sound = bool(torch.isfinite(kept).all()) and self._finite()
            self._compare("", *found, sound, lambda: self._noise(run, own, kept))
        self._compare_seen(sound=bool(torch.isfinite(kept).all()))
        for x in own.values():
            assert _equal(x.detach(), kept), "the image has been written to"

    def compare_runs(self, run: Callable[[nn.Module, Seen], Tensors], *, rough: bool = False) -> None:
        """Run something on both that gives tensors, and compare these."""
        found = self.both(run)
        if found is not None:
            limit = ROUGH if rough or self.rough else 5 * CLOSE
            for name, each in differences(*found, sound=self._finite()).items():
                assert each <= limit, f"{name or 'output'}: {each:.2g} of the largest number, at most {limit:.2g}"
        for seen in self.seen.values():
            seen.calls.clear()

    def step(self, optimiser: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> None:
        """A step of both along the plain model's gradients, in parts of each parameter's size."""
        found = {name: parameter.grad for name, parameter in self.plain.named_parameters()}

        def run(model: nn.Module, _: Seen) -> None:
            for name, parameter in model.named_parameters():
                gradient = found.get(name)
                if gradient is not None and parameter.is_leaf:
                    size = parameter.detach().norm().clamp(min=0.1) / gradient.norm().clamp(min=1e-12)
                    parameter.grad = torch.empty_like(parameter).copy_(gradient * size)
            optimiser([each for each in model.parameters() if each.is_leaf]).step()

        self.both(run)

    def replace(self, make: Callable[[nn.Module], nn.Module]) -> None:
        """Put what is made of each in its place, where that can be made."""
        found = self.both(lambda model, _: make(model))
        if found is not None:
            self.plain, self.ours = found

    def compare_state(self) -> None:
        """Names and their order, values, gradients that are needed, statistics."""
        plain, ours = self.plain, self.ours
        for what in ("named_parameters", "named_buffers", "state_dict"):
            names = [[name for name, *_ in _items(getattr(model, what)())] for model in (plain, ours)]
            assert set(names[0]) == set(names[1]), f"{what}: {sorted(set(names[0]) ^ set(names[1]))} is in one alone"
            assert names[0] == names[1], f"{what}: another order, {names[0]} and {names[1]}"
        for name, one in plain.named_parameters():
            other = ours.get_parameter(name)
            assert one.requires_grad == other.requires_grad, f"{name}.requires_grad: {one.requires_grad} alone"
            assert (one.grad is None) == (other.grad is None), f"{name}.grad: one is None"
        states = dict(_items(plain.state_dict())), dict(_items(ours.state_dict()))
        self._compare("state_dict: ", *states, self._finite(), dict)
        modes = {name: module.training for name, module in ours.named_modules()}
        for name, module in plain.named_modules():
            assert modes.get(name, module.training) == module.training, f"{name}.training: {module.training} alone"

    def _compare(
        self, what: str, plain: Tensors, ours: Tensors, sound: bool, noise: Callable[[], Mapping[str, float]]
    ) -> None:
        found = differences(plain, ours, sound=sound)
        limit = ROUGH if self.rough else CLOSE
        if any(each > limit for each in found.values()):
            allowed = noise()
            for name, each in found.items():
                most = max(limit, 4 * allowed.get(name, 0.0))
                assert each <= most, f"{what}{name or 'output'}: {each:.2g} of the largest number, at most {most:.2g}"

    def _noise(
        self, run: Callable[..., Tensors], own: dict[int, torch.Tensor], image: torch.Tensor
    ) -> dict[str, float]:
        learns = own[id(self.plain)].requires_grad

        def again(x: torch.Tensor) -> Tensors:
            own[id(self.plain)] = x.requires_grad_(learns)
            return run(self.plain, Seen())

        self.seen["plain"].asleep = True
        with _preserved(self.plain):
            found = sensitivity(again, image, 0.02 if self.rough else DIGIT)
        self.seen["plain"].asleep = False
        own[id(self.plain)] = image
        return found

    def _compare_seen(self, *, sound: bool) -> None:
        calls = [sorted(seen.calls, key=lambda call: call[0]) for seen in self.seen.values()]
        names = [[name for name, _ in each] for each in calls]
        assert names[0] == names[1], f"hooks saw {names[0]} and {names[1]}"
        limit = ROUGH if self.rough else 5 * CLOSE
        for (name, plain), (_, ours) in zip(*calls, strict=True):
            if isinstance(plain, torch.Tensor):
                assert plain.shape == ours.shape, f"a hook of {name} saw {[*plain.shape]} and {[*ours.shape]}"
                # In a rough form, between its modules, numbers are in half; in the plain form they are not.
                each = difference(plain, ours.to(plain.dtype) if self.rough else ours, sound=sound)
                assert each <= limit, f"what a hook of {name} saw: {each:.2g} of the largest number"
        for seen in self.seen.values():
            seen.calls.clear()

    def _finite(self) -> bool:
        return all(bool(torch.isfinite(each).all()) for each in self.plain.state_dict().values())


def named(outputs: Any) -> Tensors:
    """Outputs by name; a single one by none."""
    return dict(outputs) if isinstance(outputs, dict) else {"": outputs}


def differences(plain: Tensors, ours: Tensors, *, sound: bool) -> dict[str, float]:
    """Of tensors by name; those of gradients in parts of a hundredth of the largest gradient at the least, since a bias
    before a norm has none but rounding.
    """
    assert plain.keys() == ours.keys(), f"{[*plain]} and {[*ours]}"
    sizes = [float(value.abs().max()) for name, value in plain.items() if _is_gradient(name) and value.numel()]
    least = 1e-2 * max((size for size in sizes if isfinite(size)), default=0.0)
    return {
        name: difference(value, ours[name], sound=sound, least=least if _is_gradient(name) else 0.0)
        for name, value in plain.items()
    }


def _is_gradient(name: str) -> bool:
    return name.startswith(GRADIENT)


def difference(plain: torch.Tensor, ours: torch.Tensor, *, sound: bool, least: float = 0.0) -> float:
    """The largest difference, in parts of the largest number (or of `least`, if that is larger); infinite where one is
    no number and should be, or is not.

    NaN and infinities may spread (`sound` is False where some came in), and never get lost. Raises `AssertionError`
    where the shape, the type or what is learned differs.
    """
    for what in ("shape", "dtype", "requires_grad"):
        one, other = getattr(plain, what), getattr(ours, what)
        assert one == other, f"{what}: {one} and {other}"
    if not plain.numel():
        return 0.0
    one, other = plain.detach().double(), ours.detach().double()
    finite, ours_finite = one.isfinite(), other.isfinite()
    if bool((ours_finite & ~finite).any()) or (sound and bool((finite & ~ours_finite).any())):
        return float("inf")
    both = finite & ours_finite
    if not bool(both.all()):
        one, other = one[both], other[both]
    if not one.numel():
        return 0.0
    return float((one - other).abs().max()) / max(float(one.abs().max()), least, 1e-6)


def sensitivity(run: Callable[[torch.Tensor], Tensors], image: torch.Tensor, digit: float) -> dict[str, float]:
    """The largest `difference` of each tensor that a plain model gives when an image has noise in its last digit."""
    found: dict[str, float] = {}
    generator = torch.Generator().manual_seed(0)
    largest = image.abs().nan_to_num(0, 0, 0).max() if image.numel() else 0
    right = run(image.clone())
    for _ in range(TRIES):
        noise = digit * largest * torch.randn(image.shape, generator=generator).to(image)
        for name, each in differences(right, run(image + noise), sound=False).items():
            found[name] = max(found.get(name, 0.0), each)
    return found


def gradients(model: nn.Module, x: torch.Tensor, outputs: Tensors) -> Tensors:
    """Of a sum of all outputs with fixed factors, by the image and the parameters: None where nothing is learned."""
    total: Any = 0.0
    for value in outputs.values():
        if value.requires_grad:
            factors = torch.linspace(-1, 1.5, max(value.numel(), 1))[: value.numel()].view(value.shape)
            total = total + (value * factors.to(value)).sum()
    model.zero_grad(set_to_none=True)
    if not isinstance(total, torch.Tensor):
        return {}
    total.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    if x.is_leaf and x.grad is not None:
        found["the image"] = x.grad
    return {f"{GRADIENT}{name}": found[name] for name in sorted(found)}


def _own(image: torch.Tensor) -> torch.Tensor:
    """The image with memory of its own where it is to have a gradient."""
    return image.detach().clone().requires_grad_() if image.requires_grad else image


@contextmanager
def _preserved(model: nn.Module) -> Iterator[None]:
    """Buffers and gradients, as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    yield
    with torch.inference_mode():
        for buffer, before in buffers:
            buffer.copy_(before)
    for parameter, gradient in gradients:
        parameter.grad = gradient


def _tried(change: Callable[[nn.Module, Seen], Any], model: nn.Module, seen: Seen) -> Any:
    try:
        return change(model, seen)
    except Exception as error:
        return error


def _short(value: Any) -> str:
    return f"{type(value).__name__}: {value}"[:300] if isinstance(value, Exception) else "no error"


def _items(values: Any) -> list[tuple[str, torch.Tensor]]:
    return list(values.items() if isinstance(values, Mapping) else values)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.nan_to_num(1e30), other.nan_to_num(1e30))
