"""The few modules and functions that PyTorch lacks.

Exported source files hold copies of what is here, so nothing here needs more than torch and its neighbours in this
file. Grids are (batch, channels, height, width); sizes are in cells.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "DropSample",
    "GroupNorm",
    "InputCheck",
    "LayerNorm",
    "PaddedConv2d",
    "TransposedConv",
    "WeightedSum",
    "conv",
    "conv_pads",
    "crop",
    "target_size",
    "upsample_bilinear",
    "upsample_nearest",
    "window",
]


def conv(
    in_channels: int,
    channels: int,
    kernel: tuple[int, int],
    *,
    stride: int = 1,
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    whole_windows: bool = False,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """A convolution with ((top, bottom), (left, right)) zeros around the data.

    A plain `nn.Conv2d` where both sides are equal, else a `PaddedConv2d`. `whole_windows` adds zeros at the bottom and
    right so that the output has ceil(size / stride) cells at every size.
    """
    pads = conv_pads(kernel, padding, whole_windows=whole_windows, dilation=dilation)
    (top, bottom), (left, right) = pads
    if (top, left) == (bottom, right):
        return nn.Conv2d(in_channels, channels, kernel, stride, (top, left), dilation, groups, bias)
    return PaddedConv2d(
        in_channels, channels, kernel, stride=stride, dilation=dilation, groups=groups, bias=bias, pads=pads
    )


def conv_pads(
    kernel: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    *,
    whole_windows: bool,
    dilation: int,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The ((top, bottom), (left, right)) zeros that serve every size; see `conv`."""
    if not whole_windows:
        return padding
    (top, _), (left, _) = padding
    # A convolution drops a last window that is not whole, so that enough zeros for any size are right for each.
    return (top, dilation * (kernel[0] - 1) - top), (left, dilation * (kernel[1] - 1) - left)


class PaddedConv2d(nn.Conv2d):
    """`nn.Conv2d` after padding with `pads` = ((top, bottom), (left, right)) zeros, which need not be equal."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        pads: tuple[tuple[int, int], tuple[int, int]],
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)
        self.pads = pads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (top, bottom), (left, right) = self.pads
        return super().forward(F.pad(x, (left, right, top, bottom)))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pads={self.pads}"  # type: ignore[no-untyped-call]


class TransposedConv(nn.ConvTranspose2d):
    """Transposed convolution whose output is `stride` times finer, then cut to the size that `like` gives.

    (batch, in_channels, h, w), like -> (batch, channels, height, width); see `target_size` for `level` and `offset`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: tuple[int, int],
        *,
        stride: int,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        rest = [size - stride for size in kernel]
        padding = ((rest[0] + 1) // 2, (rest[1] + 1) // 2)
        output_padding = (rest[0] % 2, rest[1] % 2)
        super().__init__(in_channels, channels, kernel, stride, padding, output_padding, groups, bias)

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, like: torch.Tensor, level: int | None = None, offset: tuple[int, int] = (0, 0)
    ) -> torch.Tensor:
        height, width = target_size(like, level, offset)
        return window(super().forward(x), 0, 0, height, width)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, stride={self.stride[0]}"]
        parts += [f"groups={self.groups}"] * (self.groups > 1) + ["bias=False"] * (self.bias is None)
        return ", ".join(parts)


def target_size(like: torch.Tensor, level: int | None = None, offset: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """The height and width of `like`; where a level is given, those of that level, `like` being at level 0.

    They are ceil((size + offset) / 2**level), or size * 2**-level + offset for a negative level.
    """
    if level is None:
        return like.shape[2], like.shape[3]
    fine, coarse = 2 ** max(0, -level), 2 ** max(0, level)
    # A ceiling in the form that pooling and strided convolutions use: so torch.export finds the sizes equal.
    height = (like.shape[2] * fine + offset[0] - 1) // coarse + 1
    width = (like.shape[3] * fine + offset[1] - 1) // coarse + 1
    return height, width


def window(x: torch.Tensor, top: int, left: int, height: int, width: int) -> torch.Tensor:
    """The cells from (top, left) on: (n, c, h, w) -> (n, c, height, width)."""
    if torch.compiler.is_exporting():
        # The layout of a slice depends on whether it is the whole, which would bind an exported program to sizes that
        # agree with the example's in that. Taking rows and columns by number does not.
        rows = torch.arange(height, device=x.device) + top
        return x.index_select(2, rows).index_select(3, torch.arange(width, device=x.device) + left)
    return x[:, :, top : top + height, left : left + width]


def upsample_nearest(
    x: torch.Tensor, like: torch.Tensor, factor: int, level: int | None = None, offset: tuple[int, int] = (0, 0)
) -> torch.Tensor:
    """Repeats each cell factor x factor and cuts what reaches beyond `target_size`."""
    size = target_size(like, level, offset)
    # What is behind F.interpolate, which takes a size or a factor. By the size alone, cells would be spread over it:
    # wrong for factors above 2, and by rounding for very large grids; by the factor alone, one more copy would cut it.
    output: torch.Tensor = torch.ops.aten.upsample_nearest2d.default(x, size, float(factor), float(factor))
    return output


def upsample_bilinear(
    x: torch.Tensor, like: torch.Tensor, factor: int, level: int | None = None, offset: tuple[int, int] = (0, 0)
) -> torch.Tensor:
    """Interpolates between cell centres to exactly `target_size`, of which `factor` is no part."""
    return F.interpolate(x, size=target_size(like, level, offset), mode="bilinear", align_corners=False)


def crop(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The middle of x, as high and wide as `like`; where a row or column is left over, it is the last."""
    height, width = like.shape[2], like.shape[3]
    return window(x, (x.shape[2] - height) // 2, (x.shape[3] - width) // 2, height, width)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels at each cell: (n, c, h, w) -> the same; (n, c) -> the same."""

    def __init__(self, channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(channels, eps, affine)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 2:
            return super().forward(x)
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape[0]}, eps={self.eps}, affine={self.elementwise_affine}"


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` that also takes a group of a single number, which it makes zero before the scale and the shift."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class DropSample(nn.Module):
    """Stochastic depth: while training, zeroes whole samples with probability `p` and divides the others by 1 - p."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        return x * F.dropout(x.new_ones((x.shape[0],) + (1,) * (x.dim() - 1)), self.p)

    def extra_repr(self) -> str:
        return str(self.p)


class WeightedSum(nn.Module):
    """The sum of `count` tensors of one shape, each times a learned scalar; at first all scalars are one.

    `normalize` is none: w; relu: max(w, 0) / (sum of max(w, 0) + 1e-4); or softmax: exp(w) / sum of exp(w).
    """

    def __init__(self, count: int, normalize: str = "relu") -> None:
        super().__init__()
        self.normalize = normalize
        self.weight = nn.Parameter(torch.ones(count))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        weight: torch.Tensor = self.weight
        if self.normalize == "relu":
            weight = F.relu(weight)
            weight = weight / (weight.sum() + 1e-4)
        elif self.normalize == "softmax":
            weight = weight.softmax(0)
        total = weight[0] * inputs[0]
        for i, x in enumerate(inputs[1:], 1):
            total = total + weight[i] * x
        return total

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, {self.normalize!r}"


class InputCheck(nn.Module):
    """Passes on an image of `channels` channels that is at least `smallest` (height, width); else `ValueError`."""

    def __init__(self, channels: int, smallest: tuple[int, int]) -> None:
        super().__init__()
        self.channels = channels
        self.smallest = smallest

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(x.shape[0], torch.Tensor):  # torch.jit.trace: a comparison of sizes would warn
            return x
        if x.dim() != 4:
            raise ValueError(f"expected an input of (batch, channels, height, width), found {x.dim()} dimensions")
        if x.shape[1] != self.channels:
            raise ValueError(f"expected an input of {self.channels} channels, found {x.shape[1]}")
        if not x.is_floating_point():
            raise ValueError(f"expected a floating-point input, found {x.dtype}: convert it, say by x.float()")
        height, width = self.smallest
        if x.shape[2] < height or x.shape[3] < width:
            raise ValueError(
                f"expected an input of at least {height}x{width} (height x width), found {x.shape[2]}x{x.shape[3]}: "
                "a grid would vanish"
            )
        return x

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.smallest}"
