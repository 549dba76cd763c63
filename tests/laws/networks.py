"""A few tiny networks that between them use every way of computing, each compiled once a process."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import fx, nn

import mgcompile

NETWORKS: dict[str, dict[str, Any]] = {
    # Convolutions of two grids, the coarse one upsampled: Winograd's, split and whole; residual sums; a head.
    "levels": {
        "input": {"channels": 3, "size": 16},
        "layers": [
            {"pyramid": 2},
            {"id": "embed", "conv": {"channels": 8, "reach": 0}},
            {"id": "mix", "conv": {"channels": 16}},
            {"id": "unit", "unit": {"channels": 16}},
            {"pool": {"merge": True}},
            {"classify": {"classes": 5}},
        ],
    },
    # A stem of stride 2 and a pool; grids of a few cells, as matrix products; two outputs.
    "stem": {
        "input": {"channels": 3, "size": 16},
        "layers": [
            {"id": "stem", "conv": {"channels": 8, "kernel": 5, "stride": 2}},
            "pool",
            {"id": "wide", "unit": {"channels": 16, "stride": 2}},
            {"id": "last", "conv": {"channels": 16}},
            {"id": "scores", "classify": {"classes": 4, "hidden": [6]}},
        ],
        "outputs": {"features": "last", "scores": "scores"},
    },
    # Kinds of convolutions and norms that are fused in part, or not at all; a product with a gate.
    "kinds": {
        "input": {"channels": 2, "size": 12},
        "layers": [
            {"id": "first", "conv": {"channels": 8, "kernel": 4}},
            {"id": "depthwise", "conv": {"channels": 8, "groups": "depthwise", "act": "silu"}},
            {"id": "grouped", "conv": {"channels": 8, "groups": 2, "norm": {"by": "group", "groups": 2}}},
            {"id": "dilated", "conv": {"channels": 8, "dilation": 2, "act": {"by": "leaky_relu", "slope": 0.2}}},
            {"id": "before", "conv": {"channels": 8, "order": "norm-act-conv"}},
            {
                "id": "gate",
                "gate": {"body": ["global_pool", {"conv": {"kernel": 1, "norm": "none", "act": "sigmoid"}}]},
            },
            {"id": "bare", "conv": {"channels": 4, "norm": "none", "act": "none"}},
        ],
    },
    # One module for several nodes: between levels and between repeats.
    "shared": {
        "input": {"channels": 3, "size": 16},
        "layers": [
            {"pyramid": 2},
            {"id": "embed", "conv": {"channels": 8, "reach": 0}, "share": "levels"},
            {
                "id": "again",
                "unit": {"channels": 8, "reach": 0},
                "repeat": 2,
                "share": {"levels": True, "repeats": True},
            },
            {"pool": {"merge": True}},
            {"predict": {"classes": 3, "act": "none"}},
        ],
    },
    # Down and up again: transposed convolutions, a join, three grids that read one another, a sum of all.
    "up": {
        "input": {"channels": 1, "size": 16},
        "layers": [
            {"pyramid": 3},
            {"id": "down", "conv": {"channels": 8, "fuse": "sum", "reach": 1}},
            {"id": "grow", "conv": {"channels": [16, 12, 8], "act": "relu"}},
            {"pool": {"merge": True}},
            {"id": "rise", "up": {"by": "transposed", "channels": 8}},
            "norm",
            "act",
            {"id": "join", "join": "down"},
            {"id": "top", "conv": {"channels": 8, "reach": 0}},
            {"exchange": {"fuse": "sum", "up": "conv", "to": "finest"}},
        ],
    },
}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "training": {"optimize": "training"},
    "inference": {"optimize": "inference"},
    "bf16": {"optimize": "inference", "precision": "bf16"},
}


@cache
def _master(name: str, form: str) -> fx.GraphModule:
    """A network in one form, with statistics and factors of its norms that matter."""
    model = mgcompile.compile(NETWORKS[name], seed=0, **FORMS[form])
    if form != "plain":
        model.load_state_dict(_master(name, "plain").state_dict())
        return model
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.3, 0.3, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


def plain_and(form: str, name: str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The plain network and the one of a form, with equal values, in the same mode: copies that are the caller's."""
    plain, ours = copy.deepcopy(_master(name, "plain")), copy.deepcopy(_master(name, form))
    if not ours.training:
        plain.eval().requires_grad_(False)
    return plain, ours


def channels(name: str) -> int:
    """Of the image."""
    found: int = NETWORKS[name]["input"]["channels"]
    return found
