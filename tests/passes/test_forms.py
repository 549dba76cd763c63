"""Optimised models are models like the others: exported, compiled, copied, saved, drawn from the same seed."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim, export

import mgcompile
from mgcompile.errors import MgcompileError
from mgcompile.lowering.exporting import to_source
from mgcompile.passes import MODES

NAME = mgcompile.load("cifar100/r-mg-12", params={"width": 16})
SMALL = mgcompile.load(
    {
        "name": "small",
        "input": {"size": 32},
        "layers": [
            {"pyramid": 3},
            {"conv": {"channels": [16, 8, 4], "reach": 0}},
            {"unit": {"channels": [16, 8, 4], "by": "residual"}},
            {"pool": {"merge": True}},
            {"unit": {"channels": [16, 12], "by": "residual"}},
            {"pool": {"merge": True}},
            {"classify": 100},
        ],
    }
)
"""The layers of R-MG-12, each kind once: what traces a model takes seconds for every twenty operations."""
FORMS: list[dict[str, Any]] = [
    {"optimize": mode, "precision": precision} for mode in MODES for precision in ("fp32", "bf16")
]
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))


def close(found: torch.Tensor, right: torch.Tensor, form: dict[str, Any]) -> bool:
    limit = 1e-4 if form["precision"] == "fp32" else 0.05
    return float((found - right).detach().abs().max()) <= limit * max(1.0, float(right.detach().abs().max()))


@each_form
def test_one_seed_gives_one_network(form: dict[str, Any]) -> None:
    plain, ours = mgcompile.compile(NAME, seed=3), mgcompile.compile(NAME, seed=3, **form)
    assert ours.training == (form["optimize"] != "inference")
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], tensor, rtol=0, atol=0)


@each_form
def test_copies_and_checkpoints(form: dict[str, Any], tmp_path: Path) -> None:
    ours = mgcompile.compile(NAME, seed=3, **form).eval()
    image = torch.randn(2, 3, 32, 40)
    with torch.no_grad():
        right = ours(image)
        assert close(copy.deepcopy(ours)(image), right, form)
        mgcompile.save(ours, tmp_path / "w.safetensors")
        assert close(mgcompile.load_model(tmp_path / "w.safetensors").eval()(image), right, form)
        assert close(mgcompile.load_model(tmp_path / "w.safetensors", **form).eval()(image), right, form)


@each_form
def test_the_whole_forward_pass_is_one_graph_for_torch_compile(form: dict[str, Any]) -> None:
    torch._dynamo.reset()
    ours = mgcompile.compile(SMALL, seed=3, **form)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(ours, backend=backend, fullgraph=True, dynamic=True)
    # In training, all grids of a level must double that of the next.
    sizes = ((24, 32), (32, 24), (16, 40)) if form["optimize"] == "training" else ((24, 32), (19, 25), (16, 9))
    for size in sizes:
        image = torch.randn(2, 3, *size)
        with torch.set_grad_enabled(form["optimize"] == "training"):
            assert close(compiled(image), copy.deepcopy(ours)(image), form)
    assert len(graphs) == 1  # not one for each size


def test_one_operation_of_a_compiled_program() -> None:
    torch._dynamo.reset()
    ours = mgcompile.compile(SMALL, seed=3, optimize="inference")
    head = ours.get_submodule(next(name for name, m in ours.named_modules() if isinstance(m, torch.nn.Linear)))
    image = torch.randn(2, 3, 32, 32)
    plain = ours(image)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def program(x: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        before = ours(2 * x) + 1
        head.bias.add_(scale)
        return before, ours(2 * x)

    with torch.no_grad():
        right = ours(2 * image)
        for scale in (1.0, 2.0):
            before, after = program(image, scale)
            assert close(before, right + 1, FORMS[0])
            assert close(after, right + scale, FORMS[0])
            right = ours(2 * image)
            assert close(after, right, FORMS[0])
    twin = copy.deepcopy(ours)
    with torch.no_grad():
        compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
        assert close(compiled(image), plain + 3, FORMS[0])


@each_form
def test_whole_models_are_pickled(form: dict[str, Any]) -> None:
    ours, image, file = mgcompile.compile(NAME, seed=3, **form).eval(), torch.randn(1, 3, 32, 32), io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    with torch.no_grad():
        assert close(torch.load(file, weights_only=False)(image), ours(image), form)


@pytest.mark.parametrize("mode", MODES)
def test_export_with_dynamic_sizes(mode: Any) -> None:
    ours = mgcompile.compile(SMALL, seed=3, optimize=mode).eval()
    sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = export(ours, (torch.randn(2, 3, 24, 24),), dynamic_shapes=(sizes,)).module()
    for shape in ((1, 3, 16, 16), (3, 3, 19, 25)):
        image = torch.randn(shape)
        torch.testing.assert_close(program(image), ours(image), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_meta_and_double(mode: Any) -> None:
    shape = mgcompile.compile(NAME, device="meta", optimize=mode)(torch.empty(2, 3, 32, 32, device="meta")).shape
    assert shape == (2, 100)
    double = mgcompile.compile(NAME, optimize=mode, dtype=torch.double, seed=0).eval()
    assert double(torch.randn(2, 3, 32, 32, dtype=torch.double)).dtype is torch.double


def test_no_source_is_written_of_an_optimised_model() -> None:
    with pytest.raises(MgcompileError, match="compile it without `optimize`"):
        to_source(mgcompile.compile(NAME, optimize="inference"))


def test_spans_of_sizes_and_batches() -> None:
    ours, plain = mgcompile.compile(NAME, seed=0, optimize="inference"), mgcompile.compile(NAME, seed=0).eval()
    for batch, height, width in [(1, 32, 32), (2, 33, 32), (1, 32, 35), (20, 16, 16), (1, 1, 1), (1, 32, 32)]:
        image = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            right = plain(image)
        torch.testing.assert_close(ours(image), right, rtol=1e-4, atol=1e-4 * max(1, float(right.abs().max())))
    assert ours(torch.randn(0, 3, 32, 32)).shape == (0, 100)
