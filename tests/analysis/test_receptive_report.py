"""Receptive fields as text, as flat lines, as a record."""

from __future__ import annotations

import csv
import json
from typing import Literal

import pytest

from mgcompile import load
from mgcompile.analysis import FIELD_CONVENTIONS, ReceptiveField, receptive_field
from mgcompile.analysis.receptive_report import CURVE_ROWS, receptive_csv, receptive_record, receptive_sheets
from mgcompile.analysis.tables import as_json, as_markdown, as_text
from mgcompile.graph import Graph
from mgcompile.graph.builder import GraphBuilder
from mgcompile.graph.ops import Conv, Input, Product
from mgcompile.graph.ops.pool import GlobalPool
from tests.analysis.networks import every_op, node


def deep(layers: int, size: tuple[int, int] = (64, 32)) -> ReceptiveField:
    builder, last = GraphBuilder("deep", 1, size), "input"
    for i in range(layers):
        last = builder.add(f"c{i}", Conv(1), [last], 0, layer=f"c{i}")
    return receptive_field(builder.graph({"out": last}))


def test_a_table_by_hand() -> None:
    outputs, curve, _ = receptive_sheets(deep(3))
    assert outputs.title == "deep, 64x32: receptive field"
    assert outputs.columns == ("output", "field", "of image", "unclipped", "stride", "centre", "depth", "covered at")
    # 7 * 7 of 64 * 32 pixels; the first cell is in the middle of what it sees.
    assert outputs.rows == (("out", "7x7", "2.4 %", "7x7", "1x1", "0, 0", 3, None),)
    assert outputs.notes == ("the cell in the middle of no grid depends on the whole image",)
    assert curve.rows == (
        (0, "1x1", "< 0.1 %", "1x1"),
        (1, "3x3", "0.4 %", "3x3"),
        (2, "5x5", "1.2 %", "5x5"),
        (3, "7x7", "2.4 %", "7x7"),
    )


def test_where_the_image_is_covered() -> None:
    found = deep(40)
    outputs, curve, _ = receptive_sheets(found)
    # The middle of 64 rows is row 32, which is 32 from the first.
    assert outputs.notes == ("the image is first covered at depth 32 of 40, by c31",)
    assert outputs.rows[0][-2:] == (40, 32)
    assert (len(curve.rows), curve.rows[0][0], curve.rows[-1][0]) == (CURVE_ROWS, 0, 40)
    assert curve.notes == ("24 of the 41 depths at which the field grows; JSON has all",)


def test_what_is_nearly_all_is_not_all() -> None:
    outputs, _, _ = receptive_sheets(deep(31, size=(64, 64)))
    assert outputs.rows[0][1:3] == ("63x63", "96 %")
    outputs, _, _ = receptive_sheets(deep(499, size=(1000, 1000)))
    assert outputs.rows[0][1:3] == ("999x999", "99 %")


def test_unbounded_along_one_axis_or_both() -> None:
    nodes = [node("input", Input(1)), node("pool", GlobalPool(), "input"), node("gate", Product(), "input", "pool")]
    outputs, _, _ = receptive_sheets(receptive_field(Graph("g", nodes, {"out": "gate"}, size=(8, 8))))
    assert outputs.rows == (("out", "8x8", "100 %", "unbounded", "1x1", "-", 0, 0),)


@pytest.mark.parametrize("by", ["layer", "level"])
def test_groups(by: Literal["layer", "level"]) -> None:
    found = receptive_field(every_op())
    *_, groups, _ = receptive_sheets(found, by)
    assert [row[0] for row in groups.rows] == [group.name for group in found.by(by)]
    assert groups.columns[0] == by
    lines = list(csv.DictReader(receptive_csv([found, found], by).splitlines()))
    assert [line[by] for line in lines] == [group.name for group in found.by(by)] * 2
    assert sum(int(line["nodes"]) for line in lines) == 2 * len(found.rows)
    record = receptive_record(found, by)
    assert [group["name"] for group in record["groups"]] == [group.name for group in found.by(by)]  # type: ignore[attr-defined]


def test_flat_lines() -> None:
    found = receptive_field(every_op())
    maps, classes = csv.DictReader(receptive_csv([found]).splitlines())
    assert (maps["output"], maps["node"], maps["height"], maps["width"]) == ("maps", "d.maps", "21", "26")
    assert maps["unclipped_height"] == ""
    assert (maps["stride_height"], maps["stride_width"]) == ("2", "2")
    assert classes["stride_height"] == classes["centre_height"] == ""
    # An upsampled image has cells between pixels.
    (line,) = csv.DictReader(receptive_csv([receptive_field(load("cifar100/vgg-6").graph)]).splitlines())
    assert line["covered_at"] == line["depth"]


def test_a_record_for_programs() -> None:
    found = receptive_field(every_op())
    record = json.loads(as_json(receptive_record(found)))
    assert (record["size"], record["depth"], record["covered_at"]) == ([21, 26], found.depth, found.covered_at)
    assert [each["node"] for each in record["nodes"]] == [row.node for row in found.rows]
    assert [each["depth"] for each in record["curve"]] == [point.depth for point in found.curve]
    assert record["groups"] == []
    first = record["nodes"][1]
    assert (first["node"], first["size"], first["stride"], first["centre"]) == ("a.conv", [3, 5], [2, 2], [0, 0])
    assert {each["name"] for each in record["outputs"]} == {"maps", "classes"}


def test_text_and_markdown_hold_everything() -> None:
    found = receptive_field(load("imagenet/r-mg-34").graph)
    sheets = receptive_sheets(found, "level")
    text, markdown = as_text(sheets), as_markdown(sheets)
    for meaning in FIELD_CONVENTIONS.values():
        assert meaning.split(":")[0] in text
        assert meaning in markdown
    assert "R-MG-34: receptive field by level" in text
    assert text.isascii()
    assert max(map(len, as_text(sheets, width=80).splitlines())) <= 80
