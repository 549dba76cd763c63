"""The reports of a small network, word for word."""

from __future__ import annotations

import json

import pytest

from mgcompile.analysis.cost import CONVENTIONS, Audit, audit_graph
from mgcompile.analysis.report import as_csv, as_json, as_markdown, as_table
from tests.analysis.networks import every_op, small

TABLE = """\
network   input         params               MACs              FLOPs  activations
---------------------------------------------------------------------------------
small       8x6            188      5.61 k  5,608    12.33 k  12,334     3.62 KiB
every-op  21x26  2.94 k  2,936  158.47 k  158,471  367.42 k  367,417    97.22 KiB

small by level
level    nodes  params           MACs            FLOPs  activations
-------------------------------------------------------------------
level 0      5     120  5.18 k  5,184  11.19 k  11,188     2.83 KiB
level 1      4      18            384    1.06 k  1,056        768 B
vectors      2      50             40               90         40 B
"""

CONVENTION_LINES = """\
small: outputs classes 10; smallest input 1x1
small: not counted: normalising the weights of a weighted sum (a few operations a node): weighted sum, 1 node
parameters: weights, biases and the affine vectors of normalisations, shared ones once; running statistics are buffers
and do not count
MACs: multiply-accumulates of convolutions and linear layers, padding counted like data, one sample
FLOPs: 2 x MACs + elementwise work of one sample (an element: bias 1, batch norm 2, ReLU 1, addition 1, k x k max pool
k*k - 1); batch norm as in inference
activations: bytes of the outputs of all nodes, the input's too, of one sample, as if none were freed; slices, crops and
flattened grids are views of memory that is counted already
"""

MARKDOWN = """\
| network | input | params | MACs | FLOPs | activations |
| :--- | ---: | ---: | ---: | ---: | ---: |
| small | 8x6 | 188 | 5.61 k<br>5,608 | 12.33 k<br>12,334 | 3.62 KiB |

### small by layer

| layer | nodes | params | MACs | FLOPs | activations |
| :--- | ---: | ---: | ---: | ---: | ---: |
| input | 1 | 0 | 0 | 0 | 576 B |
| stem | 3 | 120 | 5.18 k<br>5,184 | 11.14 k<br>11,136 | 2.25 KiB |
| pool | 1 | 0 | 0 | 144 | 192 B |
| body | 2 | 16 | 384 | 768 | 384 B |
| head | 4 | 52 | 40 | 286 | 248 B |

- small: outputs classes 10; smallest input 1x1
"""

CSV = """\
name,height,width,nodes,params,macs,flops,activation_bytes,buffers,smallest_height,smallest_width
small,8,6,11,188,5608,12334,3704,9,1,1
every-op,21,26,39,2936,158471,367417,99556,45,5,5
"""

CSV_BY_LAYER = """\
name,height,width,layer,nodes,params,macs,flops,activation_bytes
small,8,6,input,1,0,0,0,576
small,8,6,stem,3,120,5184,11136,2304
small,8,6,pool,1,0,0,144,192
small,8,6,body,2,16,384,768,384
small,8,6,head,4,52,40,286,248
"""


@pytest.fixture(scope="module")
def audits() -> list[Audit]:
    return [audit_graph(small()), audit_graph(every_op())]


def test_table(audits: list[Audit]) -> None:
    assert as_table(audits, "level").startswith(TABLE)


def test_conventions_are_printed(audits: list[Audit]) -> None:
    assert as_table(audits[:1]).endswith("\n\n" + CONVENTION_LINES)


def test_a_narrow_table_puts_exact_numbers_below_and_stays_in_width(audits: list[Audit]) -> None:
    lines = as_table(audits, "layer", width=80).splitlines()
    assert lines[2:4] == [
        "small       8x6     188    5.61 k   12.33 k     3.62 KiB",
        "                            5,608    12,334",
    ]
    assert max(map(len, lines)) <= 80


def test_the_largest_published_network_fits_80_characters() -> None:
    audit = Audit("R-PMG-30-SEG", (224, 224), 138357544, 15470264320, 30940528640, 10**9, 0, (), (), (1, 1), {}, 4)
    assert "15,470,264,320  30,940,528,640" in as_table([audit], width=80)


def test_groups_by_depth(audits: list[Audit]) -> None:
    assert "stem.conv" not in as_table(audits, "layer")
    assert "stem.conv" in as_table(audits, "layer", depth=2)


def test_markdown(audits: list[Audit]) -> None:
    assert as_markdown(audits[:1], "layer").startswith(MARKDOWN)


def test_csv(audits: list[Audit]) -> None:
    assert as_csv(audits) == CSV
    assert as_csv(audits[:1], "layer") == CSV_BY_LAYER


def test_json(audits: list[Audit]) -> None:
    document = json.loads(as_json(audits, "layer"))
    assert document["conventions"] == CONVENTIONS
    record = document["audits"][0]
    groups = record.pop("groups")
    assert record == {
        "name": "small",
        "size": [8, 6],
        "smallest_size": [1, 1],
        "nodes": 11,
        "params": 188,
        "buffers": 9,
        "macs": 5608,
        "flops": 12334,
        "activation_bytes": 3704,
        "bytes_per_element": 4,
        "outputs": {"classes": [10]},
        "uncounted": [
            {
                "op": "weighted sum",
                "why": "normalising the weights of a weighted sum (a few operations a node)",
                "nodes": 1,
            }
        ],
    }
    assert groups[1] == {
        "name": "stem",
        "nodes": 3,
        "params": 120,
        "macs": 5184,
        "flops": 11136,
        "activation_bytes": 2304,
    }


def test_json_without_groups(audits: list[Audit]) -> None:
    assert [record["groups"] for record in json.loads(as_json(audits))["audits"]] == [[], []]
