"""The audit against others' counts: PyTorch's flop counter and fvcore, operation by operation, and the model's tensors.

PyTorch counts 2 flops for a multiply-accumulate; fvcore counts 1 and calls it a flop. Both count a module at each of
its calls, as the audit does.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from mgcompile.analysis.cost import Audit, Row
from mgcompile.errors import MgcompileError
from mgcompile.graph.graph import Graph
from mgcompile.graph.types import Shape, Size

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

__all__ = ["Difference", "Line", "Reason", "Reconciliation", "verify_audit"]

NODE = "mgcompile"
"""Where the meta data of a torch.fx node says which graph node it comes from: a mapping with `node`, or the name."""

MAC_OPERATORS = frozenset({"conv", "linear", "addmm", "mm", "bmm", "matmul", "einsum"})
"""What fvcore counts in multiply-accumulates. Its other operators are elementwise work, estimated."""


class Reason(StrEnum):
    """Why two counts differ."""

    CONVENTION = "convention"
    NOT_COUNTED = "not counted there"
    DIFFERENT = "DIFFERENT"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something on which the audit and `tool` differ: a disagreement, or what follows from other definitions.

    `what` is a node, a tensor, or an operation summed over `nodes` nodes. `ours` and `theirs` are in the words of
    `unit`; `explanation` says why.
    """

    reason: Reason
    tool: str
    what: str
    nodes: int
    ours: str
    theirs: str
    unit: str
    explanation: str


@dataclass(frozen=True, slots=True)
class Line:
    """One node: our MACs, PyTorch's flops (2 for a MAC), fvcore's MACs (None where it was not run)."""

    node: str
    op: str
    macs: int
    torch_flops: int
    fvcore_macs: int | None

    @property
    def agrees(self) -> bool:
        """Whether all counts are the same."""
        return self.torch_flops == 2 * self.macs and self.fvcore_macs in (None, self.macs)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """All that was compared. `lines` are the nodes to which anyone ascribes MACs; `notes` say what was not compared."""

    name: str
    size: Size
    lines: tuple[Line, ...]
    params: int
    torch_params: int
    fvcore_total: int | None
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing disagrees beyond what the definitions explain."""
        return all(difference.reason is not Reason.DIFFERENT for difference in self.differences)

    @property
    def macs(self) -> int:
        """Our multiply-accumulates."""
        return sum(line.macs for line in self.lines)

    @property
    def torch_flops(self) -> int:
        """The flops that PyTorch counts."""
        return sum(line.torch_flops for line in self.lines)

    @property
    def fvcore_macs(self) -> int | None:
        """The multiply-accumulates among what fvcore counts; None where it was not run."""
        counts = [line.fvcore_macs for line in self.lines if line.fvcore_macs is not None]
        return None if self.fvcore_total is None else sum(counts)


def verify_audit(audit: Audit, graph: Graph, model: fx.GraphModule, size: Size | None = None) -> Reconciliation:
    """Compare `audit` with what PyTorch and fvcore say of `model`, which was lowered from `graph`.

    `size` (height, width) is that of the audit. A torch.fx node names its graph node under `meta["mgcompile"]["node"]`;
    a graph node without work may have none. The model itself is neither run nor changed: a copy runs on the meta
    device and, as fvcore's tracing needs memory behind the tensors, another on the CPU. Raises `MgcompileError` where
    `size` is another.
    """
    if size not in (None, audit.size):
        raise MgcompileError(f"the audit is of an input of {audit.size}, not of {size}")
    shadow = copy.deepcopy(model).to("meta").eval()
    shape = (1, *graph.types[graph.input.name].at(audit.size))
    torch_flops, shapes = _run_on_meta(shadow, shape)
    fvcore, note = _run_fvcore(shadow, shape)
    lines = tuple(_lines(audit, torch_flops, fvcore))
    differences = [
        *_count_differences(lines),
        *_shape_differences(audit, shapes),
        *_tensor_differences(graph, model),
        *_elementwise(audit),
        *_fvcore_conventions(fvcore),
    ]
    return Reconciliation(
        name=audit.name,
        size=audit.size,
        lines=lines,
        params=audit.params,
        torch_params=sum(parameter.numel() for parameter in model.parameters()),
        fvcore_total=None if fvcore is None else sum(sum(counts.values()) for counts in fvcore.values()),
        differences=tuple(differences),
        notes=(note,) if note else (),
    )


def _run_on_meta(model: fx.GraphModule, shape: Shape) -> tuple[Counter[str], dict[str, Shape]]:
    """The flops of every graph node by PyTorch's counter, and the shape that comes out of it (without the batch)."""
    import torch
    from torch import fx
    from torch.utils.flop_counter import FlopCounterMode

    flops: Counter[str] = Counter()
    shapes: dict[str, Shape] = {}
    counter = FlopCounterMode(display=False)

    class Interpreter(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            before = counter.get_total_flops()
            result = super().run_node(n)
            if name := _graph_node(n):
                flops[name] += counter.get_total_flops() - before
                if isinstance(result, torch.Tensor):
                    # Of several torch.fx nodes the last gives the graph node's output.
                    shapes[name] = tuple(result.shape[1:])
            return result

    with torch.no_grad(), counter:
        Interpreter(model).run(torch.empty(shape, device="meta"))
    return flops, shapes


def _run_fvcore(model: fx.GraphModule, shape: Shape) -> tuple[dict[str, Counter[str]] | None, str]:
    """fvcore's counts of every graph node by operator, and why there are none where there are none."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore uses torch.jit, which PyTorch deprecates, at its import already
        try:
            from fvcore.nn import FlopCountAnalysis
        except ImportError as error:
            return None, f"fvcore is not installed, so it was not compared ({error})"
        stepwise, names = _stepwise(model)
        for tensor in (*stepwise.parameters(), *stepwise.buffers()):
            tensor.data.zero_()
        analysis = FlopCountAnalysis(stepwise, (torch.zeros(shape),))
        # An operator belongs to each module that is being called: a shared module's to the step that calls it.
        analysis.ancestor_mode("caller").tracer_warnings("none")
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        try:
            with torch.no_grad():
                by_module: Mapping[str, Counter[str]] = analysis.by_module_and_operator()
        except Exception as error:  # torch.jit cannot trace all that torch.fx can, and fails in many ways
            return None, f"fvcore cannot trace this model, so it was not compared ({error})"
    counts: dict[str, Counter[str]] = {}
    for module, name in names.items():
        counts.setdefault(name, Counter()).update({op: int(n) for op, n in by_module[module].items() if n})
    return counts, ""


def _stepwise(model: fx.GraphModule) -> tuple[nn.Module, dict[str, str]]:
    """The model on the CPU with every call inside a module of its own, and the graph node of each of these modules.

    fvcore ascribes what it counts to modules, and the calls of a shared module to one of its names: without this,
    functions would have no place and the calls of a shared module would be one sum.
    """
    from torch import Tensor, nn
    from torch.utils import _pytree as pytree

    class Step(nn.Module):
        def __init__(self, run: Any) -> None:
            super().__init__()
            self.run = run

        def forward(self, *args: Tensor, **options: Any) -> Any:
            return self.run(*args, **options)

    class Outputs(nn.Module):
        def forward(self, outputs: Any) -> tuple[Tensor, ...]:
            leaves: list[Tensor] = []
            pytree.tree_map_only(Tensor, leaves.append, outputs)
            return tuple(leaves)

    names: dict[str, str] = {}
    copied = copy.deepcopy(model).to_empty(device="cpu")
    for number, node in enumerate(list(copied.graph.nodes)):
        if node.op in ("call_function", "call_module", "call_method"):
            run = copied.get_submodule(node.target) if node.op == "call_module" else _function(node)
            step = f"step{number}"
            copied.add_submodule(step, Step(run))
            node.op, node.target = "call_module", step
            names[step] = _graph_node(node)
    # Tracing leaves out what no output needs; the audit and PyTorch count it.
    *calls, output = copied.graph.nodes
    output.args = ((output.args, *(node for node in calls if node.op == "call_module" and not node.users)),)
    copied.recompile()
    return nn.Sequential(copied, Outputs()), {f"0.{step}": name for step, name in names.items()}


def _function(node: fx.Node) -> Any:
    if node.op == "call_function":
        return node.target
    method = str(node.target)
    return lambda first, *args, **options: getattr(first, method)(*args, **options)


def _graph_node(node: fx.Node) -> str:
    """The graph node that a torch.fx node stands for; its own name in brackets where it stands for none."""
    if node.op == "output":
        return ""
    origin = node.meta.get(NODE)
    return str(origin["node"] if isinstance(origin, Mapping) else origin or f"({node.name})")


def _lines(audit: Audit, torch_flops: Counter[str], fvcore: dict[str, Counter[str]] | None) -> Iterator[Line]:
    rows = {row.node: row for row in audit.rows}
    for node in dict.fromkeys([*rows, *torch_flops, *(fvcore or {})]):
        row = rows.get(node)
        macs = None if fvcore is None else _macs(fvcore.get(node, Counter()))
        line = Line(node, row.op if row else "", row.macs if row else 0, torch_flops[node], macs)
        if line.macs or line.torch_flops or line.fvcore_macs:
            yield line


def _macs(counts: Counter[str]) -> int:
    return sum(count for operator, count in counts.items() if operator in MAC_OPERATORS)


def _count_differences(lines: tuple[Line, ...]) -> Iterator[Difference]:
    for line in lines:
        for tool, theirs, ours, unit in (
            ("PyTorch", line.torch_flops, 2 * line.macs, "flops of multiply-accumulates"),
            ("fvcore", line.fvcore_macs, line.macs, "MACs"),
        ):
            if theirs not in (None, ours):
                yield _different(tool, line.node, f"{ours:,}", f"{theirs:,}", unit)


def _shape_differences(audit: Audit, shapes: Mapping[str, Shape]) -> Iterator[Difference]:
    for row in audit.rows:
        shape = shapes.get(row.node)
        if shape is None and (row.macs or row.params):
            yield _different("PyTorch", row.node, "a node", "no call", "nodes")
        elif shape not in (None, row.output):
            yield _different("PyTorch", row.node, str(row.output), str(shape), "output shape")


def _tensor_differences(graph: Graph, model: nn.Module) -> Iterator[Difference]:
    parameters: dict[str, Shape] = {}
    buffers: dict[str, Shape] = {}
    for node in graph:
        values = graph.input_types(node)
        parameters |= {f"{node.weights}.{name}": shape for name, shape in node.op.weights(*values).items()}
        buffers |= {f"{node.weights}.{name}": shape for name, shape in node.op.buffers(*values).items()}
    # Learned tensors and buffers that are saved: what else a module keeps for itself is its own affair.
    learned = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    saved = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in learned}
    for unit, ours, theirs in (("parameter", parameters, learned), ("buffer", buffers, saved)):
        for name in dict.fromkeys([*ours, *theirs]):
            if ours.get(name) != theirs.get(name):
                yield _different("PyTorch", name, _absent(ours.get(name)), _absent(theirs.get(name)), f"{unit} shape")


def _absent(shape: Shape | None) -> str:
    return "absent" if shape is None else str(shape)


def _elementwise(audit: Audit) -> Iterator[Difference]:
    members: dict[str, list[Row]] = {}
    for row in audit.rows:
        if row.flops != 2 * row.macs:
            members.setdefault(row.op, []).append(row)
    for op, rows in members.items():
        work = sum(row.flops - 2 * row.macs for row in rows)
        yield Difference(
            Reason.NOT_COUNTED,
            *("PyTorch", op, len(rows), f"{work:,}", "0", "elementwise operations"),
            "PyTorch's counter knows convolutions and matrix products alone; our FLOPs include this, our MACs do not",
        )


def _fvcore_conventions(fvcore: dict[str, Counter[str]] | None) -> Iterator[Difference]:
    totals: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for counts in (fvcore or {}).values():
        elementwise = {operator: count for operator, count in counts.items() if operator not in MAC_OPERATORS}
        totals.update(elementwise)
        nodes.update(elementwise.keys())
    for operator, count in totals.items():
        yield Difference(
            Reason.CONVENTION,
            *("fvcore", operator, nodes[operator], "0", f"{count:,}", "MACs"),
            "fvcore adds its estimate of this elementwise work to a total that otherwise counts MACs; ours does not",
        )


def _different(tool: str, what: str, ours: str, theirs: str, unit: str) -> Difference:
    return Difference(Reason.DIFFERENT, tool, what, 1, ours, theirs, unit, "one of the two is wrong")
