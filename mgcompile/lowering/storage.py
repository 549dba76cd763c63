"""Where packed weights are kept: so many bytes for a whole model; those that were not used for longest go first.

What does not depend on the size of the image is kept once for all sizes: a weight is known by what it is made for and
by its layout in memory.
"""

from __future__ import annotations

import copy
import ctypes
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakSet, ref

import torch

from mgcompile.lowering.backends import Backend, Run, RunOnto

if TYPE_CHECKING:
    from mgcompile.lowering.packing import Packed

__all__ = ["FLOOR_BYTES", "Make", "Plan", "Sharing", "Shelf", "Store", "Weight"]

FLOOR_BYTES = 32 << 20
"""What any model may keep."""
KEPT = 16
"""For how many kinds of calls a convolution keeps what it runs."""
TRIALS = 3
"""Where a weight came out in one layout for so many sizes, it is taken for all others too."""
GAP = 27
"""A word between two fields of oneDNN's description of a layout: what stands there is left over from other work."""


Make = Callable[[], torch.Tensor]
"""A weight that is made when it is needed."""


class Plan(Protocol):
    """What rests on packed weights, and is of no use without them."""

    weights: frozenset[Weight]
    used: int

    def drop(self) -> None:
        """Forget what is to run."""


class Weight:
    """A packed weight of one convolution, or a function that holds it; `used` says when, in calls of the model's."""

    def __init__(self, value: Any, size: int, shelf: Shelf) -> None:
        self.value = value
        self.bytes = size
        self.used = shelf.store.now
        self.shelf = ref(shelf)


class Store:
    """The packed weights of a model: `limit` bytes, or what one image needs where that is more."""

    def __init__(self, limit: int = FLOOR_BYTES) -> None:
        self.limit = limit
        self.now = 0
        """How many calls of convolutions and of plans there were."""
        self.weights: WeakSet[Weight] = WeakSet()  # the shelves hold them
        self.plans: WeakSet[Plan] = WeakSet()
        self.lock = threading.RLock()
        self._churned = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.limit,)  # what is packed belongs to one model on one machine

    @property
    def bytes(self) -> int:
        """Of all that is kept."""
        with self.lock:
            return sum(weight.bytes for weight in self.weights)

    def packed(self, size: int) -> None:
        """Note that weights of so many bytes have been packed, which takes and frees as much again on the way."""
        self._churned += size
        if self._churned > FLOOR_BYTES // 2:
            self._churned = 0
            _give_back()

    def fit(self, since: int) -> None:
        """Drop what was not used for longest, and never what was used later than `since`, until the limit holds."""
        with self.lock:
            for plan in self.plans:
                for weight in plan.weights:
                    weight.used = max(weight.used, plan.used)
            total = self.bytes
            for weight in sorted(self.weights, key=lambda weight: weight.used):
                if total <= self.limit or weight.used > since:
                    break
                total -= weight.bytes
                self._churned += weight.bytes
                shelf = weight.shelf()
                if shelf is not None:
                    shelf.drop(weight)

    def dropped(self, *weights: Weight) -> None:
        """Drop the plans that rest on these."""
        with self.lock:
            for plan in [plan for plan in self.plans if not plan.weights.isdisjoint(weights)]:
                plan.drop()
                self.plans.discard(plan)


class Shelf:
    """What one convolution keeps: how it runs each kind of call, and the weights that this takes."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = Store() if store is None else store
        self.used = 0
        """When the convolution was last called, as the store counts."""
        self._calls: OrderedDict[Any, Packed] = OrderedDict()
        self._weights: dict[Any, dict[Any, Weight]] = {}  # by what they are for, and by their layouts
        self._trials: Counter[Any] = Counter()

    def __reduce__(self) -> tuple[Any, ...]:
        return Shelf, (self.store,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Shelf:
        return Shelf(copy.deepcopy(self.store, memo))

    def __len__(self) -> int:
        return len(self._calls)

    def get(self, key: Any) -> Packed | None:
        """What runs a kind of call; it is noted that it is called."""
        found = self._calls.get(key)
        if found is not None:
            self._touch(found.weights)
        return found

    def values(self) -> Sequence[Packed]:
        """What runs each kind of call."""
        with self.store.lock:
            return tuple(self._calls.values())

    def put(self, key: Any, packed: Packed) -> None:
        """Keep what runs a kind of call, and drop what there is no room for."""
        with self.store.lock:
            since = self.used
            self._calls[key] = packed
            while len(self._calls) > KEPT:
                self._calls.popitem(last=False)
            self._touch(packed.weights)
            self.store.fit(since)

    def weight(self, key: Any, layout: Any, make: Callable[[], tuple[Any, int]]) -> Weight:
        """The weight that is kept under a key in a layout; where there is none, one of the value and bytes made."""
        with self.store.lock:
            self._trials[key] += 1
            layouts = self._weights.setdefault(key, {})
            if layout not in layouts:
                layouts[layout] = Weight(*make(), self)
                self.store.weights.add(layouts[layout])
            return layouts[layout]

    def known(self, key: Any) -> Weight | None:
        """The weight that serves all sizes, as far as is known; None where there is none, or several."""
        with self.store.lock:
            layouts = self._weights.get(key, {})
            return next(iter(layouts.values())) if len(layouts) == 1 and self._trials[key] >= TRIALS else None

    def drop(self, weight: Weight) -> None:
        """Drop a weight, and all that runs on it."""
        with self.store.lock:
            for layouts in self._weights.values():
                for layout in [layout for layout, each in layouts.items() if each is weight]:
                    del layouts[layout]
            for key in [key for key, packed in self._calls.items() if weight in packed.weights]:
                del self._calls[key]
            self.store.weights.discard(weight)
            self.store.dropped(weight)

    def clear(self) -> None:
        """Drop everything."""
        with self.store.lock:
            gone = [each for layouts in self._weights.values() for each in layouts.values()]
            self._calls, self._weights = OrderedDict(), {}
            for weight in gone:
                self.store.weights.discard(weight)
            self.store.dropped(*gone)

    def _touch(self, weights: Sequence[Weight]) -> None:
        self.store.now += 1
        self.used = self.store.now
        for weight in weights:
            weight.used = self.used


_Held = TypeVar("_Held", bound=Callable[..., torch.Tensor])


class Sharing:
    """A back end that keeps its packed weights on a shelf, for all calls that take the same ones.

    `content` says all that the weights are made of and for. A weight is made when it is not kept, and only then.
    """

    def __init__(self, engine: Backend, shelf: Shelf, content: Any) -> None:
        self._engine = engine
        self._shelf = shelf
        self._content = (type(engine), content)
        self.weights: list[Weight] = []
        """Those that were asked for, in their order."""

    def conv(self, weight: Make, *args: Any, **options: Any) -> RunOnto:
        """See `Backend.conv`."""
        return self._held(self._engine.conv, weight, *args, **options)

    def transposed(self, weight: Make, *args: Any, **options: Any) -> Run:
        """See `Backend.transposed`."""
        return self._held(self._engine.transposed, weight, *args, **options)

    def linear(self, weight: Make, *args: Any, **options: Any) -> Run:
        """See `Backend.linear`."""
        return self._held(self._engine.linear, weight, *args, **options)

    def tensor(self, make: Make) -> torch.Tensor:
        """A weight as our own kernels read it; there is one layout."""
        found = self._shelf.weight(self._key, None, lambda: self._counted(make()))
        self.weights.append(found)
        tensor: torch.Tensor = found.value
        return tensor

    def _held(self, pack: Callable[..., _Held], weight: Make, *args: Any, **options: Any) -> _Held:
        """A function that holds such a weight in such a layout: the one that was there first."""
        found = self._shelf.known(self._key)
        if found is None:
            made = pack(weight(), *args, **options)
            packed: torch.Tensor = made.weight  # type: ignore[attr-defined]
            size = self._counted(packed)[1]
            found = self._shelf.weight(self._key, _layout(packed), lambda: (made, size))
        self.weights.append(found)
        held: _Held = found.value
        return held

    @property
    def _key(self) -> Any:
        return self._content, len(self.weights)

    def _counted(self, weight: torch.Tensor) -> tuple[torch.Tensor, int]:
        size = _bytes(weight)
        self._shelf.store.packed(size)
        return weight, size


@cache
def _trim() -> Callable[[int], int] | None:
    """glibc's function that gives free memory back to the system; None where there is none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def _give_back() -> None:
    """Give memory that is free back to the system: packing frees large pieces between others, which stay with us."""
    trim = _trim()
    if trim is not None:
        trim(0)


def _bytes(weight: torch.Tensor) -> int:
    return int(torch.ops.mkldnn._nbytes(weight)) if weight.is_mkldnn else weight.numel() * weight.element_size()


def _layout(weight: torch.Tensor) -> Any:
    """How a weight lies in memory. oneDNN chooses among some layouts by the size of the image."""
    if not weight.is_mkldnn:
        return weight.stride()
    words = torch.ops.mkldnn._get_mkldnn_serialized_md(weight).view(torch.int32).tolist()
    words[GAP] = 0
    return tuple(words)
