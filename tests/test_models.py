"""What a compiled model must bear: copies, moves, training, torch.export with dynamic sizes, torch.compile."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch.export import Dim, export

import mgcompile
from mgcompile.spec import Spec, parse_spec, zoo_folder

NAMES = ["cifar100/mg-6", "cifar100/r-pmg-16", "mnist-seg/u-mg-11", "mnist-spatial/r-pmg-20"]
LARGE = ["imagenet/r-mg-34", "imagenet/r-pmg-30-seg", "beyond/retinanet-r50-fpn", "beyond/hrnet-w18"]


def spec_of(name: str) -> Spec:
    """A network of the zoo, each layer that it repeats once, and narrow where it has a width: tracing takes as long
    as there are operations, and says nothing new of a stage's fourth unit.
    """
    text = re.sub(r"repeat: [0-9]+", "repeat: 1", (zoo_folder() / f"{name}.yaml").read_text())
    spec = parse_spec(text, str(zoo_folder() / f"{name}.yaml"))
    return mgcompile.load(spec, params={"width": 16}) if "width" in spec.document.params else spec


def image(name: str, batch: int, height: int, width: int) -> torch.Tensor:
    channels = mgcompile.load(name).document.input.channels
    return torch.randn(batch, channels, height, width)


def tensors(result: torch.Tensor | dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return list(result.values()) if isinstance(result, dict) else [result]


def check_export(name: str) -> None:
    model = mgcompile.compile(spec_of(name), seed=0).eval()
    sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = export(model, (image(name, 2, 128, 160),), dynamic_shapes=(sizes,))
    exported = program.module()
    for batch, height, width in ((3, 129, 131), (1, 96, 160), (2, 101, 77)):
        x = image(name, batch, height, width)
        torch.testing.assert_close(tensors(exported(x)), tensors(model(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES[:3])
def test_exports_with_dynamic_batch_height_and_width(name: str) -> None:
    check_export(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagenet/r-mg-34"])
def test_large_ones_export(name: str) -> None:
    check_export(name)


@pytest.mark.parametrize("name", [*NAMES, *LARGE])
def test_is_one_graph_for_torch_compile(name: str) -> None:
    model = mgcompile.compile(spec_of(name), seed=0).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    x = image(name, 2, 45, 70)
    torch.testing.assert_close(tensors(compiled(x)), tensors(model(x)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
def test_torch_compile_as_an_option(plain_inductor: None) -> None:
    layers = [{"conv": {"channels": 4}}, "pool", {"conv": {"channels": 4}}, {"classify": 10}]
    spec = mgcompile.load({"input": {"size": 16}, "layers": layers})
    plain, fast = (mgcompile.compile(spec, seed=3, torch_compile=on).eval() for on in (False, True))
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-3, atol=1e-4)
    assert fast.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("name", NAMES)
def test_copies_moves_and_trains(name: str) -> None:
    model = mgcompile.compile(name, seed=0)
    twin = copy.deepcopy(model)
    x = image(name, 4, 32, 32)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    target = torch.rand_like(model(x)).detach()
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(
        torch.equal(a, b) for a, b in zip(twin.parameters(), mgcompile.compile(name, seed=0).parameters(), strict=True)
    )
    assert next(twin.to("meta").parameters()).device.type == "meta"
    double = copy.deepcopy(model).double().eval()
    assert double(x.double()).dtype == torch.double


def test_several_outputs_are_a_dict() -> None:
    result = mgcompile.compile("beyond/retinanet-r50-fpn", seed=0).eval()(torch.randn(1, 3, 64, 96))
    assert set(result) == {f"{head}.level{level}" for head in ("classes", "boxes") for level in range(3, 8)}
