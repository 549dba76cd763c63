"""From graph to graph: the same function in less time and memory. A file holds one idea, a function is one pass.

A pass is pure; its docstring says when it is exact. Names and shapes in the `state_dict` stay as they are.
"""

from mgcompile.passes.pipelines import MODES, PIPELINES, Pass, optimize

__all__ = ["MODES", "PIPELINES", "Pass", "optimize"]
