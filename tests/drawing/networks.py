"""Graphs by hand, named as the compiler names them, small and large."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mgcompile.graph import Graph, Layer, Node
from mgcompile.graph.ops import (
    Activation,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    GlobalPool,
    Input,
    Linear,
    Op,
    PadChannels,
    Pool,
    Product,
    Resize,
    Sum,
    TransposedConv,
    WeightedSum,
)

Pyramid = dict[int, str]
"""The node of each level."""


class Builder:
    """Adds nodes layer by layer; a pyramid maps levels to nodes."""

    def __init__(self, name: str, size: int, channels: int = 3) -> None:
        self.name, self.size = name, size
        self.nodes: list[Node] = []
        self.layers: dict[str, Layer] = {}
        self.channels: dict[str, int] = {}
        self.add("input", Input(channels), (), 0, "input", "op", channels)

    def add(  # noqa: PLR0917
        self, name: str, op: Op, inputs: Sequence[str], level: int, layer: str, kind: str, channels: int
    ) -> str:
        self.nodes.append(Node(name, op, tuple(inputs), level, layer, name))
        self.layers[layer] = Layer(kind)
        self.channels[name] = channels
        return name

    def finish(self, *outputs: str, **named: str) -> Graph:
        results = named or dict(zip(["output"], outputs, strict=True))
        return Graph(self.name, self.nodes, results, size=(self.size, self.size), layers=self.layers)

    def pyramid(self, levels: int, path: str = "pyramid1") -> Pyramid:
        grids = {0: "input"}
        for level in range(1, levels):
            pool = Pool("avg", 2**level, 2**level)
            name = f"{path}.level{level}"
            grids[level] = self.add(name, pool, ["input"], level, path, "pyramid", self.channels["input"])
        return grids

    def conv(  # noqa: PLR0917
        self, path: str, grids: Pyramid, channels: Sequence[int], kernel: int = 3, stride: int = 1, act: bool = True
    ) -> Pyramid:
        """conv, norm and act of one mg-conv, without the exchange."""
        result: Pyramid = {}
        shift = stride.bit_length() - 1
        for wanted, (level, source) in zip(channels, sorted(grids.items()), strict=True):
            after = level + shift
            op = Conv(wanted, (kernel, kernel), stride)
            name = self.add(f"{path}.conv.level{after}", op, [source], after, f"{path}.conv", "conv", wanted)
            name = self.add(f"{path}.norm.level{after}", BatchNorm(), [name], after, f"{path}.norm", "norm", wanted)
            if act:
                name = self.add(f"{path}.act.level{after}", Activation(), [name], after, f"{path}.act", "act", wanted)
            result[after] = name
        return result

    def exchange(self, path: str, grids: Pyramid) -> Pyramid:
        result: Pyramid = {}
        for level, own in sorted(grids.items()):
            parts = []
            if level - 1 in grids:
                finer = grids[level - 1]
                name = f"{path}.level{level}.from{level - 1}"
                parts.append(self.add(name, Pool(), [finer], level, path, "exchange", self.channels[finer]))
            parts.append(own)
            if level + 1 in grids:
                coarser = grids[level + 1]
                name = f"{path}.level{level}.from{level + 1}"
                channels = self.channels[coarser]
                parts.append(self.add(name, Resize(), [coarser, own], level, path, "exchange", channels))
            result[level] = own if len(parts) == 1 else self.concat(path, level, parts, "exchange")
        return result

    def concat(self, path: str, level: int, parts: Sequence[str], kind: str = "join") -> str:
        channels = sum(self.channels[part] for part in parts)
        return self.add(f"{path}.level{level}.fuse", Concat(), parts, level, path, kind, channels)

    def mgconv(self, path: str, grids: Pyramid, channels: Sequence[int], kernel: int = 3, act: bool = True) -> Pyramid:
        return self.conv(path, self.exchange(f"{path}.exchange", grids), channels, kernel, act=act)

    def residual(self, path: str, grids: Pyramid, channels: Sequence[int]) -> Pyramid:
        body = self.mgconv(f"{path}.conv1", grids, channels)
        body = self.mgconv(f"{path}.conv2", body, channels, act=False)
        result: Pyramid = {}
        for wanted, (level, own) in zip(channels, sorted(body.items()), strict=True):
            short = grids[level]
            if self.channels[short] != wanted:
                name = f"{path}.shortcut.pad.level{level}"
                short = self.add(name, PadChannels(wanted), [short], level, f"{path}.shortcut.pad", "pad", wanted)
            name = self.add(f"{path}.add.level{level}", Sum(), [own, short], level, f"{path}.add", "join", wanted)
            result[level] = self.add(
                f"{path}.act.level{level}", Activation(), [name], level, f"{path}.act", "act", wanted
            )
        return result

    def repeat(self, path: str, times: int, grids: Pyramid, channels: Sequence[int], layer: Layered) -> Pyramid:
        for index in range(times):
            grids = layer(self, f"{path}.{index}", grids, channels)
        return grids

    def grow(self, path: str, times: int, grids: Pyramid, channels: Sequence[Sequence[int]], layer: Layered) -> Pyramid:
        """Coarse to fine: a step each for one, two, ... levels, with the channels of its levels."""
        levels = sorted(grids)
        for step, wanted in enumerate(channels):
            active = {level: grids[level] for level in levels[-1 - step :]}
            grids = grids | self.repeat(f"{path}.step{step}.unit", times, active, wanted, layer)
        return grids

    def pool(self, path: str, grids: Pyramid, merge: bool = False, kernel: int = 2) -> Pyramid:
        layer = f"{path}.pooled" if merge else path
        chosen = sorted(grids)[: -1 if merge else None]
        pooled = {
            level + 1: self.add(
                f"{layer}.level{level + 1}",
                Pool("max", kernel),
                [grids[level]],
                level + 1,
                layer,
                "pool",
                self.channels[grids[level]],
            )
            for level in chosen
        }
        if merge:
            last = max(grids)
            pooled[last] = self.concat(f"{path}.join", last, [pooled[last], grids[last]])
        return pooled

    def classify(self, grid: str, level: int, classes: int, path: str = "classify1") -> str:
        channels = self.channels[grid]
        name = self.add(
            f"{path}.pool.level{level}", GlobalPool(), [grid], level, f"{path}.pool", "global_pool", channels
        )
        name = self.add(
            f"{path}.flatten.level{level}", Flatten(), [name], level, f"{path}.flatten", "flatten", channels
        )
        return self.add(
            f"{path}.linear.level{level}", Linear(classes), [name], level, f"{path}.linear", "linear", classes
        )


Layered = Callable[[Builder, str, Pyramid, Sequence[int]], Pyramid]


def r_pmg(n: int = 2) -> Graph:
    """R-PMG-30 for n = 2."""
    build = Builder({1: "R-PMG-16", 2: "R-PMG-30", 3: "R-PMG-44"}.get(n, f"R-PMG n={n}"), 32)
    grids = build.conv("conv1", build.pyramid(3), [64, 32, 16])
    grids = build.grow("grow1", n, grids, [[16], [32, 16], [64, 32, 16]], Builder.residual)
    blocks = [[128, 64, 32], [256, 128, 64], [512, 256, 128], [512, 384]]
    for number, channels in enumerate(blocks, 1):
        grids = build.pool(f"pool{number}", grids, merge=number == 4)
        grids = build.repeat(f"unit{number}", n, grids, channels, Builder.residual)
    grids = build.pool("pool5", grids, merge=True)
    ((level, grid),) = grids.items()
    return build.finish(build.classify(grid, level, 100))


def r_mg_34() -> Graph:
    build = Builder("R-MG-34", 224)
    grids = build.conv("conv1", build.pyramid(3), [64, 32, 16], 7, stride=2)
    grids = build.pool("pool1", grids, kernel=3)
    blocks = [(3, [64, 32, 16]), (4, [128, 64, 32]), (6, [256, 128]), (3, [512])]
    for number, (times, channels) in enumerate(blocks, 1):
        grids = build.repeat(f"unit{number}", times, grids, channels, Builder.residual)
        if number < 4:
            grids = build.pool(f"pool{number + 1}", grids, merge=number > 1)
    ((level, grid),) = grids.items()
    return build.finish(build.classify(grid, level, 1000))


def u_mg_11(classes: int = 10) -> Graph:
    build = Builder("U-MG-11", 64, channels=1)
    widths = [[64, 32, 16], [128, 64, 32], [256, 128], [512]]
    grids = build.conv("conv1", build.pyramid(3), widths[0])
    skips = [grids]
    for number, channels in enumerate(widths[1:], 2):
        kept = {level: grids[level] for level in sorted(grids)[: None if number == 2 else -1]}
        grids = build.mgconv(f"conv{number}", build.pool(f"pool{number - 1}", kept), channels)
        skips.append(grids)
    for number, (skip, channels) in enumerate(zip(skips[-2::-1], widths[-2::-1], strict=True), 1):
        path = f"up{number}"
        risen: Pyramid = {}
        for level, grid in sorted(grids.items()):
            wanted = build.channels[skip[level - 1]]
            name = build.add(
                f"{path}.conv.level{level - 1}",
                TransposedConv(wanted),
                [grid, skip[level - 1]],
                level - 1,
                f"{path}.conv",
                "up",
                wanted,
            )
            name = build.add(
                f"{path}.norm.level{level - 1}", BatchNorm(), [name], level - 1, f"{path}.norm", "norm", wanted
            )
            risen[level - 1] = build.add(
                f"{path}.act.level{level - 1}", Activation(), [name], level - 1, f"{path}.act", "act", wanted
            )
        joined = {
            level: build.concat(f"join{number}", level, [own, risen[level]]) if level in risen else own
            for level, own in skip.items()
        }
        grids = build.mgconv(f"conv{4 + number}", joined, channels)
    grids = build.mgconv("conv8", grids, [classes] * 3, kernel=1, act=False)
    out = build.add("act1.level0", Activation("sigmoid"), [grids[0]], 0, "act1", "act", classes)
    return build.finish(out)


def fpn() -> Graph:
    """A stem, four strided stages, and a feature pyramid on top: lateral 1x1, added from coarse to fine, smoothed."""
    build = Builder("FPN", 128)
    grids = build.conv("conv1", {0: "input"}, [32], stride=2)
    backbone: Pyramid = {}
    for number, channels in enumerate((64, 128, 256), 1):
        grids = build.conv(f"stage{number}", grids, [channels], stride=2)
        backbone |= grids
    lateral = {}
    for level in sorted(backbone):
        layer = "lateral"
        lateral[level] = build.add(
            f"{layer}.level{level}", Conv(64, (1, 1)), [backbone[level]], level, layer, "conv", 64
        )
    merged = {max(lateral): lateral[max(lateral)]}
    for level in sorted(lateral, reverse=True)[1:]:
        name = f"topdown.level{level}.from{level + 1}"
        up = build.add(name, Resize(), [merged[level + 1], lateral[level]], level, "topdown", "exchange", 64)
        name = f"topdown.level{level}.fuse"
        merged[level] = build.add(name, Sum(), [lateral[level], up], level, "topdown", "exchange", 64)
    result = {
        level: build.add(f"smooth.level{level}", Conv(64), [grid], level, "smooth", "conv", 64)
        for level, grid in sorted(merged.items())
    }
    return build.finish(**{f"p{level}": grid for level, grid in result.items()})


def hrnet(levels: int = 3, modules: int = 2) -> Graph:
    """Branches of residual units, summed after 1x1 convolutions upwards and chains of strided ones downwards."""
    build = Builder("HRNet", 64)
    grids = build.conv("stem", build.pyramid(levels), [16 << level for level in range(levels)])
    for module in range(modules):
        for unit in range(2):
            path = f"stage.{module}.branch.{unit}"
            widths = [16 << level for level in range(levels)]
            body = build.conv(f"{path}.conv1", grids, widths)
            body = build.conv(f"{path}.conv2", body, widths, act=False)
            for level, own in sorted(body.items()):
                add = build.add(
                    f"{path}.add.level{level}", Sum(), [own, grids[level]], level, f"{path}.add", "join", 16 << level
                )
                grids = grids | {
                    level: build.add(
                        f"{path}.act.level{level}", Activation(), [add], level, f"{path}.act", "act", 16 << level
                    )
                }
        grids = _hrnet_fusion(build, f"stage.{module}.fuse", grids)
    return build.finish(grids[0])


def _hrnet_fusion(build: Builder, path: str, grids: Pyramid) -> Pyramid:
    result: Pyramid = {}
    for level, own in sorted(grids.items()):
        parts = []
        for source in sorted(grids):
            name = f"{path}.level{level}.from{source}"
            here = grids[source]
            for step in range(source, level):
                here = build.add(
                    f"{name}.{step}.conv",
                    Conv(16 << level if step + 1 == level else 16 << source, stride=2),
                    [here],
                    step + 1,
                    path,
                    "exchange",
                    16 << level,
                )
            if source > level:
                here = build.add(
                    f"{name}.conv", Conv(16 << level, (1, 1)), [here], source, path, "exchange", 16 << level
                )
                here = build.add(
                    f"{name}.up", Resize(steps=source - level), [here, own], level, path, "exchange", 16 << level
                )
            parts.append(here)
        name = build.add(f"{path}.level{level}.fuse", Sum(), parts, level, path, "exchange", 16 << level)
        result[level] = build.add(
            f"{path}.act.level{level}", Activation(), [name], level, f"{path}.act", "act", 16 << level
        )
    return result


def densenet(layers: int = 5) -> Graph:
    """Each layer reads the concatenation of all before it."""
    build = Builder("DenseNet", 32)
    (grid,) = build.conv("stem", {0: "input"}, [24]).values()
    for number in range(layers):
        (new,) = build.conv(f"dense.{number}", {0: grid}, [12]).values()
        grid = build.concat(f"dense.{number}.join", 0, [grid, new])
    (grid,) = build.conv("transition", {0: grid}, [48], kernel=1).values()
    pooled = build.pool("pool1", {0: grid})
    return build.finish(build.classify(pooled[1], 1, 10))


def resnet(times: Sequence[int] = (3, 4)) -> Graph:
    """Single-level residual stages; the first unit of a stage strides and projects its shortcut."""
    build = Builder("ResNet", 32)
    (grid,) = build.conv("conv1", {0: "input"}, [16]).values()
    level = 0
    for stage, count in enumerate(times):
        for unit in range(count):
            path, stride, width = f"stage{stage + 1}.{unit}", 2 if stage and not unit else 1, 16 << stage
            ((after, body),) = build.conv(f"{path}.conv1", {level: grid}, [width], stride=stride).items()
            (body,) = build.conv(f"{path}.conv2", {after: body}, [width], act=False).values()
            if stride > 1:
                (grid,) = build.conv(f"{path}.shortcut", {level: grid}, [width], 1, stride=2, act=False).values()
            name = f"{path}.add.level{after}"
            grid = build.add(name, Sum(), [body, grid], after, f"{path}.add", "join", width)
            grid = build.add(f"{path}.act.level{after}", Activation(), [grid], after, f"{path}.act", "act", width)
            level = after
    return build.finish(build.classify(grid, level, 10))


def u_net() -> Graph:
    """One grid: two steps down, two up by bilinear resizing, each concatenated with its skip for one convolution."""
    build = Builder("U-Net", 64)
    (grid,) = build.conv("down0", {0: "input"}, [16]).values()
    skips = [grid]
    for level in (1, 2):
        grid = build.pool(f"pool{level}", {level - 1: grid})[level]
        (grid,) = build.conv(f"down{level}", {level: grid}, [16 << level]).values()
        skips.append(grid)
    for level in (1, 0):
        name = f"up{level}.level{level}"
        risen = build.add(name, Resize("bilinear"), [grid, skips[level]], level, f"up{level}", "up", 32 << level)
        joined = build.concat(f"join{level}", level, [skips[level], risen])
        (grid,) = build.conv(f"smooth{level}", {level: joined}, [16 << level]).values()
    return build.finish(grid)


def gated(units: int = 2) -> Graph:
    """Units of a convolution whose output is scaled by a gate computed from its mean (squeeze and excitation)."""
    build = Builder("gated", 32)
    (grid,) = build.conv("conv1", {0: "input"}, [16]).values()
    for unit in range(units):
        path = f"unit1.{unit}"
        (body,) = build.conv(f"{path}.conv", {0: grid}, [16], act=False).values()
        gate = build.add(f"{path}.squeeze", GlobalPool(), [body], 0, f"{path}.squeeze", "global_pool", 16)
        (gate,) = build.conv(f"{path}.reduce", {0: gate}, [4], 1).values()
        (gate,) = build.conv(f"{path}.excite", {0: gate}, [16], 1, act=False).values()
        body = build.add(f"{path}.scale", Product(), [body, gate], 0, f"{path}.scale", "join", 16)
        grid = build.add(f"{path}.add", Sum(), [body, grid], 0, f"{path}.add", "join", 16)
    return build.finish(grid)


def inception() -> Graph:
    """Parallel branches of different length, concatenated; then a learned weighting of two of them."""
    build = Builder("Inception", 32)
    (stem,) = build.conv("stem", {0: "input"}, [16]).values()
    ends = []
    for branch, kernels in enumerate(([1], [1, 3], [1, 3, 3])):
        grid = stem
        for place, kernel in enumerate(kernels):
            (grid,) = build.conv(f"mixed.branch{branch}.{place}", {0: grid}, [8], kernel).values()
        ends.append(grid)
    joined = build.concat("mixed.join", 0, ends)
    one = build.conv("one", {0: joined}, [8])[0]
    other = build.conv("other", {0: joined}, [8], 5)[0]
    mixed = build.add("weigh", WeightedSum(), [one, other], 0, "weigh", "join", 8)
    return build.finish(mixed)


NETWORKS: dict[str, Callable[[], Graph]] = {
    "r-pmg-30": r_pmg,
    "r-mg-34": r_mg_34,
    "u-mg-11": u_mg_11,
    "fpn": fpn,
    "hrnet": hrnet,
    "densenet": densenet,
    "resnet": resnet,
    "u-net": u_net,
    "gated": gated,
    "inception": inception,
}
