"""Weights in files, and back."""

import os

import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save_file
from torch import nn

from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph
from mgcompile.graph.ops import BatchNorm, Conv, Input
from mgcompile.lowering.checkpoints import Report, load_weights, read_checkpoint, save, unwrapped
from mgcompile.lowering.compiler import compile_graph

from .graphs import graphs, node


def model(seed=0, *, channels=4, extra=False, spec="layers: [é]\n", **options):
    nodes = [
        node("input", Input(3)),
        node("unit.0.conv", Conv(channels), "input"),
        node("unit.0.again", Conv(channels), "input", weights="unit.0.conv"),
        node("norm", BatchNorm(), "unit.0.conv"),
    ]
    nodes += [node("extra", Conv(1), "norm")] * extra
    graph = Graph("net", nodes, {"out": nodes[-1].name}, size=(8, 8))
    return compile_graph(graph, seed=seed, spec_text=spec, **options)


def assert_equal(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


class TestFiles:
    def test_there_and_back(self, tmp_path):
        ours = model()
        ours(torch.randn(4, 3, 8, 8))  # moves the running statistics
        save(ours, tmp_path / "x.safetensors")
        spec, tensors = read_checkpoint(tmp_path / "x.safetensors")
        assert spec == "layers: [é]\n"
        assert_equal(dict(sorted(tensors.items())), dict(sorted(ours.state_dict().items())))
        assert os.listdir(tmp_path) == ["x.safetensors"]

    def test_paths_as_text_and_files_replaced(self, tmp_path):
        path = str(tmp_path / "x.safetensors")
        for seed in (0, 1):
            save(model(seed), path)
        assert torch.equal(read_checkpoint(path)[1]["unit.0.conv.weight"], model(1).state_dict()["unit.0.conv.weight"])

    def test_other_layouts_and_types(self, tmp_path):
        ours = model(dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        save(ours, tmp_path / "x.safetensors")
        _, tensors = read_checkpoint(tmp_path / "x.safetensors")
        assert all(torch.equal(tensors[name], tensor) for name, tensor in ours.state_dict().items())
        assert tensors["norm.weight"].dtype == torch.bfloat16

    def test_tensors_that_share_memory(self, tmp_path):
        ours = model()
        ours.norm.bias = ours.norm.weight
        ours.norm.running_mean = ours.norm.running_var[:]
        save(ours, tmp_path / "x.safetensors")
        _, tensors = read_checkpoint(tmp_path / "x.safetensors")
        assert torch.equal(tensors["norm.bias"], tensors["norm.weight"])
        assert torch.equal(tensors["norm.running_mean"], torch.ones(4))

    def test_compiled_models(self, tmp_path):
        ours = model()
        save(torch.compile(ours, backend="eager"), tmp_path / "x.safetensors")
        spec, tensors = read_checkpoint(tmp_path / "x.safetensors")
        assert spec == "layers: [é]\n"
        assert set(tensors) == set(ours.state_dict())
        load_weights(torch.compile(model(1), backend="eager"), tensors)

    def test_models_and_files_without_a_spec(self, tmp_path):
        save(model(spec=None), tmp_path / "x.safetensors")
        save_file({"a": torch.ones(1)}, tmp_path / "y.safetensors")
        save(nn.Linear(1, 1), tmp_path / "z.safetensors")
        assert [read_checkpoint(tmp_path / f"{name}.safetensors")[0] for name in "xyz"] == [None, None, None]

    @settings(max_examples=20, deadline=None)
    @given(graphs())
    def test_every_graph(self, tmp_path_factory, graph):
        path = tmp_path_factory.mktemp("graph") / "x.safetensors"
        save(compile_graph(graph, seed=1), path)
        twin = compile_graph(graph, seed=2)
        load_weights(twin, read_checkpoint(path)[1])
        assert_equal(twin.state_dict(), compile_graph(graph, seed=1).state_dict())


class TestBadFiles:
    def test_missing(self, tmp_path):
        with pytest.raises(MgcompileError, match=r"cannot read .*x.safetensors"):
            read_checkpoint(tmp_path / "x.safetensors")

    def test_a_directory(self, tmp_path):
        with pytest.raises(MgcompileError, match="cannot read"):
            read_checkpoint(tmp_path)
        with pytest.raises(MgcompileError, match="cannot write"):
            save(model(), tmp_path)

    @pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 100])
    def test_another_format(self, tmp_path, content):
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(MgcompileError, match=r"cannot read .*x.safetensors"):
            read_checkpoint(tmp_path / "x.safetensors")

    def test_no_directory_to_write_to(self, tmp_path):
        with pytest.raises(MgcompileError, match=r"cannot write .*x.safetensors"):
            save(model(), tmp_path / "none" / "x.safetensors")

    def test_a_failure_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "x.safetensors"
        save(model(), path)
        before = path.read_bytes()

        def full(tensors, filename, metadata):
            filename.write_bytes(b"half")
            raise OSError("No space left on device")

        monkeypatch.setattr("mgcompile.lowering.checkpoints.save_file", full)
        with pytest.raises(MgcompileError, match=r"cannot write .*x.safetensors: No space left on device"):
            save(model(1), path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["x.safetensors"]

    def test_the_meta_device(self, tmp_path):
        with pytest.raises(MgcompileError, match="meta device"):
            save(model(device="meta"), tmp_path / "x.safetensors")
        with pytest.raises(MgcompileError, match="meta device"):
            load_weights(model(device="meta"), {})


NORM = ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked")


class TestLoading:
    def test_all_kept(self):
        ours, theirs = model(0), model(1)
        report = load_weights(ours, theirs.state_dict())
        assert report == Report(kept=tuple(theirs.state_dict()))
        assert report.complete
        assert str(report) == "7 tensors loaded"
        assert_equal(ours.state_dict(), theirs.state_dict())

    def test_converts_types(self):
        ours = model(0, dtype=torch.float64)
        load_weights(ours, model(1).state_dict())
        assert ours.norm.weight.dtype == torch.float64

    def test_keeps_gradients_and_optimisers_alive(self):
        ours = model(0)
        before = {name: id(tensor) for name, tensor in ours.named_parameters()}
        load_weights(ours, model(1).state_dict())
        assert {name: id(tensor) for name, tensor in ours.named_parameters()} == before
        assert all(tensor.requires_grad for tensor in ours.parameters())

    def test_differences_are_errors(self):
        ours = model(0, channels=5, extra=True)
        before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
        given = model(1).state_dict() | {"old.weight": torch.ones(1)}
        with pytest.raises(MgcompileError, match="do not fit the model") as caught:
            load_weights(ours, given)
        message = str(caught.value)
        assert "missing: extra.weight" in message
        assert "unexpected: old.weight" in message
        assert "reshaped: unit.0.conv.weight is [4, 3, 3, 3], the model has [5, 3, 3, 3]" in message
        assert_equal(ours.state_dict(), before)

    def test_differences_are_reported_where_allowed(self):
        ours = model(0, channels=5, extra=True)
        before = ours.state_dict()["unit.0.conv.weight"].clone()
        report = load_weights(ours, model(1).state_dict() | {"old.weight": torch.ones(1)}, strict=False)
        assert not report.complete
        assert report.kept == ("norm.num_batches_tracked",)
        assert report.missing == ("extra.weight", "extra.bias")
        assert report.unexpected == ("old.weight",)
        assert [name for name, *_ in report.reshaped] == ["unit.0.conv.weight", "unit.0.conv.bias", *NORM[:4]]
        assert report.reshaped[1] == ("unit.0.conv.bias", (4,), (5,))
        assert torch.equal(ours.state_dict()["unit.0.conv.weight"], before)

    @pytest.mark.parametrize(
        "rename", [unwrapped, {f"module.{name}": name for name in model().state_dict()}], ids=["function", "mapping"]
    )
    def test_renamed(self, rename):
        theirs = model(1).state_dict()
        given = {f"module.{name}": tensor for name, tensor in theirs.items()}
        ours = model(0)
        report = load_weights(ours, given, rename=rename)
        assert report.complete
        assert report.kept == tuple(theirs)
        assert report.renamed == tuple((f"module.{name}", name) for name in theirs)
        assert str(report) == "7 tensors loaded, 7 renamed"
        assert_equal(ours.state_dict(), theirs)

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
    def test_names_of_wrappers_are_told(self, prefix):
        given = {prefix + name: tensor for name, tensor in model(1).state_dict().items()}
        with pytest.raises(MgcompileError, match=f"all names begin with '{prefix.split('.')[0]}.'.*rename="):
            load_weights(model(0), given)
        with pytest.raises(MgcompileError) as caught:
            load_weights(model(0), given | {"other": torch.ones(1)})
        assert "all names" not in str(caught.value)
        assert unwrapped(f"{prefix}norm.weight") == "norm.weight"

    def test_two_tensors_of_one_name(self):
        given = model(1).state_dict()
        given["module.norm.weight"] = given["norm.weight"]
        with pytest.raises(MgcompileError, match=r"norm.weight and module.norm.weight would both be loaded as"):
            load_weights(model(0), given, rename=unwrapped)

    def test_wrapped_models(self, tmp_path):
        ours = model(1)
        save(nn.DataParallel(ours), tmp_path / "x.safetensors")
        assert set(read_checkpoint(tmp_path / "x.safetensors")[1]) == set(ours.state_dict())
        load_weights(nn.DataParallel(model(0)), ours.state_dict())

    def test_many_differences_are_not_all_listed(self):
        given = model(1).state_dict() | {f"old{number}": torch.ones(1) for number in range(5000)}
        with pytest.raises(MgcompileError, match="and 4,980 more") as caught:
            load_weights(model(0), given)
        assert len(str(caught.value)) < 2000


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TYPES = (
    *FLOATS,
    torch.bool,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)


class TestTypes:
    """Floats of 16 bits and more become one another; every other type is the model's own, or it is refused."""

    @pytest.mark.parametrize("name", ["norm.weight", "norm.running_var", "norm.num_batches_tracked"])
    @pytest.mark.parametrize("dtype", TYPES, ids=str)
    def test_what_becomes_what(self, name, dtype):
        ours = model(0)
        before = ours.state_dict()[name].clone()
        given = model(1).state_dict()
        given[name] = torch.ones(before.shape).to(dtype)
        if dtype in FLOATS if before.is_floating_point() else dtype == torch.int64:
            assert load_weights(ours, given).complete
            assert torch.equal(ours.state_dict()[name], torch.ones_like(before))
            return
        told = str(dtype).removeprefix("torch.")
        with pytest.raises(MgcompileError, match=f"retyped: {name} is {told}, the model has"):
            load_weights(ours, given)
        report = load_weights(ours, given, strict=False)
        assert report.retyped == ((name, told, str(before.dtype).removeprefix("torch.")),)
        assert name not in report.kept
        assert torch.equal(ours.state_dict()[name], before)
