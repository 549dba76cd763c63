"""Comparisons as text: tables for people, Markdown, CSV and JSON for programs. Nothing here prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from mgcompile.analysis import tables
from mgcompile.analysis.changes import CHANGES, Diff, LayerChange
from mgcompile.analysis.comparison import Profile, ratio
from mgcompile.analysis.cost import CONVENTIONS, Group
from mgcompile.analysis.receptive import FIELD_CONVENTIONS
from mgcompile.analysis.report import WIDE
from mgcompile.analysis.tables import Cell, Sheet, human, human_bytes, size_text

__all__ = ["By", "as_csv", "as_json", "as_markdown", "as_table", "comparison_sheets"]

By = Literal["level", "layer"]

MOST_DETAILS = 4
"""How many differences of a layer a table says; JSON and CSV say all."""

FIGURES: Mapping[str, str] = {
    "params": "parameters",
    "macs": "MACs",
    "flops": "FLOPs",
    "activation_bytes": "activations",
    "inference_bytes": "memory, inference",
    "training_bytes": "memory, training",
    "field": "receptive field",
    "depth": "depth",
    "nodes": "nodes",
    "levels": "levels",
}
"""The figures of `Profile.figures` and what people call them."""

GROUP_FIGURES = ("params", "macs", "activation_bytes")
NOTES: Mapping[str, str] = {
    "ratio": "x: how many times as much as the first network has",
    "memory": "memory: activations at their peak, parameters and buffers; in training also all gradients and the state "
    "of SGD with momentum",
    "field": "receptive field: pixels (height x width) that a cell of the first output depends on, of an image without "
    "borders; unbounded where that is all of it. Its ratio is that of the longer sides",
    "depth": FIELD_CONVENTIONS["depth"],
}
"""What else the figures mean, in words."""


def as_table(
    profiles: Sequence[Profile],
    diff: Diff | None = None,
    *,
    by: By | None = None,
    depth: int = 1,
    width: int = WIDE,
    terminal: bool = False,
) -> str:
    """All figures of each network beside their ratios to the first; then three of them by level, or by layer.

    With a `diff` its changes come instead of those, groups of layers as one down to `depth` components of their paths.
    Networks that do not fit in `width` characters are put below. Plain ASCII unless for a `terminal`.
    """
    sheets = comparison_sheets(profiles, diff, by=by, depth=depth, width=width, gap=3 if terminal else 1)
    return tables.as_text(sheets, width=width, terminal=terminal)


def as_markdown(profiles: Sequence[Profile], diff: Diff | None = None, *, by: By | None = None, depth: int = 1) -> str:
    """The same tables in Markdown, all networks beside each other."""
    return tables.as_markdown(comparison_sheets(profiles, diff, by=by, depth=depth))


def as_csv(profiles: Sequence[Profile], diff: Diff | None = None, *, by: By | None = None) -> str:
    """One line for each network, with `by` for each of its groups; with a `diff` one for each layer that changed.

    Exact integers; a ratio to the first network beside each of them; nothing where there is none. A receptive field is
    its longer side.
    """
    if diff is not None:
        names = ("kind", "first", "second", *("params", "macs", "flops", "activation_bytes"), "details")
        rows = [[*(getattr(each, name) for name in names[:-1]), "; ".join(each.details)] for each in diff.changes]
        return tables.as_csv(names, rows)
    if by is not None:
        return _groups_csv(profiles, by)
    columns = ["name", "channels", "height", "width"]
    for figure in FIGURES:
        columns += [figure, f"{figure}_ratio"]
    return tables.as_csv(columns, (_csv_row(profile, profiles[0]) for profile in profiles))


def as_json(profiles: Sequence[Profile], diff: Diff | None = None, *, by: By | None = None) -> str:
    """A document `{"conventions": {figure: words}, "networks": [...], "diff": ...}`; exact integers, sizes as lists.

    A network has `name`, `input`, `batch`, the figures, `receptive_field` as a pair, null where it is unbounded, the
    `ratios` of the figures to those of the first network, null where there is none, and `groups` by level or by layer.
    `diff`, null where not asked for, has `changes` by layer, `equal` and `equal_nodes`, and whether the `outputs` are
    equal nodes.
    """
    networks = [_record(profile, profiles[0], by or "level") for profile in profiles]
    conventions = {**CONVENTIONS, **NOTES}
    if diff is None:
        return tables.as_json({"conventions": conventions, "networks": networks, "diff": None})
    found = {
        "changes": [asdict(change) for change in diff.changes],
        "equal": diff.equal,
        "equal_nodes": diff.equal_nodes,
        "outputs": diff.outputs,
    }
    return tables.as_json({"conventions": conventions | dict(CHANGES), "networks": networks, "diff": found})


def comparison_sheets(
    profiles: Sequence[Profile],
    diff: Diff | None = None,
    *,
    by: By | None = None,
    depth: int = 1,
    width: int | None = None,
    gap: int = 1,
) -> list[Sheet]:
    """The tables of `as_table`, and last what the figures mean. All networks stand beside each other where no `width`
    is given, in characters; `gap` are those between two columns.
    """
    page = width, gap
    heads = tuple(profile.name for profile in profiles)
    sheets = _beside("figure", heads, _figure_rows(profiles), page)
    if diff is None or by is not None:
        key = by or "level"
        groups = [{group.name: group for group in profile.audit.by(key)} for profile in profiles]
        names = _merged([list(each) for each in groups])
        for figure in GROUP_FIGURES:
            rows = [(name, _group_cells(groups, name, figure)) for name in names]
            sheets += _beside(key, heads, rows, page, title=f"{FIGURES[figure]} by {key}")
    if diff is not None:
        sheets.append(_diff_sheet(diff, heads, depth))
    batch = profiles[0].memory.batch
    sample = [f"memory is that of a batch of {batch}; all else is that of one sample"] * (batch > 1)
    return [*sheets, Sheet("", (), (), notes=(*sample, *CONVENTIONS.values(), *NOTES.values()))]


def _record(profile: Profile, first: Profile, by: By) -> dict[str, object]:
    figures, others = profile.figures, first.figures
    ratios = {name: _decimal(ratio(figure, others[name])) for name, figure in figures.items()}
    return {
        "name": profile.name,
        "input": _input(profile),
        "batch": profile.memory.batch,
        **figures,
        "receptive_field": list(profile.output.unclipped),
        "ratios": ratios,
        "groups": [asdict(group) for group in profile.audit.by(by)],
    }


def _input(profile: Profile) -> tuple[int, ...]:
    return next(row.output for row in profile.audit.rows if row.kind == "input")


def _csv_row(profile: Profile, first: Profile) -> list[Cell]:
    row: list[Cell] = [profile.name, *_input(profile)]
    others = first.figures
    for name, figure in profile.figures.items():
        row += [figure, _decimal(ratio(figure, others[name]))]
    return row


def _groups_csv(profiles: Sequence[Profile], by: By) -> str:
    figures = ("params", "macs", "flops", "activation_bytes")
    columns = ["name", by, "nodes"]
    for figure in figures:
        columns += [figure, f"{figure}_ratio"]
    first = {group.name: group for group in profiles[0].audit.by(by)}
    rows = []
    for profile in profiles:
        for group in profile.audit.by(by):
            row: list[Cell] = [profile.name, group.name, group.nodes]
            for figure in figures:
                other = getattr(first.get(group.name), figure, None)
                row += [getattr(group, figure), _decimal(ratio(getattr(group, figure), other))]
            rows.append(row)
    return tables.as_csv(columns, rows)


def _decimal(number: Fraction | None) -> Decimal | None:
    return None if number is None else round(Decimal(number.numerator) / Decimal(number.denominator), 4)


_Rows = Sequence[tuple[str, Sequence[str]]]
"""Each with its name and a text for each network."""


def _beside(key: str, heads: Sequence[str], rows: _Rows, page: tuple[int | None, int], title: str = "") -> list[Sheet]:
    """A column for each network, as many beside each other as fit in the width; the others below."""
    width, gap = page
    widths = [max(map(len, [head, *(texts[place] for _, texts in rows)])) for place, head in enumerate(heads)]
    first = max(map(len, [key, *(name for name, _ in rows)]))
    fit = len(heads) if width is None else max(1, (width - first) // (max(widths) + gap))
    parts = [range(start, min(start + fit, len(heads))) for start in range(0, len(heads), fit)]
    return [
        Sheet(
            "" if number else title,
            (key, *(heads[place] for place in places)),
            tuple((name, *(texts[place] for place in places)) for name, texts in rows),
            left=frozenset({key}),
        )
        for number, places in enumerate(parts)
    ]


def _figure_rows(profiles: Sequence[Profile]) -> _Rows:
    inputs = [size_text(_input(profile)) for profile in profiles]
    rows: list[tuple[str, Sequence[str]]] = [
        ("input", [inputs[0], *(_beside_ratio(text, None) for text in inputs[1:])])
    ]
    first = profiles[0].figures
    for name, label in FIGURES.items():
        texts = []
        for number, profile in enumerate(profiles):
            figure = profile.figures[name]
            text = _field(profile) if name == "field" else _short(name, figure)
            texts.append(_beside_ratio(text, ratio(figure, first[name])) if number else text)
        rows.append((label, texts))
    return rows


def _group_cells(groups: Sequence[Mapping[str, Group]], name: str, figure: str) -> list[str]:
    texts = []
    first = getattr(groups[0].get(name), figure, None)
    for number, each in enumerate(groups):
        if (group := each.get(name)) is None:
            texts.append(_beside_ratio("-", None) if number else "-")
            continue
        text = _short(figure, getattr(group, figure))
        texts.append(_beside_ratio(text, ratio(getattr(group, figure), first)) if number else text)
    return texts


def _field(profile: Profile) -> str:
    height, width = profile.output.unclipped
    if height is None and width is None:
        return "unbounded"
    return "x".join("unbounded" if side is None else str(side) for side in (height, width))


def _short(figure: str, number: int | None) -> str:
    return human_bytes(number or 0) if figure.endswith("bytes") else human(number or 0)


def _beside_ratio(text: str, times: Fraction | None) -> str:
    if times is None:
        shown = "-"
    elif 0 < times < Fraction(1, 100):
        shown = "<0.01x"
    else:
        shown = f"{float(times):.2f}x" if times < 1000 else f"{float(times):,.0f}x"
    return f"{text} {shown:>6}"


def _merged(orders: Sequence[Sequence[str]]) -> list[str]:
    """All names once: those that are new in a later list stand after the one that they follow there."""
    names: list[str] = []
    for order in orders:
        known = set(names)
        new: dict[str, list[str]] = {}
        last = ""
        for name in order:
            if name in known:
                last = name
            else:
                new.setdefault(last, []).append(name)
        names = [*new.get("", ()), *(each for name in names for each in (name, *new.get(name, ())))]
    return names


def _diff_sheet(diff: Diff, heads: Sequence[str], depth: int) -> Sheet:
    changes = diff.grouped(depth)
    rows = [
        (
            each.kind,
            _place(each),
            _details(each),
            _signed(each.params, human),
            _signed(each.macs, human),
            _signed(each.activation_bytes, human_bytes),
        )
        for each in changes
    ]
    one, other = diff.first, diff.second
    sums = (
        _signed(other.params - one.params, human),
        _signed(other.macs - one.macs, human),
        _signed(other.activation_bytes - one.activation_bytes, human_bytes),
    )
    kinds = dict.fromkeys(each.kind for each in changes)
    equal = f"{diff.equal} layer{'s' * (diff.equal != 1)} ({diff.equal_nodes} nodes) are equal in both"
    outputs = () if diff.outputs else ("the outputs are not those of equal nodes",)
    return Sheet(
        f"from {heads[0]} to {heads[1]}",
        ("change", "layer", "what", "parameters", "MACs", "activations"),
        (*rows, ("all", None, None, *sums)) if rows else (),
        notes=(equal if rows else f"no layer differs: {equal}", *outputs, *(CHANGES[kind] for kind in kinds)),
        left=frozenset({"change", "layer", "what"}),
    )


def _place(change: LayerChange) -> str:
    if change.kind == "moved":
        return f"{change.first} -> {change.second}"
    return change.first or change.second or ""


def _details(change: LayerChange) -> str:
    texts: Iterable[str] = change.details
    if len(change.details) > MOST_DETAILS:
        texts = (*change.details[:MOST_DETAILS], f"and {len(change.details) - MOST_DETAILS} more")
    layers = f"{change.layers} layers" if change.layers > 1 else ""
    return ": ".join(filter(None, (layers, "; ".join(texts))))


def _signed(number: int, text: Callable[[int], str]) -> str:
    return f"{'+' * (number > 0)}{text(number)}" if number else "0"
