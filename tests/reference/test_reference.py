"""The reference networks have the recomputed parameter and multiply-accumulate counts, and take any input size."""

import csv
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .blocks import (
    ImagePyramid,
    PyramidPool,
    PyramidPoolMerge,
    ResidualMgUnit,
    ResidualUnit,
    UpConvBN,
    exchange,
    shortcut,
    upsample,
)
from .networks import INPUT_SHAPES, OUTPUT_CHANNELS, build, in_call_order

COUNTS = Path(__file__).parents[1] / "data" / "counts.csv"


def read_counts():
    with COUNTS.open() as file:
        lines = [line for line in file if not line.startswith("#")]
    return [(row["task"], row["model"], int(row["params"]), int(row["macs"])) for row in csv.DictReader(lines)]


ROWS = read_counts()
NAMES = [row[:2] for row in ROWS]
SIZES = [(1, 1), (1, 2), (3, 5), (7, 1), (45, 70)]
SMALL = [name for name in NAMES if name[0] == "mnist-seg"] + [("cifar100", "PMG-9")]


@cache
def on_meta(task, model):
    with torch.device("meta"):
        return build(task, model).eval()


def output_shape(task, batch, height, width):
    if task.startswith("mnist"):
        return (batch, OUTPUT_CHANNELS[task], height, width)
    return (batch, OUTPUT_CHANNELS[task])


def test_all_rows_are_there():
    assert len(ROWS) == len(set(NAMES)) == 40


@pytest.mark.parametrize(("task", "model", "params", "macs"), ROWS)
def test_counts(task, model, params, macs):
    net = on_meta(task, model)
    assert sum(p.numel() for p in net.parameters()) == params
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        out = net(torch.empty(1, *INPUT_SHAPES[task], device="meta"))
    assert counter.get_total_flops() == 2 * macs
    assert out.shape == output_shape(task, 1, *INPUT_SHAPES[task][1:])


@pytest.mark.parametrize(("task", "model"), NAMES)
def test_any_size(task, model):
    net = on_meta(task, model)
    with torch.no_grad():
        for height, width in SIZES:
            out = net(torch.empty(2, INPUT_SHAPES[task][0], height, width, device="meta"))
            assert out.shape == output_shape(task, 2, height, width)


@pytest.mark.parametrize(("task", "model"), NAMES)
def test_call_order_names_every_module_once(task, model):
    net = on_meta(task, model)
    called = in_call_order(net, torch.empty(1, *INPUT_SHAPES[task], device="meta"))
    holders = [m for m in net.modules() if list(m.parameters(recurse=False))]
    assert len(called) == len(set(called)) == len(holders)
    for before, after in pairwise(called):
        if isinstance(after, nn.BatchNorm2d):
            assert before.out_channels == after.num_features


@pytest.mark.parametrize(("task", "model"), SMALL)
@torch.no_grad()
def test_runs_on_numbers(task, model):
    net = build(task, model).eval()
    out = net(torch.rand(2, INPUT_SHAPES[task][0], 13, 6))
    assert out.isfinite().all()
    if task.startswith("mnist"):
        assert out.min() >= 0
        assert out.max() <= 1


def test_call_order_in_a_residual_unit():
    unit = ResidualMgUnit((5, 4), (3, 4), (3, 1))
    x = [torch.rand(2, 5, 4, 4), torch.rand(2, 4, 2, 2)]
    c1, c2, side = unit.conv1.convs, unit.conv2.convs, unit.shortcuts[0]
    expected = []
    for conv in (c1[0], c1[1], c2[0], c2[1], side):
        expected += [conv.conv, conv.norm]
    called = in_call_order(unit, x)
    assert all(a is b for a, b in zip(called, expected, strict=True))
    assert unit.training
    assert c1[0].norm.training
    assert c1[0].norm.num_batches_tracked == 0


# ------------------------------------------------------------------------------------------ blocks, by hand


def grid(*rows):
    return torch.tensor(rows, dtype=torch.float)[None, None]


def test_exchange():
    a = grid([1, 2, 3], [4, 5, 6], [7, 8, 9])
    b = grid([10, 20], [30, 40])
    c = grid([100])
    fine, middle, coarse = exchange([a, b, c])
    assert torch.equal(fine, torch.cat([a, grid([10, 10, 20], [10, 10, 20], [30, 30, 40])], dim=1))
    assert torch.equal(middle, torch.cat([grid([5, 6], [8, 9]), b, grid([100, 100], [100, 100])], dim=1))
    assert torch.equal(coarse, torch.cat([grid([40]), c], dim=1))
    assert torch.equal(exchange([a])[0], a)


def test_upsample_is_cut():
    assert torch.equal(upsample(grid([1, 2]), (1, 3)), grid([1, 1, 2]))


def test_image_pyramid_averages_the_pixels_that_exist():
    image = grid([1, 2, 3], [4, 5, 6], [7, 8, 9])
    zero, one, two, three = ImagePyramid(4)(image)
    assert torch.equal(zero, image)
    assert torch.equal(one, grid([3, 4.5], [7.5, 9]))
    assert torch.equal(two, grid([5]))
    assert torch.equal(three, grid([5]))


def test_image_pyramid_averages_directly():
    two = ImagePyramid(3)(grid([1, 2, 3, 4, 10]))[2]
    assert torch.equal(two, grid([2.5, 10]))
    three = ImagePyramid(4)(grid([1, 2, 3, 4, 10]))[3]
    assert torch.equal(three, grid([4]))  # not the mean of (2.5, 10)


def test_pools():
    a = grid([1, 2, 3], [4, 5, 6], [7, 8, 9])
    b = grid([10, 20], [30, 40])
    c = grid([100])
    pooled = PyramidPool()([a, b, c])
    assert [x.tolist() for x in pooled] == [grid([5, 6], [8, 9]).tolist(), grid([40]).tolist(), c.tolist()]
    fine, coarse = PyramidPoolMerge()([a, b, c])
    assert torch.equal(fine, grid([5, 6], [8, 9]))
    assert coarse.flatten().tolist() == [40, 100]


def test_shortcuts():
    x = torch.rand(2, 3, 4, 5)
    assert torch.equal(shortcut(3, 3)(x), x)
    assert torch.equal(shortcut(3, 5)(x), torch.cat([x, torch.zeros(2, 2, 4, 5)], dim=1))
    assert shortcut(3, 2)(x).shape == (2, 2, 4, 5)


@torch.no_grad()
def test_residual_unit_on_one_level_is_the_single_grid_unit():
    torch.manual_seed(0)
    single, multi = ResidualUnit(3, 5).eval(), ResidualMgUnit((3,), (5,), (3,)).eval()
    x = torch.randn(2, 3, 6, 7)
    for a, b in zip(in_call_order(single, x), in_call_order(multi, [x]), strict=True):
        b.load_state_dict(a.state_dict())
    assert torch.equal(single(x), multi([x])[0])


@torch.no_grad()
def test_transposed_convolution_is_cut_before_the_norm():
    up = UpConvBN(1, 2)
    out = up(torch.randn(2, 1, 2, 3), (3, 5))
    assert out.shape == (2, 2, 3, 5)
    raw = up.conv(torch.zeros(1, 1, 1, 1))
    assert torch.equal(raw[0, :, 0, 0], up.conv.bias)
