"""Which weights are one set: what `share` makes of a scope, and whether it has an effect where it stands."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

from mgcompile.graph.builder import INPUT, GraphBuilder
from mgcompile.spec.base import LayerError, Pyramid, Share
from mgcompile.spec.scopes import References, Scope, Unknown

__all__ = ["check_sharing", "shared_scope"]


def shared_scope(share: Share, inner: Scope, references: References) -> tuple[Scope, dict[str, Any]]:
    """The scope of a layer that shares weights, and its `share` in the canonical form. Raises `LayerError`."""
    levels = inner.shared_levels if share.levels is None else share.levels
    inner = replace(inner, shared_levels=levels, shared_norm=inner.shared_norm and share.norm)
    if share.with_ is None:
        return inner, {"levels": levels, "norm": share.norm}
    path = references.resolve(share.with_, inner.parent or inner, ("share", "with"))
    if path == INPUT:
        raise LayerError("the input has no weights to share", "share", "with")
    owner = references.scopes.get(path)
    if owner is None:
        raise Unknown
    inner = replace(inner, weights=owner.weights, shared_levels=owner.shared_levels, owned=False)
    return inner, {"with": f".{path}", "norm": share.norm}


def check_sharing(share: Share, repeat: int | None, pyramid: Pyramid, builder: GraphBuilder, before: int) -> None:
    """Raise `LayerError` where a layer shares nothing though it is told to. `before`: the nodes that there were."""
    if share.repeats and repeat is None:
        raise LayerError("the layer has no `repeat`, so there are no repeats to share weights", "share", "repeats")
    made = [*islice(builder.nodes.values(), before, None)]
    told = "with" if share.with_ is not None else "repeats" if share.repeats else ""
    if told and not any(builder.has_tensors(node.weights) for node in made):
        raise LayerError("there are no weights here to share", "share", told)
    if not share.levels or len(pyramid) < 2:
        return
    uses = Counter(node.weights for node in made if builder.has_tensors(node.weights))
    if not any(times > 1 and ".shared" in f".{weights}" for weights, times in uses.items()):
        raise LayerError(
            "no two levels share weights here: there are none, or they belong to layers inside that stand at one level "
            "each; say it there",
            "share",
            "levels",
        )
