"""Running a model that is optimised for inference with little Python between its operations.

The second call with images of one shape records what each operation runs on; the calls after it run that list. What a
module decides at each call is decided once: which packed weights serve, whether the layout is right. A plan is not used
where something has changed that it rests on: a tensor, a module, a hook, the mode, the number of threads.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter, getitem, is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn
from torch.nn.modules import module as hooks

from mgcompile.lowering.calls import compute_type
from mgcompile.lowering.functional import is_channels_last, is_recorded, max_pool_2x2
from mgcompile.lowering.fused import FusedConv2d
from mgcompile.lowering.kernels import InputCheck
from mgcompile.lowering.native.pool import bound_pool
from mgcompile.lowering.native.winograd import TYPES
from mgcompile.lowering.opaque import call_opaque
from mgcompile.lowering.packing import Source, hold

__all__ = ["planned"]

KEPT = 16
"""For how many kinds of images a model keeps plans."""

Forward = Callable[[Any, torch.Tensor], Any]

_making = threading.Lock()


def planned(forward: Forward) -> Forward:
    """A `forward` of one tensor that runs by plans where it can."""
    plans: WeakKeyDictionary[nn.Module, dict[Any, _Plan | None]] = WeakKeyDictionary()

    @functools.wraps(forward)
    def run(self: Any, x: torch.Tensor) -> Any:
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            # Before anything that torch.compile cannot follow.
            may = x.device.type == "cpu" and not self.training and _needs_no_gradient(self, x)
            outputs = call_opaque(self, x) if may else None
            return forward(self, x) if outputs is None else outputs
        if is_recorded() or type(x) is not torch.Tensor or not x.is_cpu or not _needs_no_gradient(self, x):
            return forward(self, x)
        own = plans.get(self)
        if own is None:
            own = plans.setdefault(self, {})
        key = (x.shape, x.stride(), x.dtype, compute_type(x.dtype), torch.get_num_threads())
        plan = own.get(key)
        if plan is None:
            if key not in own:  # once may be the only time
                own[key] = None
                return forward(self, x)
            plan = _made(self, x, own, key)
        elif not plan.holds():
            del own[key]
            return forward(self, x)
        return forward(self, x) if plan is None else plan.run(self, x)

    return run


def _needs_no_gradient(model: nn.Module, x: torch.Tensor) -> bool:
    return not torch.is_grad_enabled() or not (x.requires_grad or any(p.requires_grad for p in model.parameters()))


def _made(model: fx.GraphModule, x: torch.Tensor, own: dict[Any, _Plan | None], key: Any) -> _Plan | None:
    """A plan for images like x, kept under the key; None where there can be none now."""
    with _making:
        while len(own) > KEPT:
            own.pop(next(iter(own)), None)
        recorder = _Recorder(model)
        if not recorder.may_run():
            return None
        recorder.run(x)
        plan = own[key] = recorder.plan()
        return plan


class _Plan:
    """What to run, and what it rests on."""

    def __init__(self, run: Forward, places: list[tuple[dict[str, Any], str, Any]], sources: list[Source]) -> None:
        self.run = run
        self._dicts = [where for where, _, _ in places]
        self._names = [name for _, name, _ in places]
        self._modules = [module for _, _, module in places]
        self._hooks = [each for module in self._modules for each in _hooks_of(module)]
        self._sources = sources

    def holds(self) -> bool:
        """Whether all modules are where they were, none has got a hook or is in training, and no tensor has changed."""
        return (
            all(map(is_, map(getitem, self._dicts, self._names), self._modules))
            and not any(map(_is_training, self._modules))
            and not any(self._hooks)
            and not _has_global_hooks()
            and hold(self._sources)
        )


_is_training = attrgetter("training")


def _hooks_of(module: nn.Module) -> Iterator[Any]:
    yield module._forward_hooks
    yield module._forward_pre_hooks


def _has_global_hooks() -> bool:
    return bool(hooks._global_forward_hooks or hooks._global_forward_pre_hooks)


class _Recorder(fx.Interpreter):
    """Runs a model once and writes down what each of its nodes does, as another torch.fx graph."""

    def __init__(self, model: fx.GraphModule) -> None:
        super().__init__(model, garbage_collect_values=False)
        self._code = fx.Graph()
        self._new: dict[fx.Node, fx.Node] = {}
        self._sources: list[Source] = []
        self._places: dict[tuple[int, str], tuple[dict[str, Any], str, Any]] = {}
        for node in model.graph.nodes:
            if node.op in {"call_module", "get_attr"}:
                self._place(str(node.target))

    def _place(self, path: str) -> None:
        """Note the modules on the way to one; the last part may be a tensor, which is read at each call."""
        parent: Any = self.module
        for name in path.split("."):
            module = parent._modules.get(name)
            if module is None:
                return
            self._places[id(parent), name] = (parent._modules, name, module)
            parent = module

    def may_run(self) -> bool:
        """Whether a plan would hold now."""
        return _Plan(_nothing, list(self._places.values()), []).holds()

    def plan(self) -> _Plan:
        """What has been recorded."""
        run: Forward = type(fx.GraphModule(self.module, self._code)).forward
        return _Plan(run, list(self._places.values()), self._sources)

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and write what it did."""
        function = self.fetch_attr(str(n.target)) if n.op == "call_module" else n.target
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if isinstance(function, InputCheck):  # of the shape, which is part of the key
            self._new[n] = self._new[n.all_input_nodes[0]]
        elif (faster := self._faster(function, args, kwargs)) is not None:
            given = (n.args, tuple(n.kwargs.get("add", ()))) if isinstance(function, FusedConv2d) else n.args  # type: ignore[arg-type]
            self._new[n] = self._code.call_function(faster, fx.map_arg(given, self._new.__getitem__))
        else:
            self._new[n] = self._code.node_copy(n, self._new.__getitem__)
        return super().run_node(n)

    def _faster(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[..., Any] | None:
        """What does the same for such arguments, with nothing left to decide; None where there is no such thing.

        For a convolution, it is a function of the parts and the addends.
        """
        if function is max_pool_2x2:
            of = args[0]
            return bound_pool(tuple(of.shape), of.dtype) if of.dtype in TYPES and is_channels_last(of) else None
        packed = function.prepared(*args, **kwargs) if isinstance(function, FusedConv2d) else None
        if packed is None:
            return None
        self._sources += packed.sources
        dtype, grids = compute_type(args[0].dtype), (*args, *kwargs.get("add", ()))
        if packed.bound is not None and all(each.dtype is dtype and is_channels_last(each) for each in grids):
            return packed.bound
        return packed.run


def _nothing(*_: Any) -> None:
    pass
