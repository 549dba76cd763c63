"""The specs of `campaign.py`: drawn from seeds, or of the zoo; and the same with less in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import yaml

import mgcompile
from mgcompile.errors import MgcompileError
from mgcompile.spec.loading import zoo_names

Spec = dict[str, Any]
"""A spec as plain data."""

MOST_PARAMETERS = 3_000_000
"""Networks of the zoo with more are narrowed or left out."""


def drawn(seed: int) -> Spec:
    """The generated spec of a seed: the longest of a few."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    from tests.laws.specs import specs

    found: list[Spec] = []
    few = settings(
        max_examples=4,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @seeded(seed)
    @few
    @given(specs())
    def draw(spec: Spec) -> None:
        found.append(spec)

    draw()
    return max(found, key=lambda spec: len(spec["layers"]))


def zoo() -> Iterator[tuple[str, Spec]]:
    """Networks of the zoo that are not too large, narrowed where they say how."""
    for name in zoo_names():
        for params in ({}, {"width": 8}):
            try:
                if mgcompile.audit(name, params=params).params <= MOST_PARAMETERS:
                    yield name, yaml.safe_load(mgcompile.load(name, params=params).to_yaml())
                    break
            except MgcompileError:  # it has no such parameter
                continue


def least(spec: Spec, differs: Callable[[Spec], bool]) -> Spec:
    """A spec from which nothing can be taken so that it still differs."""
    while (less := next(filter(differs, smaller(spec)), None)) is not None:
        spec = less
    return spec


def smaller(spec: Spec) -> Iterator[Spec]:
    """Specs with a layer or an option less, right or not."""
    for key in ("outputs", "defaults", "blocks"):
        if key in spec:
            yield {name: value for name, value in spec.items() if name != key}
    for place, layer in enumerate(spec["layers"]):
        rest = spec["layers"][:place], spec["layers"][place + 1 :]
        yield spec | {"layers": [*rest[0], *rest[1]]}
        for key, value in layer.items():
            if key in ("on", "repeat", "from", "share"):
                yield spec | {"layers": [*rest[0], {k: v for k, v in layer.items() if k != key}, *rest[1]]}
            elif isinstance(value, dict):
                for option in value:
                    fewer = {name: each for name, each in value.items() if name != option}
                    yield spec | {"layers": [*rest[0], layer | {key: fewer}, *rest[1]]}
