"""All operations. A file holds one family; a class says everything about one operation."""

from mgcompile.graph.ops.activation import ACTIVATIONS, Activation, Dropout, PReLU
from mgcompile.graph.ops.base import Kind, Op
from mgcompile.graph.ops.conv import Conv, Linear, TransposedConv
from mgcompile.graph.ops.fuse import Concat, Maximum, Mean, Product, Sum, WeightedSum
from mgcompile.graph.ops.fused import ChannelsLast, FusedConv, HalvingPool, Reference
from mgcompile.graph.ops.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Norm
from mgcompile.graph.ops.pool import GlobalPool, Pool
from mgcompile.graph.ops.registry import find_op, known_ops, register_op
from mgcompile.graph.ops.resize import Resize
from mgcompile.graph.ops.shape import Crop, Flatten, Input, PadChannels, SliceChannels

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "BatchNorm",
    "ChannelsLast",
    "Concat",
    "Conv",
    "Crop",
    "Dropout",
    "Flatten",
    "FusedConv",
    "GlobalPool",
    "GroupNorm",
    "HalvingPool",
    "Input",
    "InstanceNorm",
    "Kind",
    "LayerNorm",
    "Linear",
    "Maximum",
    "Mean",
    "Norm",
    "Op",
    "PReLU",
    "PadChannels",
    "Pool",
    "Product",
    "Reference",
    "Resize",
    "SliceChannels",
    "Sum",
    "TransposedConv",
    "WeightedSum",
    "find_op",
    "known_ops",
    "register_op",
]
