"""What a machine can do at best: the peaks that a roofline is made of. Measured by `mgcompile.measuring`, or given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Machine", "Precision"]

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class Machine:
    """The peaks of a processor with a number of threads, for numbers of one precision.

    `convolution` is the FLOP/s of its fastest convolution (a multiply-accumulate is two), `bandwidth` the bytes a second
    that it reads and writes in main memory, `cache_bandwidth` those in a cache of `cache` bytes, `overhead` the seconds
    that PyTorch takes for an operation, however small.
    """

    name: str
    threads: int
    precision: Precision
    convolution: float
    bandwidth: float
    cache_bandwidth: float
    cache: int
    overhead: float
