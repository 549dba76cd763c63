"""Plain PyTorch networks, written by hand, that the compiler's output is compared with."""

from .networks import INPUT_SHAPES, build, in_call_order

__all__ = ["INPUT_SHAPES", "build", "in_call_order"]
