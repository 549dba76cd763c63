"""The layers of the language, a file a family. A new layer is a class in one of them and a line in `LAYERS`."""

from mgcompile.spec.base import LayerSpec
from mgcompile.spec.layers.channels import Pad, Slice
from mgcompile.spec.layers.convolution import Act, Conv, Dropout, Norm
from mgcompile.spec.layers.custom import Custom
from mgcompile.spec.layers.exchange import Exchange
from mgcompile.spec.layers.heads import Classify, Flatten, GlobalPool, Linear, Predict
from mgcompile.spec.layers.joining import Gate, Join, Parallel
from mgcompile.spec.layers.levels import Drop, Extend, ImagePyramid, Pool, Select, Up
from mgcompile.spec.layers.residual import Grow, Residual, Shortcut, Unit
from mgcompile.spec.layers.structure import Block, Group

__all__ = ["LAYERS"]

LAYERS: dict[str, type[LayerSpec]] = {
    layer.kind: layer
    for layer in (
        ImagePyramid,
        Conv,
        Exchange,
        Unit,
        Residual,
        Grow,
        Pool,
        Up,
        Select,
        Drop,
        Extend,
        Join,
        Parallel,
        Gate,
        Shortcut,
        Norm,
        Act,
        Dropout,
        Pad,
        Slice,
        GlobalPool,
        Flatten,
        Linear,
        Classify,
        Predict,
        Group,
        Block,
        Custom,
    )
}
"""Every layer by its key in a spec."""
