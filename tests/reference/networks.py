"""The networks of "Multigrid Neural Architectures" (Ke, Maire & Yu, 2017) and those they are compared with."""

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import (
    ConvBN,
    DropCoarsest,
    Embedding,
    Growth,
    MgConv,
    PyramidPool,
    PyramidPoolMerge,
    ResidualMgUnit,
    ResidualUnit,
    Stem,
    TakeCoarsest,
    TakeFinest,
    UpConvBN,
    max_pool,
    repeat,
)

INPUT_SHAPES = {
    "cifar100": (3, 32, 32),
    "imagenet": (3, 224, 224),
    "mnist-seg": (1, 64, 64),
    "mnist-spatial": (1, 64, 64),
}
OUTPUT_CHANNELS = {"cifar100": 100, "imagenet": 1000, "mnist-seg": 10, "mnist-spatial": 1}


def classifier(c_in, classes):
    """Average over whatever grid is left, then a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, classes))


def halve():
    return nn.MaxPool2d(2, ceil_mode=True)


# ---------------------------------------------------------------------------------------------------- CIFAR-100


def cifar_vgg(n):
    layers, c = [], 3
    for width in (64, 128, 256, 512, 512):
        for _ in range(n):
            layers.append(ConvBN(c, width))
            c = width
        layers.append(halve())
    return nn.Sequential(*layers, classifier(512, 100))


def cifar_res(n):
    layers, c = [ConvBN(3, 64)], 64
    for width in (64, 128, 256, 512, 512):
        for _ in range(n):
            layers.append(ResidualUnit(c, width))
            c = width
        layers.append(halve())
    return nn.Sequential(*layers, classifier(512, 100))


def cifar_blocks_2_to_5(layer, n):
    """From (64, 32, 16), just pooled, to the class scores."""
    return nn.Sequential(
        repeat(n, layer, (64, 32, 16), (128, 64, 32), (3, 3, 3)),
        PyramidPool(),
        repeat(n, layer, (128, 64, 32), (256, 128, 64), (3, 3, 3)),
        PyramidPool(),
        repeat(n, layer, (256, 128, 64), (512, 256, 128), (3, 3, 1)),
        PyramidPoolMerge(),
        repeat(n, layer, (512, 256 + 128), (512, 384), (3, 1)),
        PyramidPoolMerge(),
        TakeFinest(),
        classifier(512 + 384, 100),
    )


def cifar_mg(n):
    widths = (64, 32, 16)
    block1 = nn.Sequential(Embedding(3, widths), repeat(n - 1, MgConv, widths, widths))
    return nn.Sequential(block1, PyramidPool(), cifar_blocks_2_to_5(MgConv, n))


def cifar_r_mg(n):
    widths = (64, 32, 16)
    block1 = nn.Sequential(Embedding(3, widths), repeat(n, ResidualMgUnit, widths, widths))
    return nn.Sequential(block1, PyramidPool(), cifar_blocks_2_to_5(ResidualMgUnit, n))


def cifar_progressive(layer, n):
    widths = (64, 32, 16)
    growth = Growth(layer, n, widths, steps=[(16,), (32, 16), (64, 32, 16)])
    return nn.Sequential(Embedding(3, widths), growth, PyramidPool(), cifar_blocks_2_to_5(layer, n))


# ----------------------------------------------------------------------------------------------------- ImageNet


def vgg16():
    layers, c = [], 3
    for n, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(n):
            layers += [nn.Conv2d(c, width, 3, padding=1), nn.ReLU()]
            c = width
        layers.append(halve())
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(7),
        nn.Flatten(),
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 1000),
    )


def conv_without_bias(c_in, c_out, kernel, stride=1):
    return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)


def projection(c_in, c_out, stride):
    if stride == 1 and c_in == c_out:
        return nn.Identity()
    return nn.Sequential(conv_without_bias(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, c_in, width, stride):
        super().__init__()
        self.conv1 = conv_without_bias(c_in, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv_without_bias(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = projection(c_in, width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, c_in, width, stride):
        super().__init__()
        self.conv1 = conv_without_bias(c_in, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv_without_bias(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv_without_bias(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = projection(c_in, 4 * width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.shortcut(x))


def resnet(block, widths):
    """ResNet with 3, 4, 6, 3 blocks at these four widths. The stem has 64 channels, in the wide network too."""
    c = 64
    layers = [conv_without_bias(3, c, 7, stride=2), nn.BatchNorm2d(c), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    for stage, (n, width) in enumerate(zip((3, 4, 6, 3), widths, strict=True)):
        for i in range(n):
            stride = 2 if stage > 0 and i == 0 else 1
            layers.append(block(c, width, stride))
            c = block.expansion * width
    return nn.Sequential(*layers, classifier(c, 1000))


def r_mg_34():
    return nn.Sequential(
        Stem((64, 32, 16)),
        repeat(3, ResidualMgUnit, (64, 32, 16), (64, 32, 16)),
        PyramidPool(),
        repeat(4, ResidualMgUnit, (64, 32, 16), (128, 64, 32)),
        PyramidPoolMerge(),
        repeat(6, ResidualMgUnit, (128, 64 + 32), (256, 128)),
        PyramidPoolMerge(),
        repeat(3, ResidualMgUnit, (256 + 128,), (512,)),
        TakeFinest(),
        classifier(512, 1000),
    )


def r_pmg_30_seg():
    """With its classification head, which reads the coarsest level."""
    widths = (64, 32, 16, 8)
    steps = [(8,), (16, 16), (32, 32, 32), (64, 64, 64, 64)]
    return nn.Sequential(
        Stem(widths),
        Growth(ResidualMgUnit, 2, widths, steps),
        repeat(2, ResidualMgUnit, (64, 64, 64, 64), (64, 64, 64, 128)),
        repeat(2, ResidualMgUnit, (64, 64, 64, 128), (64, 64, 128, 256)),
        repeat(2, ResidualMgUnit, (64, 64, 128, 256), (64, 128, 256, 512)),
        TakeCoarsest(),
        classifier(512, 1000),
    )


# -------------------------------------------------------------------------------------------------------- MNIST


def sg_11(maps):
    layers = [ConvBN(1, 64)]
    layers += [ConvBN(64, 64) for _ in range(1 + 5)]
    return nn.Sequential(*layers, ConvBN(64, maps, relu=False), nn.Sigmoid())


def r_sg_20(maps):
    layers = [ConvBN(1, 64)]
    layers += [ResidualUnit(64, 64) for _ in range(1 + 5)]
    return nn.Sequential(*layers, ResidualUnit(64, maps, kernel=1, relu=False), nn.Sigmoid())


def mnist_progressive(layer, last):
    """PMG-11 and R-PMG-20 up to the sigmoid; last is the output layer, which maps one level to one level."""
    widths = (64, 32, 16, 8)
    return nn.Sequential(
        Embedding(1, widths),
        Growth(layer, 1, widths, steps=[(8,), (16, 8), (32, 16, 8), (64, 32, 16, 8)]),
        repeat(3, layer, widths, widths),
        DropCoarsest(),
        repeat(1, layer, (64, 32, 16), (64, 32, 16)),
        DropCoarsest(),
        repeat(1, layer, (64, 32), (64, 32)),
        DropCoarsest(),
        last,
        TakeFinest(),
        nn.Sigmoid(),
    )


def pmg_11(maps):
    return mnist_progressive(MgConv, MgConv((64,), (maps,), (3,), relu=False))


def r_pmg_20(maps):
    return mnist_progressive(ResidualMgUnit, ResidualMgUnit((64,), (maps,), (1,), relu=False))


class UNet11(nn.Module):
    def __init__(self, maps):
        super().__init__()
        self.down1 = ConvBN(1, 64)
        self.down2 = ConvBN(64, 128)
        self.down3 = ConvBN(128, 256)
        self.bottom = ConvBN(256, 512)
        self.up3 = UpConvBN(512, 256)
        self.conv3 = ConvBN(256 + 256, 256)
        self.up2 = UpConvBN(256, 128)
        self.conv2 = ConvBN(128 + 128, 128)
        self.up1 = UpConvBN(128, 64)
        self.conv1 = ConvBN(64 + 64, 64)
        self.top = ConvBN(64, maps, 1, relu=False)

    def forward(self, image):
        skip1 = self.down1(image)
        skip2 = self.down2(max_pool(skip1))
        skip3 = self.down3(max_pool(skip2))
        x = self.bottom(max_pool(skip3))
        x = self.conv3(join(self.up3(x, skip3.shape[-2:]), skip3))
        x = self.conv2(join(self.up2(x, skip2.shape[-2:]), skip2))
        x = self.conv1(join(self.up1(x, skip1.shape[-2:]), skip1))
        return torch.sigmoid(self.top(x))


def join(below, skip):
    """What comes up from below first, then the skip."""
    return torch.cat([below, skip], dim=1)


class PyramidUp(nn.Module):
    """Each grid goes up by its own transposed convolution and joins its skip; the other skips stay alone."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.ups = nn.ModuleList(UpConvBN(a, b) for a, b in zip(c_in, c_out, strict=True))

    def forward(self, levels, skips):
        outputs = list(skips)
        for i, (up, x) in enumerate(zip(self.ups, levels, strict=True)):
            outputs[i] = join(up(x, skips[i].shape[-2:]), skips[i])
        return outputs


class UMg11(nn.Module):
    def __init__(self, maps):
        super().__init__()
        self.pool = PyramidPool()
        self.down1 = Embedding(1, (64, 32, 16))
        self.down2 = MgConv((64, 32, 16), (128, 64, 32), (3, 3, 3))
        self.down3 = MgConv((128, 64), (256, 128), (3, 3))
        self.bottom = MgConv((256,), (512,), (3,))
        self.up3 = PyramidUp((512,), (256,))
        self.conv3 = MgConv((256 + 256, 128), (256, 128), (3, 3))
        self.up2 = PyramidUp((256, 128), (128, 64))
        self.conv2 = MgConv((128 + 128, 64 + 64, 32), (128, 64, 32), (3, 3, 3))
        self.up1 = PyramidUp((128, 64, 32), (64, 32, 16))
        self.conv1 = MgConv((64 + 64, 32 + 32, 16 + 16), (64, 32, 16), (3, 3, 3))
        self.top = MgConv((64, 32, 16), (maps, maps, maps), (1, 1, 1), relu=False)

    def forward(self, image):
        skips1 = self.down1(image)
        skips2 = self.down2(self.pool(skips1))
        skips3 = self.down3(self.pool(skips2[:-1]))
        levels = self.bottom(self.pool(skips3[:-1]))
        levels = self.conv3(self.up3(levels, skips3))
        levels = self.conv2(self.up2(levels, skips2))
        levels = self.conv1(self.up1(levels, skips1))
        return torch.sigmoid(self.top(levels)[0])


# ---------------------------------------------------------------------------------------------------- All of them

CIFAR = {
    "VGG-6": lambda: cifar_vgg(1),
    "VGG-11": lambda: cifar_vgg(2),
    "VGG-16": lambda: cifar_vgg(3),
    "VGG-21": lambda: cifar_vgg(4),
    "RES-12": lambda: cifar_res(1),
    "RES-22": lambda: cifar_res(2),
    "RES-32": lambda: cifar_res(3),
    "RES-42": lambda: cifar_res(4),
    "MG-6": lambda: cifar_mg(1),
    "MG-11": lambda: cifar_mg(2),
    "MG-16": lambda: cifar_mg(3),
    "MG-21": lambda: cifar_mg(4),
    "R-MG-12": lambda: cifar_r_mg(1),
    "R-MG-22": lambda: cifar_r_mg(2),
    "R-MG-32": lambda: cifar_r_mg(3),
    "R-MG-42": lambda: cifar_r_mg(4),
    "PMG-9": lambda: cifar_progressive(MgConv, 1),
    "PMG-16": lambda: cifar_progressive(MgConv, 2),
    "PMG-30": lambda: cifar_progressive(MgConv, 3),
    "R-PMG-16": lambda: cifar_progressive(ResidualMgUnit, 1),
    "R-PMG-30": lambda: cifar_progressive(ResidualMgUnit, 2),
    "R-PMG-44": lambda: cifar_progressive(ResidualMgUnit, 3),
}
IMAGENET = {
    "VGG-16": vgg16,
    "ResNet-34-C": lambda: resnet(BasicBlock, (64, 128, 256, 512)),
    "ResNet-50": lambda: resnet(Bottleneck, (64, 128, 256, 512)),
    "WRN-34-2.0": lambda: resnet(BasicBlock, (128, 256, 512, 1024)),
    "R-MG-34": r_mg_34,
    "R-PMG-30-SEG": r_pmg_30_seg,
}
MNIST = {
    "U-NET-11": UNet11,
    "U-MG-11": UMg11,
    "SG-11": sg_11,
    "R-SG-20": r_sg_20,
    "PMG-11": pmg_11,
    "R-PMG-20": r_pmg_20,
}


def build(task: str, model: str) -> nn.Module:
    """The network of that name, freshly initialised by PyTorch's defaults."""
    if task == "cifar100":
        return CIFAR[model]()
    if task == "imagenet":
        return IMAGENET[model]()
    if task in ("mnist-seg", "mnist-spatial"):
        return MNIST[model](OUTPUT_CHANNELS[task])
    raise KeyError(task)


def in_call_order(model: nn.Module, x: torch.Tensor) -> list[nn.Module]:
    """The modules that hold parameters themselves, in the order in which model(x) calls them.

    The model runs in eval mode and without gradients, so that no running statistics change.
    """
    called = []
    hooks = []
    for module in model.modules():
        if list(module.parameters(recurse=False)):
            hooks.append(module.register_forward_hook(lambda module, args, output: called.append(module)))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return called
