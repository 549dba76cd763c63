"""Weights in files, and back."""

import json
import os
import re
import resource
import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import torch
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import mgcompile
from mgcompile.cli import main
from mgcompile.errors import InputError, MgcompileError
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


def written(path, header, data=b"", *, length=None):
    """A file with this header, as JSON or as it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
DAMAGED = {
    "overlapping tensors": ({"a": ONE, "b": ONE}, "invalid offset"),
    "a name twice": (b'{"a": %b, "a": %b}' % ((json.dumps(ONE).encode(),) * 2), "'a' is in its header twice"),
    "no JSON": (b"{", "no safetensors file"),
    "no object": (b"[]", "no safetensors file"),
    "no UTF-8": (b'{"\xff": 1}', "UTF-8"),
    "deep": (b'{"a":' * 5000, "recursion limit"),
    "numbers that are none": ({"a": ONE | {"shape": [float("nan")]}}, "no safetensors file"),
    "too large a shape": ({"a": ONE | {"shape": [2**63, 2**63]}}, "overflow"),
    "an unknown type": ({"a": ONE | {"dtype": "F128"}}, "unknown variant"),
    "values that are not there": ({"a": ONE | {"shape": [2**40], "data_offsets": [0, 2**42]}}, "incomplete|not fully"),
    "a spec that is no text": ({"__metadata__": {"mgcompile.spec": 5}, "a": ONE}, "invalid type"),
    "data that are no JSON": ({"__metadata__": {"mgcompile.data": "["}, "a": ONE}, "Expecting value"),
}


class TestDamagedFiles:
    @pytest.mark.parametrize("kind", DAMAGED)
    def test_headers(self, tmp_path, kind):
        header, said = DAMAGED[kind]
        path = written(tmp_path / "x.safetensors", header, b"\0" * 4)
        for read in (read_checkpoint, mgcompile.load_model):
            with pytest.raises(MgcompileError, match=rf"cannot read .*x.safetensors: .*({said})"):
                read(path)

    def test_what_could_not_be_read_is_not_written(self, tmp_path):
        path = tmp_path / "x.safetensors"
        save(model(), path)
        before = path.read_bytes()
        with pytest.raises(MgcompileError, match=r"cannot write .*x.safetensors: .* bytes; at most 8,388,608 are read"):
            save(model(spec="x" * (8 << 20)), path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["x.safetensors"]

    def test_metadata_that_is_null(self, tmp_path):
        path = written(tmp_path / "x.safetensors", {"__metadata__": None, "a": ONE}, b"\0" * 4)
        assert read_checkpoint(path)[0] is None
        with pytest.raises(InputError, match="weights and no spec"):
            mgcompile.load_model(path)

    def test_names_stay_within_their_lines(self):
        model = mgcompile.compile({"input": {"size": 8}, "layers": [{"conv": {"channels": 2}}]}, device="cpu")
        names = ["a\nkept: everything\x1b[2J", "x" * 100_000]
        with pytest.raises(MgcompileError, match="unexpected") as caught:
            load_weights(model, model.state_dict() | dict.fromkeys(names, torch.zeros(1)))
        assert len(str(caught.value).splitlines()) == 3
        assert len(str(caught.value)) < 500
        assert "\x1b" not in str(caught.value)

    @pytest.mark.parametrize("rename", [lambda name: [name], lambda name: None, {"conv1.conv.level0.bias": 5}])
    def test_new_names_are_texts(self, rename):
        model = mgcompile.compile({"input": {"size": 8}, "layers": [{"conv": {"channels": 2}}]}, device="cpu")
        with pytest.raises(MgcompileError, match="expected a text"):
            load_weights(model, model.state_dict(), rename=rename)

    @pytest.mark.parametrize("length", [0, 3, 100_000_000, 2**63 - 1, 2**64 - 1])
    def test_lengths_that_are_not_so(self, tmp_path, length):
        path = written(tmp_path / "x.safetensors", {"a": ONE}, b"\0" * 4, length=length)
        with pytest.raises(InputError, match=r"cannot read .*x.safetensors: it is no safetensors file"):
            mgcompile.load_model(path)

    def test_a_header_that_is_too_long(self, tmp_path):
        path = tmp_path / "x.safetensors"
        with path.open("wb") as file:
            file.write(struct.pack("<Q", 10**8))
            file.truncate(10**8 + 8)
        with pytest.raises(InputError, match="its header has 100,000,000 bytes; at most 8,388,608 are read"):
            mgcompile.load_model(path)

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
    def test_what_is_no_file(self, tmp_path, make):
        path = tmp_path / "x.safetensors"
        make(path)
        with pytest.raises(
            InputError, match=r"cannot read .*x.safetensors: it is a (pipe or a device|directory); expected"
        ):
            mgcompile.load_model(path)

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_any_change_is_loaded_or_refused(self, tmp_path_factory, data):
        """Whatever bytes are put in place of others: a model, or an error of ours that names the file."""
        whole = small_checkpoint()
        at = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 300))
        changed = data.draw(
            st.binary(max_size=8) | st.sampled_from([b'"', b"9" * 30, b"-1", b"[]", b"\x00", b"F64", b"}"])
        )
        path = tmp_path_factory.getbasetemp() / "changed.safetensors"
        path.write_bytes(whole[:at] + changed + whole[at + data.draw(st.integers(0, 8)) :])
        said = []
        try:
            mgcompile.load_model(path)
        except InputError as error:
            said = str(error).splitlines()
        assert all("changed.safetensors" in line for line in said[:1])


@cache
def small_checkpoint():
    with TemporaryDirectory() as folder:
        save(mgcompile.compile(yaml.safe_load(TINY)), f"{folder}/x.safetensors")
        return Path(folder, "x.safetensors").read_bytes()


TINY = "{version: 1, input: {channels: 1, size: 4}, layers: [conv: {channels: 1}]}"
HUGE = "{input: {channels: 1000000, size: 8}, layers: [conv: {channels: 1000000}, conv: {channels: 1000000}]}"


@pytest.fixture
def little_memory():
    """No more than 4 GiB of addresses besides what is taken."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (4 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


class TestHugeNetworks:
    def test_a_small_file_of_a_huge_network(self, tmp_path):
        """Its spec alone would take terabytes: refused by the header, before anything is allocated."""
        path = tmp_path / "x.safetensors"
        save_file({"a": torch.ones(1)}, path, {"mgcompile.spec": HUGE})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(
            InputError, match=r"x.safetensors: its tensors do not fit its spec: 0 tensors loaded\nmissing"
        ):
            mgcompile.load_model(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000

    def test_what_does_not_fit_into_memory(self):
        with pytest.raises(MgcompileError, match=r"its weights need 72,000\.\d GB of memory, and there are \d+\.\d GB"):
            mgcompile.compile(yaml.safe_load(HUGE))

    @pytest.mark.usefixtures("little_memory")
    @pytest.mark.parametrize(
        "args",
        [
            ["compile", "huge.yaml", "-o", "x.safetensors"],
            ["bench", "wide.yaml", "--size", "40000", "--runs", "1"],
            ["tune", "wide.yaml", "--size", "40000"],
        ],
        ids=" ".join,
    )
    def test_commands(self, tmp_path, monkeypatch, args):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "huge.yaml").write_text(HUGE)
        (tmp_path / "wide.yaml").write_text("{input: {channels: 3, size: 8}, layers: [conv: {channels: 64}]}")
        result = CliRunner().invoke(main, args)
        assert isinstance(result.exception, SystemExit)
        assert result.exit_code == 1
        assert re.search(r"memory.* GB", result.stderr), result.stderr
        assert not (tmp_path / "x.safetensors").exists()


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

    def test_renamed_from_a_file(self, tmp_path):
        path, ours = tmp_path / "x.safetensors", mgcompile.compile(yaml.safe_load(TINY), seed=1)
        save_file(
            {f"module.{name}": tensor for name, tensor in ours.state_dict().items()}, path, {"mgcompile.spec": TINY}
        )
        with pytest.raises(InputError, match=r"do not fit its spec(.|\n)*all names begin with 'module.'.*rename="):
            mgcompile.load_model(path)
        assert_equal(mgcompile.load_model(path, rename=unwrapped).state_dict(), ours.state_dict())

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
