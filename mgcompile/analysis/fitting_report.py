"""What a fit to budgets found, as tables for people and as a record for programs. Nothing here prints."""

from __future__ import annotations

from collections.abc import Sequence

from mgcompile.analysis.budget import Budget, Kept, budget_record, budget_sheet, percent
from mgcompile.analysis.fitting import Axis, Fit, OutOfReachError, Point
from mgcompile.analysis.tables import Cell, Sheet, size_text
from mgcompile.graph.types import Size

__all__ = ["fit_record", "fit_sheets", "out_of_reach"]


def fit_sheets(name: str, size: Size, axes: Sequence[Axis], kept: Sequence[Kept], found: Fit) -> list[Sheet]:
    """The params that were chosen, the budgets beside what is reached, what one step more would take, the next best."""
    params = Sheet(
        f"{name}, input {size_text(size)}",
        ("param", "was", "chosen", "range"),
        tuple(
            (axis.name, axis.default, value, _range(axis))
            for axis, value in zip(axes, found.chosen.values, strict=True)
        ),
        left=frozenset({"param", "range"}),
    )
    budgets = [each.budget for each in kept]
    sheets = [params, budget_sheet(kept), _points("one step more", axes, budgets, found.beyond)]
    if found.others:
        sheets.append(_points("next best", axes, budgets, found.others))
    if found.way == "all":
        how = f"all {found.measured:,} networks were looked at"
    else:
        names = " and ".join(axis.name for axis in axes)
        how = f"{found.measured:,} networks were looked at; among them all figures grow with {names}"
    ends = [axis.name for axis, point in zip(axes, found.beyond, strict=True) if point is None]
    notes = [f"{end}: no larger value was looked at" for end in ends]
    return [*sheets, Sheet("", (), (), notes=(*notes, how))]


def fit_record(name: str, size: Size, axes: Sequence[Axis], kept: Sequence[Kept], found: Fit) -> dict[str, object]:
    """The same for JSON, in exact integers; `one_step_more` has an entry for each param, null at its end."""
    budgets = [each.budget for each in kept]
    return {
        "name": name,
        "size": list(size),
        **_point(axes, budgets, found.chosen),
        "ranges": {axis.name: {"was": axis.default, "least": axis.values[0], "most": axis.values[-1]} for axis in axes},
        "budgets": budget_record(kept),
        "one_step_more": [None if point is None else _point(axes, budgets, point) for point in found.beyond],
        "next_best": [_point(axes, budgets, point) for point in found.others],
        "networks": found.measured,
        "way": found.way,
    }


def out_of_reach(error: OutOfReachError, axes: Sequence[Axis], budgets: Sequence[Budget]) -> str:
    """That no value is within the budgets, and what the nearest takes."""
    looked = " and ".join(f"{axis.name} from {axis.values[0]:,} to {axis.values[-1]:,}" for axis in axes)
    where = _settings(axes, error.nearest)
    kept = [Kept(where, budget, found) for budget, found in zip(budgets, error.nearest.found, strict=True)]
    over = "; ".join(each.message for each in kept if not each.ok)
    within = "budget" if len(budgets) == 1 else "budgets"
    hint = "; --range looks further" if len(axes) > 1 else ""
    return f"no {looked} is within the {within}; the nearest is {over}{hint}"


def _points(title: str, axes: Sequence[Axis], budgets: Sequence[Budget], points: Sequence[Point | None]) -> Sheet:
    rows = []
    for point in points:
        if point is not None:
            cells: list[Cell] = [_settings(axes, point)]
            for budget, found in zip(budgets, point.found, strict=True):
                cells += [found, f"{percent(found, budget.limit)} %"]
            rows.append(tuple(cells))
    figures = [name for budget in budgets for name in (budget.figure, f"of {str(budget).partition('=')[2]}")]
    return Sheet(title, ("values", *figures), tuple(rows), left=frozenset({"values"}))


def _point(axes: Sequence[Axis], budgets: Sequence[Budget], point: Point) -> dict[str, object]:
    return {
        "params": dict(zip([axis.name for axis in axes], point.values, strict=True)),
        "figures": dict(zip([budget.figure for budget in budgets], point.found, strict=True)),
    }


def _settings(axes: Sequence[Axis], point: Point) -> str:
    return " ".join(f"{axis.name}={value}" for axis, value in zip(axes, point.values, strict=True))


def _range(axis: Axis) -> str:
    values = axis.values
    if not isinstance(values, range):
        return ", ".join(f"{value:,}" for value in values)
    multiples = f", multiples of {values.step}" if values.step > 1 else ""
    return f"{values[0]:,} to {values[-1]:,}{multiples}"
