"""Running a model that is optimised for inference with little Python between its operations.

The second call with images of one shape records what each operation runs on; the calls after it run that list. What a
module decides at each call is decided once: which packed weights serve, whether the layout is right. A plan is not used
where something has changed that it rests on: a tensor, a module, an option, a hook, the mode, the number of threads. It
goes with the packed weights that it rests on.
"""

from __future__ import annotations

import functools
import linecache
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn

from mgcompile.lowering.calls import compute_type
from mgcompile.lowering.functional import is_channels_last, is_recorded, max_pool_2x2
from mgcompile.lowering.fused import FusedConv2d, fused_conv
from mgcompile.lowering.kernels import InputCheck
from mgcompile.lowering.native.pool import bound_pool
from mgcompile.lowering.native.winograd import TYPES
from mgcompile.lowering.opaque import call_opaque
from mgcompile.lowering.packing import Packed
from mgcompile.lowering.watching import ModuleWatch, Watch, has_global_hooks, is_hooked

__all__ = ["planned"]

KEPT = 16
"""For how many kinds of images a model keeps plans."""

Forward = Callable[[Any, torch.Tensor], Any]

Plans = OrderedDict[Any, "_Plan | None"]
"""Plans by the kind of image; None after one call."""

_making = threading.Lock()


def planned(forward: Forward) -> Forward:
    """A `forward` of one tensor that runs by plans where it can."""
    plans: WeakKeyDictionary[nn.Module, Plans] = WeakKeyDictionary()

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
            own = plans.setdefault(self, OrderedDict())
        key = (x.shape, x.stride(), x.dtype, compute_type(x.dtype), torch.get_num_threads())
        plan = own.get(key)
        if plan is None:
            if key in own:
                return _recorded(self, x, own, key)
            _keep(own, key, None)  # once may be the only time
            return forward(self, x)
        current = plan.current()
        if current is not None:
            return current(self, x)
        own.pop(key, None)
        return forward(self, x)

    return run


def _needs_no_gradient(model: nn.Module, x: torch.Tensor) -> bool:
    return not torch.is_grad_enabled() or not (x.requires_grad or any(p.requires_grad for p in model.parameters()))


def _keep(own: Plans, key: Any, plan: _Plan | None) -> None:
    """Keep a plan, or that there was a call; other threads may do the same."""
    own[key] = plan
    own.move_to_end(key)
    while len(own) > KEPT:
        own.popitem(last=False)


def _recorded(model: fx.GraphModule, x: torch.Tensor, own: Plans, key: Any) -> Any:
    """The outputs for x; a plan for such images is kept under the key, if there can be one now."""
    with _making:
        recorder = _Recorder(model)
        outputs = recorder.run(x)
        if recorder.may_run():
            _keep(own, key, recorder.plan())
        return outputs


class _Basis:
    """What a plan rests on: modules in their places, and what was packed of some."""

    def __init__(self, places: Iterable[tuple[dict[str, Any], str, Any]], packed: Sequence[Used]) -> None:
        places = list(places)
        self._dicts = [where for where, _, _ in places]
        self._names = [name for _, name, _ in places]
        self._modules = [module for _, _, module in places]
        passed_over = [module for module in self._modules if isinstance(module, InputCheck)]
        self._hooks = [each for own in passed_over for each in (own._forward_hooks, own._forward_pre_hooks)]
        self._folded = ModuleWatch(
            [conv for conv, _ in packed], [each.norm for _, each in packed if each.norm is not None]
        )
        self._watch = Watch(place for _, each in packed for place in each.watch.places)

    def holds(self) -> bool:
        """Whether all modules are where and what they were, and no tensor has changed."""
        return (
            all(map(is_, map(_get, self._dicts, self._names), self._modules))
            and not any(self._hooks)
            and not has_global_hooks()
            and self._folded.holds()
            and self._watch.holds()
        )


class _Plan:
    """What to run while its basis holds."""

    def __init__(self, run: Forward, basis: _Basis, packed: Sequence[Used]) -> None:
        self._ready: tuple[Forward, _Basis] | None = (run, basis)
        self.weights = frozenset(weight for _, each in packed for weight in each.weights)
        self.used = 0
        self._stores = {id(conv.packed.store): conv.packed.store for conv, _ in packed}.values()
        for store in self._stores:
            store.plans.add(self)

    def current(self) -> Forward | None:
        """What to run; None where something has changed."""
        ready = self._ready
        if ready is None or not ready[1].holds():
            return None
        for store in self._stores:  # one, as the model was made
            store.now += 1
            self.used = store.now
        return ready[0]

    def drop(self) -> None:
        """Forget what to run: its weights are of no use any more, or there is no room for them."""
        self._ready, self.weights = None, frozenset()


_get = dict.get

Used = tuple[FusedConv2d, Packed]
"""A convolution, and what runs it."""


class _Recorder(fx.Interpreter):
    """Runs a model once and writes down what each of its nodes does, as another torch.fx graph."""

    def __init__(self, model: fx.GraphModule) -> None:
        super().__init__(model, garbage_collect_values=False)
        self._code = fx.Graph()
        self._new: dict[fx.Node, fx.Node] = {}
        self._packed: list[Used] = []
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
        return _Basis(self._places.values(), []).holds()

    def plan(self) -> _Plan:
        """What has been recorded."""
        for node in self._code.find_nodes(op="get_attr"):
            if not node.users:
                self._code.erase_node(node)
        return _Plan(_function(self.module, self._code), _Basis(self._places.values(), self._packed), self._packed)

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and write what it did."""
        function = self.fetch_attr(str(n.target)) if n.op == "call_module" else n.target
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if isinstance(function, InputCheck):  # of the shape, which is part of the key
            self._new[n] = self._new[n.all_input_nodes[0]]
        elif (faster := self._faster(function, args, kwargs)) is not None:
            given = (n.args[1:], tuple(n.kwargs.get("add", ()))) if function is fused_conv else n.args  # type: ignore[arg-type]
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
        if function is not fused_conv:
            return None
        conv, *parts = args
        if type(conv) is not FusedConv2d or is_hooked(conv):
            return None
        packed = conv.prepared(*parts, **kwargs)
        if packed is None:
            return None
        self._packed.append((conv, packed))
        dtype, grids = compute_type(parts[0].dtype), (*parts, *kwargs.get("add", ()))
        if packed.bound is not None and all(each.dtype is dtype and is_channels_last(each) for each in grids):
            return packed.bound
        return packed.run


def _function(model: nn.Module, code: fx.Graph) -> Forward:
    """The function of a graph. torch.fx keeps the text of every one for good: that of a plan is taken from it."""
    function: Forward = type(fx.GraphModule(model, code)).forward
    name = function.__code__.co_filename
    fx.graph_module._loader.eval_cache.pop(name, None)
    linecache.cache.pop(name, None)
    return function
