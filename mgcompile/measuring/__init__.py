"""Figures of models on this machine: time, memory, and how much of what the machine can do they use."""

from mgcompile.measuring.bench import Bench, Candidate, Options, Row, candidates, measure
from mgcompile.measuring.memory import peak_bytes, resident_bytes
from mgcompile.measuring.peak import convolution_peak
from mgcompile.measuring.timing import Timing, interleaved

__all__ = [
    "Bench",
    "Candidate",
    "Options",
    "Row",
    "Timing",
    "candidates",
    "convolution_peak",
    "interleaved",
    "measure",
    "peak_bytes",
    "resident_bytes",
]
