"""The modules and functions that PyTorch lacks, against plain formulas."""

import pytest
import torch
from torch.nn import functional as F

from mgcompile.graph.ops import Conv
from mgcompile.lowering import kernels

SIZES = [(1, 1), (2, 3), (5, 4), (8, 8), (9, 13)]


def ramp(*shape):
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape).sin()


def made(op, channels):
    padding = (op.pads(0), op.pads(1))
    module = kernels.conv(
        channels,
        op.channels,
        op.kernel,
        stride=op.stride,
        padding=padding,
        whole_windows=op.fills_last_window,
        dilation=op.dilation,
        groups=op.groups,
        bias=op.bias,
    )
    return module.double()


class TestConv:
    @pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3), (2, 3), (4, 2), (5, 1)])
    @pytest.mark.parametrize("stride", [1, 2, 4])
    @pytest.mark.parametrize("dilation", [1, 2, 3])
    @pytest.mark.parametrize("size", SIZES)
    def test_padded_far_enough_and_cut(self, kernel, stride, dilation, size):
        op = Conv(4, kernel, stride, dilation, groups=2)
        module = made(op, 6)
        x = ramp(2, 6, *size)
        (top, _), (left, _) = op.pads(0), op.pads(1)
        wide = F.pad(x, (left, 20, top, 20))
        whole = F.conv2d(wide, module.weight, module.bias, stride, dilation=dilation, groups=2)
        height, width = -(-size[0] // stride), -(-size[1] // stride)
        torch.testing.assert_close(module(x), whole[:, :, :height, :width])

    @pytest.mark.parametrize("padding", [0, 1, 3])
    def test_explicit_padding_is_a_plain_module(self, padding):
        module = made(Conv(4, (2, 3), padding=padding), 3)
        assert type(module) is torch.nn.Conv2d
        assert module.padding == (padding, padding)

    def test_odd_kernels_are_plain_modules(self):
        assert type(made(Conv(4, (3, 5), 2, 2), 3)) is torch.nn.Conv2d


class TestTransposedConv:
    @pytest.mark.parametrize(("kernel", "stride"), [((2, 2), 2), ((3, 3), 2), ((4, 4), 2), ((5, 2), 2), ((7, 4), 4)])
    @pytest.mark.parametrize("size", [(9, 13), (10, 16), (7, 12)])
    def test_is_the_full_one_cut(self, kernel, stride, size):
        module = kernels.TransposedConv(4, 6, kernel, stride=stride, groups=2).double()
        coarse = ramp(2, 4, *(-(-side // stride) for side in size))
        full = F.pad(F.conv_transpose2d(coarse, module.weight, module.bias, stride, groups=2), (0, 9, 0, 9), value=7.0)
        top, left = (-(-(side - stride) // 2) for side in kernel)
        # Where the kernel is one larger than the stride, the last row holds the bias alone and one cell of padding.
        found = module(coarse, torch.empty(1, 1, *size))
        expected = full[:, :, top : top + size[0], left : left + size[1]]
        bias = module.bias[None, :, None, None].expand_as(found)
        torch.testing.assert_close(found, torch.where(expected == 7.0, bias, expected))

    def test_is_the_adjoint_of_the_convolution(self):
        up, down = kernels.TransposedConv(2, 3, (4, 4), stride=2, bias=False), Conv(2, (4, 4), 2, bias=False)
        conv = made(down, 3)
        with torch.no_grad():
            conv.weight.copy_(up.weight)
        fine, coarse = ramp(1, 3, 8, 6), ramp(1, 2, 4, 3)
        torch.testing.assert_close((conv(fine) * coarse).sum(), (up.double()(coarse, fine) * fine).sum())

    @pytest.mark.parametrize("module", [
        kernels.TransposedConv(4, 6, (4, 3), stride=2, groups=2, bias=False),
        kernels.TransposedConv(4, 6, (4, 4), stride=4),
    ])  # fmt: skip
    def test_repr_is_its_constructor(self, module):
        assert repr(eval(repr(module), vars(kernels))) == repr(module)


def repeated(x, factor):
    return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


class TestUpsampling:
    @pytest.mark.parametrize("factor", [2, 4, 8])
    @pytest.mark.parametrize("size", [*SIZES, (33, 47)])
    def test_nearest_repeats_and_cuts(self, factor, size):
        x = ramp(2, 3, *(-(-side // factor) for side in size)).requires_grad_()
        found = kernels.upsample_nearest(x, torch.empty(1, 1, *size), factor)
        expected = repeated(x, factor)[:, :, : size[0], : size[1]]
        assert torch.equal(found, expected)
        given = ramp(*found.shape)
        ours, theirs = (torch.autograd.grad(y, x, given)[0] for y in (found, expected))
        torch.testing.assert_close(ours, theirs)

    def test_nearest_does_not_round_on_huge_grids(self):
        x = torch.arange(5000.0)[None, None, None]
        expected = x.repeat_interleave(2)[:9999]
        found = kernels.upsample_nearest(x, torch.empty(1, 1, 1, 9999), 2)
        assert torch.equal(found.flatten(), expected)
        assert not torch.equal(F.interpolate(x, size=(1, 9999)).flatten(), expected)

    @pytest.mark.parametrize(
        ("level", "offset", "expected"),
        [
            (0, (0, 0), (9, 14)),
            (1, (0, 0), (5, 7)),
            (2, (-2, 3), (2, 5)),
            (-1, (0, 1), (18, 29)),
            (-2, (0, 0), (36, 56)),
        ],
    )
    def test_sizes_of_other_levels(self, level, offset, expected):
        like = torch.empty(1, 1, 9, 14)
        x = ramp(1, 2, *(-(-side // 2) for side in expected))
        assert kernels.target_size(like, level, offset) == expected
        found = kernels.upsample_nearest(x, like, 2, level=level, offset=offset)
        assert torch.equal(found, repeated(x, 2)[:, :, : expected[0], : expected[1]])
        assert kernels.upsample_bilinear(x, like, 2, level=level, offset=offset).shape[2:] == expected

    def test_bilinear_is_between_cell_centres(self):
        x = torch.tensor([[[[0.0, 4.0]]]])
        found = kernels.upsample_bilinear(x, torch.empty(1, 1, 2, 4), 2)
        assert torch.equal(found[0, 0], torch.tensor([[0.0, 1.0, 3.0, 4.0]]).expand(2, 4))


@pytest.mark.parametrize(
    ("have", "want", "first"),
    [((6, 6), (4, 2), (1, 2)), ((5, 6), (2, 6), (1, 0)), ((3, 3), (3, 3), (0, 0))],
)
def test_crop_takes_the_middle(have, want, first):
    x = ramp(1, 2, *have)
    found = kernels.crop(x, torch.empty(1, 1, *want))
    assert torch.equal(found, x[:, :, first[0] : first[0] + want[0], first[1] : first[1] + want[1]])


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 4)])
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm_is_over_channels(shape, affine):
    module = kernels.LayerNorm(4, 1e-3, affine).double()
    for tensor in module.parameters():
        torch.nn.init.normal_(tensor)
    x = ramp(*shape)
    spread = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-3).sqrt()
    if affine:
        at = (None, slice(None)) + (None,) * (len(shape) - 2)
        spread = spread * module.weight[at] + module.bias[at]
    torch.testing.assert_close(module(x), spread)


class TestGroupNorm:
    @pytest.mark.parametrize("groups", [1, 2, 4])
    def test_is_that_of_torch(self, groups):
        x = ramp(2, 4, 3, 5).float()
        torch.testing.assert_close(kernels.GroupNorm(groups, 4)(x), torch.nn.GroupNorm(groups, 4)(x))

    def test_takes_a_single_number(self):
        assert torch.equal(kernels.GroupNorm(4, 4)(torch.ones(1, 4, 1, 1)), torch.zeros(1, 4, 1, 1))


class TestDropSample:
    def test_whole_samples_and_the_mean_stays(self):
        module = kernels.DropSample(0.25)
        torch.manual_seed(0)
        found = module(torch.ones(4000, 2, 3, 3))
        kept = found[:, 0, 0, 0] > 0
        assert torch.equal(found, torch.where(kept, 1 / 0.75, 0.0)[:, None, None, None].expand_as(found))
        assert abs(kept.float().mean() - 0.75) < 0.03

    def test_vectors_and_all_dropped(self):
        assert torch.equal(kernels.DropSample(1.0)(torch.ones(3, 2)), torch.zeros(3, 2))

    def test_evaluation_passes_through(self):
        x = torch.ones(2, 2)
        assert kernels.DropSample(0.9).eval()(x) is x


@pytest.mark.parametrize(
    ("normalize", "scalars"),
    [("none", [1.0, -2.0, 3.0]), ("relu", [1 / 4.0001, 0.0, 3 / 4.0001]), ("softmax", None)],
)
def test_weighted_sum(normalize, scalars):
    module = kernels.WeightedSum(3, normalize).double()
    assert torch.equal(module.weight, torch.ones(3))
    with torch.no_grad():
        module.weight.copy_(torch.tensor([1.0, -2.0, 3.0]))
    exponentials = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64).exp()
    scalars = (exponentials / exponentials.sum()).tolist() if scalars is None else scalars
    inputs = [ramp(2, 3, 4, 4), ramp(2, 3, 4, 4) + 1, ramp(2, 3, 4, 4) ** 2]
    torch.testing.assert_close(module(*inputs), sum(s * x for s, x in zip(scalars, inputs, strict=True)))


class TestInputCheck:
    check = kernels.InputCheck(3, (4, 7))

    def test_passes_the_image_on(self):
        x = torch.zeros(1, 3, 4, 7)
        assert self.check(x) is x

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (torch.zeros(3, 4, 7), "found 3 dimensions"),
            (torch.zeros(1, 1, 4, 7), "expected an input of 3 channels, found 1"),
            (torch.zeros(1, 3, 4, 7, dtype=torch.uint8), r"found torch.uint8: convert it, say by x.float\(\)"),
            (torch.zeros(1, 3, 3, 7), r"at least 4x7 \(height x width\), found 3x7"),
            (torch.zeros(1, 3, 4, 6), r"at least 4x7 \(height x width\), found 4x6"),
        ],
    )
    def test_says_what_is_wrong(self, x, message):
        with pytest.raises(ValueError, match=message):
            self.check(x)


@pytest.mark.parametrize(
    "module",
    [
        kernels.PaddedConv2d(4, 6, (2, 3), stride=2, dilation=2, groups=2, bias=False, pads=((0, 1), (2, 2))),
        kernels.LayerNorm(4, 1e-3, False),
        kernels.GroupNorm(2, 4, eps=1e-3, affine=False),
        kernels.DropSample(0.5),
        kernels.WeightedSum(3, "softmax"),
        kernels.InputCheck(3, (4, 7)),
    ],
)
def test_reprs_are_constructors(module):
    assert repr(eval(repr(module), vars(kernels))) == repr(module)
