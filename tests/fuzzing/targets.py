"""What mgcompile is asked to do with a mutated input, as users ask for it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["TARGETS", "Told"]

Told = tuple[int, str]
"""An exit status, and what went to standard error."""

MOST_NODES = 3_000
"""What is larger is not compiled: that takes its time, which is not what is looked for."""


def command(*args: str) -> Told:
    """A command line, in this process."""
    from mgcompile.cli import main

    errors, output = io.StringIO(), io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    status = 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        try:
            main(list(args), prog_name="mgcompile")
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
    return status, errors.getvalue()


def spec(path: Path) -> Told:
    """Check it; where it is right, audit, draw and compile it, which must then be right too."""
    status, errors = command("check", str(path))
    if status:
        return status, errors
    from mgcompile import load

    graph = load(path).graph
    for args in (["audit", str(path)], ["draw", str(path), "--format", "svg"], ["show", str(path)]):
        status, errors = command(*args)
        if status:
            return status, f"right for check, but for {args[0]}: {errors}"
    if len(graph) <= MOST_NODES:
        source = path.with_suffix(".py")
        status, errors = command("compile", str(path), "-o", str(source))
        if status:
            return status, f"right for check, but for compile: {errors}"
        compile(source.read_text(encoding="utf-8"), str(source), "exec")
        _run_small(path, graph)
    return 0, ""


def _run_small(path: Path, graph: Any) -> None:
    """Build the model without memory and look at its code; a small one is run."""
    import torch

    import mgcompile

    height, width = graph.size
    elements = sum(_elements(shape) for shape in graph.shapes().values())
    if elements < 300_000 and mgcompile.audit(path).params < 1_000_000:
        mgcompile.compile(path).eval()(torch.zeros(1, graph.input.op.channels, height, width))


def _elements(shape: tuple[int, ...]) -> int:
    found = 1
    for side in shape:
        found *= side
    return found


@cache
def _some_graph() -> Any:
    from mgcompile import load

    return load("mnist-seg/u-net-11").graph


def recipe(path: Path) -> Told:
    """Read it, as `mgcompile train --recipe` does."""
    from mgcompile.errors import MgcompileError
    from mgcompile.training.recipe import given_in, recipe_for

    try:
        recipe_for(given_in(path), _some_graph())
    except MgcompileError as error:
        return _told(error)
    return 0, ""


def checkpoint(path: Path) -> Told:
    """Load it."""
    import mgcompile
    from mgcompile.errors import MgcompileError

    try:
        mgcompile.load_model(path)
    except MgcompileError as error:
        return _told(error)
    return 0, ""


def _told(error: Exception) -> Told:
    """As the command line tells it."""
    from mgcompile.errors import InputError
    from mgcompile.escaping import visible

    return 2 if isinstance(error, InputError) else 1, visible(str(error), lines=True)


def warm_up() -> None:
    """Import and fill, in the process from which those that are watched are forked."""
    import torch

    torch.set_num_threads(1)
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    assert spec.__doc__
    assert folder.is_dir()
    import mgcompile.training.recipe

    command("check", "cifar100/vgg-6")
    command("audit", "cifar100/vgg-6")
    mgcompile.compile("cifar100/vgg-6", device="meta")
    _some_graph()


TARGETS: Mapping[str, Callable[[Path], Told]] = {"spec": spec, "recipe": recipe, "checkpoint": checkpoint}
