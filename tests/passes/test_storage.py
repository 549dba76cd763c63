"""Packed weights are bounded for a whole model, shared between sizes, given back, and safe with several threads."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import random
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import mgcompile
from mgcompile.lowering.fused import FusedConv2d
from mgcompile.lowering.storage import FLOOR_BYTES, Shelf, Store
from tests.passes.test_one_law import close, image, pair

ROOT = Path(__file__).parents[2]


def store_of(model: nn.Module) -> Store:
    (store,) = {module.packed.store for module in model.modules() if isinstance(module, FusedConv2d)}
    return store


@torch.no_grad()
def test_sizes_share_what_does_not_depend_on_them() -> None:
    plain, ours = pair("inference")
    store = store_of(ours)
    for side in range(6, 36, 3):
        for _ in range(3):
            x = image(1, 3, side, side + 1)
            close(ours(x), plain(x))
        if side == 18:
            before = store.bytes
    assert 0 < store.bytes <= 2 * before
    assert all(len(module.packed) <= 16 for module in ours.modules() if isinstance(module, FusedConv2d))


@torch.no_grad()
def test_there_is_a_limit_in_bytes_for_the_whole_model() -> None:
    plain, ours = pair("inference")
    store = store_of(ours)
    assert store.limit == FLOOR_BYTES + sum(4 * each.numel() for each in ours.parameters())
    ours(image(2, 3, 12, 8))
    need, seen = store.bytes, []
    store.limit = need
    chance = random.Random(0)
    for _ in range(20):
        x = image(1, 3, chance.randint(2, 9), chance.randint(2, 9))  # in many ways, dense ones too
        for _ in range(chance.randint(1, 4)):
            close(ours(x), plain(x))
        seen.append(store.bytes)
    assert max(seen) <= 1.5 * need  # an image may need more than the limit
    weights = [weakref.ref(weight) for weight in store.weights]
    plans = len(store.plans)
    assert plans
    ours.eval()
    assert store.bytes == 0
    assert not store.plans
    assert not any(weight() for weight in weights)  # nothing else held them


def test_copies_have_stores_of_their_own() -> None:
    _, ours = pair("inference")
    ours(image(2, 3, 12, 8))
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert store_of(twin) is not store_of(ours)
        assert store_of(twin).limit == store_of(ours).limit
        assert store_of(twin).bytes == 0
    watched = weakref.ref(store_of(ours))
    del ours
    gc.collect()
    assert watched() is None
    assert len(pickle.loads(pickle.dumps(Shelf()))) == 0


def test_a_model_that_is_gone_leaves_no_weights_until_the_next_collection() -> None:
    _, ours = pair("inference")
    for _ in range(3):
        ours(image(2, 3, 12, 8))
    conv = ours.get_submodule("b.conv")
    weights = [weakref.ref(weight) for packed in conv.packed.values() for weight in packed.weights]  # type: ignore[union-attr]
    assert weights
    del conv.packed  # as when it is freed: in no circle with what it holds
    ours.get_submodule("a.conv").packed.store.dropped(*[weight() for weight in weights])  # type: ignore[union-attr, arg-type]
    assert not any(weight() for weight in weights)


@torch.no_grad()
def test_threads_sizes_and_copies_at_once() -> None:
    plain, ours = pair("inference")
    store_of(ours).limit = 1  # everything is dropped as soon as may be
    failures: list[BaseException] = []
    stop = threading.Event()

    def call(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(25):
                side = chance.randint(4, 24)
                x = image(1, 3, side, side)
                close(ours(x), plain(x))
        except BaseException as error:
            failures.append(error)

    def others() -> None:
        try:
            while not stop.wait(0.01):
                copy.deepcopy(ours)
                mgcompile.refresh(ours)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(3)]
    other = threading.Thread(target=others)
    for thread in (*threads, other):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    other.join()
    assert not failures, failures[0]


@pytest.mark.slow
def test_memory_of_many_sizes() -> None:
    words = ["--models", "cifar100/mg-6", "--sizes", "150", "--threads", "1", "--json", "/dev/stdout"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/memory_of_sizes.py"), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    start = done.stdout.index("{")
    figures: Any = json.JSONDecoder().raw_decode(done.stdout[start:])[0]["MiB"]["cifar100/mg-6"]
    assert figures["inference"]["packed"] <= figures["inference"]["weights"] * 1.6 + FLOOR_BYTES / 2**20
    assert figures["inference"]["end"] <= 1.5 * figures["plain"]["end"]


@torch.no_grad()
def test_plans_leave_no_text_behind() -> None:
    _, ours = pair("inference")
    kept = torch.fx.graph_module._loader.eval_cache
    before = len(kept)
    for side in range(6, 12):
        for _ in range(3):
            ours(image(1, 3, side, side))
    assert len(kept) == before


def test_what_was_not_used_for_longest_goes_first() -> None:
    store = Store(100)
    shelves = [Shelf(store) for _ in range(3)]
    for size_of_image in range(2):
        for shelf in shelves:
            weight = shelf.weight(size_of_image, None, lambda: (object(), 20))
            shelf.put(size_of_image, SimpleNamespace(weights=(weight,)))  # type: ignore[arg-type]
    assert store.bytes == 100
    assert [shelf.get(0) is None for shelf in shelves] == [True, False, False]
    store.limit = 10
    for bytes_left in (100, 20):  # what others have used since its last call belongs to the image in hand
        shelves[0].put(1, shelves[0].values()[0])
        assert store.bytes == bytes_left
