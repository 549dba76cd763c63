"""How the parts of an exchange are called."""

from __future__ import annotations

import re

__all__ = ["EXCHANGE_PART"]

# The parts of an exchange that are layers themselves: the body of an edge between two levels, the fusion at a level.
EXCHANGE_PART = re.compile(r"(?P<exchange>.+?)\.level-?\d+\.(from-?\d+\.|fuse$)")
