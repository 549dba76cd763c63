"""The building blocks of multigrid networks. A pyramid is a list of tensors, from fine to coarse."""

import torch
import torch.nn.functional as F
from torch import nn


class ConvBN(nn.Module):
    """Convolution with bias, batch norm and (unless relu=False) ReLU. Keeps the resolution."""

    def __init__(self, c_in, c_out, kernel=3, relu=True):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(c_out)
        self.relu = relu

    def forward(self, x):
        x = self.norm(self.conv(x))
        return F.relu(x) if self.relu else x


class UpConvBN(nn.Module):
    """2x2 stride-2 transposed convolution, cut to the height and width wanted; then batch norm and ReLU."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv = nn.ConvTranspose2d(c_in, c_out, 2, stride=2)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x, size):
        height, width = size
        return F.relu(self.norm(self.conv(x)[:, :, :height, :width]))


class ZeroPad(nn.Module):
    """Identity that appends zero channels."""

    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    def forward(self, x):
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))


def shortcut(c_in, c_out):
    """Identity; with zeros appended where channels grow; a 1x1 conv-BN where they shrink."""
    if c_in == c_out:
        return nn.Identity()
    if c_in < c_out:
        return ZeroPad(c_out - c_in)
    return ConvBN(c_in, c_out, 1, relu=False)


class ResidualUnit(nn.Module):
    """The residual unit on a single grid."""

    def __init__(self, c_in, c_out, kernel=3, relu=True):
        super().__init__()
        self.conv1 = ConvBN(c_in, c_out, kernel)
        self.conv2 = ConvBN(c_out, c_out, kernel, relu=False)
        self.shortcut = shortcut(c_in, c_out)
        self.relu = relu

    def forward(self, x):
        y = self.conv2(self.conv1(x))
        y = y + self.shortcut(x)
        return F.relu(y) if self.relu else y


def max_pool(x):
    return F.max_pool2d(x, 2, ceil_mode=True)


def upsample(x, size):
    """Every cell becomes 2x2 cells; the result is cut to the height and width wanted."""
    height, width = size
    return F.interpolate(x, scale_factor=2, mode="nearest")[:, :, :height, :width]


def exchange(levels):
    """Each level concatenates the finer neighbour (pooled), itself, and the coarser neighbour (upsampled)."""
    received = []
    for i, own in enumerate(levels):
        parts = []
        if i > 0:
            parts.append(max_pool(levels[i - 1]))
        parts.append(own)
        if i + 1 < len(levels):
            parts.append(upsample(levels[i + 1], own.shape[-2:]))
        received.append(torch.cat(parts, dim=1))
    return received


class MgConv(nn.Module):
    """Exchange, then a convolution at each level."""

    def __init__(self, c_in, c_out, kernels, relu=True):
        super().__init__()
        assert len(c_in) == len(c_out) == len(kernels)
        self.convs = nn.ModuleList()
        for i in range(len(c_in)):
            seen = sum(c_in[max(i - 1, 0) : i + 2])  # the level and its neighbours
            self.convs.append(ConvBN(seen, c_out[i], kernels[i], relu))

    def forward(self, levels):
        return [conv(x) for conv, x in zip(self.convs, exchange(levels), strict=True)]


class ResidualMgUnit(nn.Module):
    """Two multigrid convolutions, and at each level a shortcut around them."""

    def __init__(self, c_in, c_out, kernels, relu=True):
        super().__init__()
        self.conv1 = MgConv(c_in, c_out, kernels)
        self.conv2 = MgConv(c_out, c_out, kernels, relu=False)
        self.shortcuts = nn.ModuleList(shortcut(a, b) for a, b in zip(c_in, c_out, strict=True))
        self.relu = relu

    def forward(self, levels):
        outputs = self.conv2(self.conv1(levels))
        around = [side(x) for side, x in zip(self.shortcuts, levels, strict=True)]
        outputs = [y + x for y, x in zip(outputs, around, strict=True)]
        return [F.relu(y) for y in outputs] if self.relu else outputs


class ImagePyramid(nn.Module):
    """Level i is the image averaged over 2^i x 2^i pixels (at the border, over the pixels that exist)."""

    def __init__(self, depth):
        super().__init__()
        self.depth = depth

    def forward(self, image):
        coarser = [F.avg_pool2d(image, 2**i, ceil_mode=True) for i in range(1, self.depth)]
        return [image, *coarser]


class Embedding(nn.Module):
    """Image pyramid and a 3x3 convolution at each level, without exchange."""

    def __init__(self, c_in, widths):
        super().__init__()
        self.pyramid = ImagePyramid(len(widths))
        self.convs = nn.ModuleList(ConvBN(c_in, width) for width in widths)

    def forward(self, image):
        return [conv(x) for conv, x in zip(self.convs, self.pyramid(image), strict=True)]


class Stem(nn.Module):
    """Image pyramid; at each level a 7x7 stride-2 convolution, batch norm, ReLU, 3x3 stride-2 max-pool."""

    def __init__(self, widths):
        super().__init__()
        self.pyramid = ImagePyramid(len(widths))
        self.convs = nn.ModuleList(nn.Conv2d(3, width, 7, stride=2, padding=3) for width in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)

    def forward(self, image):
        outputs = []
        for conv, norm, x in zip(self.convs, self.norms, self.pyramid(image), strict=True):
            y = F.relu(norm(conv(x)))
            outputs.append(F.max_pool2d(y, 3, stride=2, padding=1))
        return outputs


class PyramidPool(nn.Module):
    """2x2 max-pool of every level."""

    def forward(self, levels):
        return [max_pool(x) for x in levels]


class PyramidPoolMerge(nn.Module):
    """2x2 max-pool of every level but the coarsest, which joins the level pooled to its resolution."""

    def forward(self, levels):
        pooled = [max_pool(x) for x in levels[:-1]]
        pooled[-1] = torch.cat([pooled[-1], levels[-1]], dim=1)
        return pooled


class DropCoarsest(nn.Module):
    def forward(self, levels):
        return levels[:-1]


class TakeFinest(nn.Module):
    def forward(self, levels):
        return levels[0]


class TakeCoarsest(nn.Module):
    def forward(self, levels):
        return levels[-1]


def repeat(n, layer, c_in, c_out, kernel=3):
    """n layers (MgConv, ResidualMgUnit) at the widths c_out; kernel is one number, or one a level."""
    kernels = (kernel,) * len(c_out) if isinstance(kernel, int) else kernel
    layers = []
    for _ in range(n):
        layers.append(layer(c_in, c_out, kernels))
        c_in = c_out
    return nn.Sequential(*layers)


class Growth(nn.Module):
    """Progressive growth: n layers on the coarsest level, then n on the two coarsest, ... then n on all.

    steps[j] holds the widths of the j + 1 coarsest levels after step j. A level that is not yet active keeps its
    embedding of the image.
    """

    def __init__(self, layer, n, embedded, steps, kernel=3):
        super().__init__()
        self.steps = nn.ModuleList()
        active = ()
        for j, widths in enumerate(steps):
            active = (embedded[-1 - j], *active)
            self.steps.append(repeat(n, layer, active, widths, kernel))
            active = widths

    def forward(self, levels):
        waiting, active = list(levels), []
        for step in self.steps:
            active = step([waiting.pop(), *active])
        assert not waiting
        return active
