"""One law for every form of a model: what is done to it has the effect that it has on the plain form."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp, vmap
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel

import mgcompile
from mgcompile.graph import Graph
from mgcompile.graph.ops import (
    Activation,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    GlobalPool,
    Input,
    Linear,
    Pool,
    Resize,
    Sum,
)
from mgcompile.lowering.compiler import compile_graph
from mgcompile.passes import MODES
from tests.lowering.graphs import node


def network() -> Graph:
    """Two levels, with all that is fused: norms, an addition, activations, a coarse part, a head."""
    relu, slope = Activation("relu"), Activation("leaky_relu")
    nodes = [
        node("input", Input(3)),
        node("a.conv", Conv(6), "input"),
        node("a.norm", BatchNorm(), "a.conv"),
        node("a.act", relu, "a.norm"),
        node("down.pool", Pool("max", 2, 2), "a.act", level=1),
        node("down.conv", Conv(8, bias=False), "down.pool", level=1),
        node("down.norm", BatchNorm(momentum=0.3), "down.conv", level=1),
        node("down.act", slope, "down.norm", level=1),
        node("up", Resize(), "down.act", "a.act"),
        node("join", Concat(), "a.act", "up"),
        node("b.conv", Conv(6), "join"),
        node("b.norm", BatchNorm(), "b.conv"),
        node("sum", Sum(), "b.norm", "a.act"),
        node("b.act", relu, "sum"),
        node("c.conv", Conv(5, (3, 3), 2), "b.act", level=1),
        node("pool", GlobalPool(), "c.conv", level=1),
        node("flat", Flatten(), "pool", level=1),
        node("head", Linear(4), "flat", level=1),
    ]
    return Graph("net", nodes, {"head": "head"}, size=(12, 8))


FORMS: dict[str, dict[str, Any]] = {mode: {"optimize": mode} for mode in MODES}
each_form = pytest.mark.parametrize("form", FORMS)


def pair(form: str) -> tuple[nn.Module, nn.Module]:
    """The plain model and one of another form, in evaluation mode, with equal weights and statistics."""
    plain, ours = compile_graph(network(), seed=0).eval(), compile_graph(network(), seed=0, **FORMS[form]).eval()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in plain.state_dict().items():
        if name.endswith("norm.weight") or name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point() and tensor.dim() == 1:
            tensor.uniform_(-0.5, 0.5, generator=generator)
    ours.load_state_dict(plain.state_dict())
    plain.requires_grad_(False)
    ours.requires_grad_(False)
    return plain, ours


def image(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(found: Any, right: Any, **limits: float) -> None:
    torch.testing.assert_close(found, right, **{"rtol": 2e-4, "atol": 2e-4} | limits)  # type: ignore[arg-type]


def norm(model: nn.Module) -> nn.BatchNorm2d:
    found = model.get_submodule("b.norm")
    assert isinstance(found, nn.BatchNorm2d)
    return found


def conv(model: nn.Module) -> Any:
    return model.get_submodule("b.conv")


def fine_tune(model: nn.Module, trained: str = "head", batch: int = 4) -> None:
    """A training step of one part; all batch norms move their statistics, as in a frozen backbone left in training."""
    model.train()
    part = model.get_submodule(trained)
    part.requires_grad_(True)
    optimizer = torch.optim.SGD(part.parameters(), 0.1)
    model(image(batch, 3, 12, 8)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    model.requires_grad_(False).eval()


@torch.no_grad()
def every(model: nn.Module, change: Callable[[torch.Tensor], Any]) -> None:
    for tensor in (*model.parameters(), *(each for each in model.buffers() if each.is_floating_point())):
        change(tensor)


def average(model: nn.Module) -> None:
    """As code for exponential averages does, by `.data`."""
    other = compile_graph(network(), seed=9).eval()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        ours.data.mul_(0.9).add_(theirs.data, alpha=0.1)


def by_numpy(model: nn.Module) -> None:
    for tensor in model.state_dict().values():
        if tensor.dim() == 4:
            tensor.numpy()[...] *= 1.25


def there_and_back(model: nn.Module) -> None:
    """In half precision numbers lose digits; in the end they may lie where they lay."""
    model.half().float()


def with_inference(change: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Any]:
    def changed(model: nn.Module) -> None:
        with torch.inference_mode():
            change(model)

    return changed


def load(model: nn.Module, **options: bool) -> None:
    model.load_state_dict(compile_graph(network(), seed=5).state_dict(), **options)
    model.requires_grad_(False)


def own_forward(module: nn.Module) -> None:
    before = module.forward
    module.forward = lambda *args, **options: before(*args, **options) + 1  # type: ignore[method-assign]


def in_vector(model: nn.Module) -> None:
    vector = nn.utils.parameters_to_vector(model.parameters())
    nn.utils.vector_to_parameters(vector * torch.linspace(0.5, 1.5, len(vector)), model.parameters())


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def dilated(model: nn.Module) -> None:
    own = conv(model)
    own.dilation, own.padding = (2, 2), (2, 2)


def pruned_for_good(model: nn.Module) -> None:
    prune.random_structured(conv(model), "weight", 0.5, dim=1)
    prune.remove(conv(model), "weight")  # type: ignore[no-untyped-call]


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    setattr(model.get_submodule("b"), name, module.requires_grad_(False).train(model.training))


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "train the head": fine_tune,
    "train a convolution": lambda model: fine_tune(model, "down.conv"),
    "a norm trained by itself": lambda m: [norm(m).train(), norm(m)(image(2, 6, 4, 4)), norm(m).eval()],
    "in place": lambda model: every(model, lambda tensor: tensor.mul_(1.1)),
    "one number in place": lambda model: every(model, lambda tensor: tensor[(0,) * tensor.dim()].add_(1)),
    "through data": lambda model: every(model, lambda tensor: tensor.data.mul_(1.1)),
    "data replaced": lambda model: every(model, lambda tensor: setattr(tensor, "data", tensor.data * 1.1)),
    "data replaced twice": lambda m: [every(m, lambda t, by=by: setattr(t, "data", t.data * by)) for by in (1.1, 1.3)],
    "average through data": average,
    "buffers through data": lambda model: [each.data.add_(1) for each in model.buffers() if each.dim()],
    "numpy": by_numpy,
    "load": load,
    "load and assign": lambda model: load(model, assign=True),
    "load in inference mode": with_inference(load),
    "assign in inference mode": with_inference(lambda model: load(model, assign=True)),
    "train in inference mode": with_inference(lambda m: [m.train(), m(image(2, 3, 12, 8)), m.eval()]),
    "eps": lambda model: setattr(norm(model), "eps", 0.7),
    "momentum None": lambda model: [setattr(norm(model), "momentum", None), fine_tune(model)],
    "no statistics": lambda m: [setattr(norm(m), n, None) for n in ("running_mean", "running_var")],
    "no count of batches": lambda m: [setattr(norm(m), "num_batches_tracked", None), fine_tune(m)],
    "not tracked": lambda model: setattr(norm(model), "track_running_stats", False),
    "stride": lambda model: setattr(model.get_submodule("c.conv"), "stride", (1, 1)),
    "dilation": dilated,
    "pruned": lambda model: prune.l1_unstructured(conv(model), "weight", 0.5),
    "pruned for good": pruned_for_good,
    "pruned norm and bias": lambda model: [
        prune.l1_unstructured(module, name, 0.5) for module, name in ((norm(model), "weight"), (conv(model), "bias"))
    ],
    "parametrised": lambda model: parametrize.register_parametrization(conv(model), "weight", Doubled()),
    "parametrised norm": lambda model: parametrize.register_parametrization(norm(model), "bias", Doubled()),
    "parametrised and back": lambda m: [
        parametrize.register_parametrization(conv(m), "weight", Doubled()),
        parametrize.remove_parametrizations(conv(m), "weight"),
    ],
    "weight norm": lambda model: parametrizations.weight_norm(conv(model)),
    "spectral norm": lambda model: torch.manual_seed(0) and parametrizations.spectral_norm(conv(model)),
    "old weight norm": lambda model: nn.utils.weight_norm(conv(model)),
    "old spectral norm": lambda model: torch.manual_seed(0) and nn.utils.spectral_norm(conv(model)),
    "vector": in_vector,
    "another convolution": lambda model: put(model, "conv", nn.Conv2d(14, 6, 3, padding=1)),
    "another norm": lambda model: put(model, "norm", nn.GroupNorm(2, 6)),
    "no norm": lambda model: put(model, "norm", nn.Identity()),
    "its own forward": lambda model: own_forward(norm(model)),
    "a convolution's own forward": lambda model: own_forward(conv(model)),
    "double and float": lambda model: model.double().float(),
    "half and float": there_and_back,
    "layout": lambda model: model.to(memory_format=torch.contiguous_format),
    "a norm in training": lambda model: norm(model).train(),
    "thawed": lambda model: model.requires_grad_(True),
}  # fmt: skip


def compare(plain: nn.Module, ours: nn.Module, *shape: int) -> None:
    """Outputs in evaluation; then outputs, gradients and statistics of a training step; names and order."""
    x = image(*shape)
    for _ in range(3):  # plain operations, packed ones, a plan
        close(ours(x), plain(x))
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert list(ours.state_dict()) == list(plain.state_dict())
    if any(each.is_inference() for each in plain.parameters()):
        return  # no gradients
    gradients = []
    for model in (ours, plain):
        modes = [module.training for module in model.modules()]
        model.train().requires_grad_(True)
        gradients.append(torch.autograd.grad(model(x).sin().sum(), list(model.parameters()), allow_unused=True))
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode
        model.requires_grad_(False)
    for one, other in zip(*gradients, strict=True):
        close(one, other, rtol=2e-3, atol=2e-3)
    for one, other in zip(ours.buffers(), plain.buffers(), strict=True):
        close(one, other)


@each_form
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_what_is_done_to_a_model(form: str, change: str) -> None:
    plain, ours = pair(form)
    compare(plain, ours, 2, 3, 12, 8)
    x = image(2, 3, 12, 8)
    for _ in range(3):
        before = ours(x)
    for model in (plain, ours):
        torch.manual_seed(3)
        CHANGES[change](model)
    after = plain(x)
    close(ours(x), after)
    if change not in {"double and float", "layout", "thawed", "not tracked", "weight norm", "old weight norm"}:
        assert not torch.allclose(before, after, rtol=1e-4, atol=1e-5)  # it does something
    compare(plain, ours, 2, 3, 12, 8)
    compare(plain, ours, 1, 3, 9, 16)


@each_form
def test_where_nothing_tells_of_a_change_there_is_a_call(form: str) -> None:
    """One number of many, through `.data`: the next `eval()` or `train()`, or `refresh`, looks again."""
    for call in (mgcompile.refresh, nn.Module.eval, lambda model: model.get_submodule("b").train(False)):
        plain, ours = pair(form)
        for x in [image(2, 3, 12, 8)] * 3:
            ours(x)
        for model in (plain, ours):
            conv(model).weight.data[0, 0, 0, 0] += 5
        call(ours)
        close(ours(x), plain(x))


HOOKS = {
    "forward": lambda module, seen: module.register_forward_hook(
        lambda module, inputs, output: seen.append((*inputs, output)) or output * 1.5
    ),
    "pre": lambda module, seen: module.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs) or (inputs[0] + 0.5,)
    ),
    "backward": lambda module, seen: module.register_full_backward_hook(
        lambda module, inputs, outputs: seen.append((*inputs, *outputs))
    ),
    "backward pre": lambda module, seen: module.register_full_backward_pre_hook(
        lambda module, outputs: seen.append(outputs)
    ),
}  # fmt: skip


@each_form
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("where", ["input", "a.norm", "a.conv", "b.norm", "b.conv", "c.conv", "head"])
def test_hooks_see_what_they_see_in_the_plain_form(form: str, kind: str, where: str) -> None:
    if where == "input" and "backward" in kind:
        return  # images have no gradients
    models, seen, handles = pair(form), ([], []), []  # type: ignore[var-annotated]
    x = image(2, 3, 12, 8)
    for model, own in zip(models, seen, strict=True):
        for _ in range(3):
            before = model(x)
        handles.append(HOOKS[kind](model.get_submodule(where), own))
    for training in (False, True):
        outputs = [model.train(training).requires_grad_(training)(x) for model in models]
        close(outputs[1], outputs[0])
        if training:
            for output in outputs:
                output.sin().sum().backward()
    assert seen[0]
    assert len(seen[0]) == len(seen[1])
    for one, other in zip(*seen, strict=True):
        close(list(one), list(other), rtol=2e-3, atol=2e-3)
    fresh = pair(form)
    for model, handle, other in zip(models, handles, fresh, strict=True):
        handle.remove()
        model.load_state_dict(other.state_dict())
        close(model.eval().requires_grad_(False)(x), before)


@each_form
def test_global_hooks(form: str) -> None:
    x, seen = image(2, 3, 12, 8), []
    models = pair(form)
    for _ in range(3):
        models[1](x)
    names = [{module: name for name, module in model.named_modules()} for model in models]
    for model, own in zip(models, names, strict=True):
        calls: list[Any] = []
        with nn.modules.module.register_module_forward_hook(
            lambda module, inputs, output, own=own, calls=calls: calls.append((own[module], output.clone()))
        ):
            model(x)
        seen.append({name: output for name, output in calls if name})
    assert seen[1].keys() <= seen[0].keys()
    assert seen[1].keys() >= {"a.conv", "a.norm", "b.conv", "b.norm", "c.conv", "head"}
    for name, output in seen[1].items():
        close(output, seen[0][name])


@each_form
def test_transforms(form: str) -> None:
    plain, ours = pair(form)
    x, direction = image(2, 3, 12, 8), image(2, 3, 12, 8, seed=3)
    many = image(3, 2, 3, 12, 8)
    tensors = {name: torch.stack([tensor, 2 * tensor]) for name, tensor in plain.named_parameters()}
    for _ in range(3):
        ours(x)
        close(vmap(ours)(many), vmap(plain)(many))
    close(jvp(ours, (x,), (direction,)), jvp(plain, (x,), (direction,)))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, direction)
        values = [torch.autograd.forward_ad.unpack_dual(model(dual)).tangent for model in (ours, plain)]
    close(*values)
    for names in (list(tensors), ["b.norm.weight"], ["a.conv.bias"]):
        some = {name: tensors[name] for name in names}
        close(*(vmap(lambda own, m=m: functional_call(m, own, (x,)))(some) for m in (ours, plain)))  # type: ignore[misc]
    doubled = {name: tensor[1] for name, tensor in tensors.items()}
    close(*(functional_call(model, doubled, (x,)) for model in (ours, plain)))  # type: ignore[misc]
    close(ours(x), plain(x))


@each_form
def test_copies_pickles_and_averages(form: str) -> None:
    plain, ours = pair(form)
    x = image(2, 3, 12, 8)
    for _ in range(3):
        ours(x)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    for twin in (copy.deepcopy(ours), torch.load(file, weights_only=False)):
        every(twin, lambda tensor: tensor.mul_(1.1))
        other = copy.deepcopy(plain)
        every(other, lambda tensor: tensor.mul_(1.1))
        compare(other, twin, 2, 3, 12, 8)
    averages = [AveragedModel(model) for model in (plain, ours)]
    for model, average_of in zip((plain, ours), averages, strict=True):
        for scale in (1.5, 0.25):
            average_of(x)
            every(model, lambda tensor, scale=scale: tensor.mul_(scale))
            average_of.update_parameters(model)
            average_of(x)
    close(averages[1](x), averages[0](x))
    compare(plain, ours, 2, 3, 12, 8)
