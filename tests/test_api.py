"""The functions for Python that give what a network takes: the same as the command line, with options checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import mgcompile
from mgcompile.errors import InputError

NAME = "cifar100/r-mg-12"


def test_receptive_field() -> None:
    found = mgcompile.receptive_field(NAME, size=(40, 24))
    assert found.size == (40, 24)
    assert found.outputs[0].size == (40, 24)
    assert found.sees("embed.act.level0", (0, 0)) == ((0, 1), (0, 1))


def test_memory() -> None:
    found = mgcompile.memory(NAME, batch=4, optimizer="adam", bytes_per_element=2)
    assert found.parameters == 2 * mgcompile.audit(NAME).params
    assert found.optimizer_state == 2 * found.parameters
    assert mgcompile.memory(NAME, batch=4, optimize="inference").inference.bytes < 2 * found.inference.bytes
    with pytest.raises(ValueError, match="batch=0"):
        mgcompile.memory(NAME, batch=0)


def test_roofline() -> None:
    found = mgcompile.roofline(NAME, size=64, batch=3)
    assert sum(row.flops for row in found.rows) == 3 * mgcompile.audit(NAME, size=64).flops
    assert found.seconds is None


@pytest.mark.parametrize("function", [mgcompile.audit, mgcompile.memory, mgcompile.receptive_field, mgcompile.roofline])
def test_sizes_are_checked(function: object) -> None:
    with pytest.raises(mgcompile.ShapeError, match="a size is a positive height and width"):
        function(NAME, size=(0, 4))  # type: ignore[operator]
    with pytest.raises(mgcompile.SpecError, match="did you mean"):
        function("cifar100/r-mg-13")  # type: ignore[operator]


@pytest.mark.parametrize("source", [None, 5, ["conv"], {"layers"}, object()])
def test_what_is_no_spec_at_all(source: Any) -> None:
    with pytest.raises(InputError, match="expected a spec: a path, a name of the zoo, a mapping or a Spec, found"):
        mgcompile.load(source)


def test_a_path_of_bytes(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text("input: {size: 8}\nlayers: [pool]\n")
    assert mgcompile.load(os.fsencode(path)).graph  # type: ignore[arg-type]
