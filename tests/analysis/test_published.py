"""The paper's figures against those recomputed from the definitions, to the last digit."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from mgcompile.analysis.cost import Audit
from mgcompile.analysis.published import (
    REMARKS,
    Comparison,
    as_csv,
    as_json,
    as_markdown,
    as_table,
    compare_published,
    published_figures,
)

COUNTS = Path(__file__).parents[1] / "data" / "counts.csv"


def counted() -> dict[str, Audit]:
    lines = [line for line in COUNTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {
        f"{row['task']}/{row['model'].lower()}": audit(params=int(row["params"]), macs=int(row["macs"]))
        for row in csv.DictReader(lines)
    }


def audit(params: int, macs: int) -> Audit:
    return Audit("", (1, 1), params, macs, 0, 0, 0, (), (), (1, 1), {}, 4)


@pytest.fixture(scope="module")
def comparisons() -> tuple[Comparison, ...]:
    return compare_published(counted())


def of(comparisons: tuple[Comparison, ...], zoo: str) -> Comparison:
    return next(comparison for comparison in comparisons if comparison.published.zoo == zoo)


def test_every_line_of_the_tables_is_there_and_has_a_network(comparisons: tuple[Comparison, ...]) -> None:
    tasks = [line.task for line in published_figures()]
    counts = {task: tasks.count(task) for task in dict.fromkeys(tasks)}
    assert counts == {"cifar100": 22, "imagenet-10crop": 6, "imagenet-1crop": 6, "mnist-seg": 6, "mnist-spatial": 5}
    assert tuple(comparison.published for comparison in comparisons) == published_figures()


def test_what_is_not_printed_is_none() -> None:
    line = next(line for line in published_figures() if line.task == "mnist-spatial")
    assert (line.model, line.params_m, line.macs_m, line.error) == ("U-NET-11", Decimal("3.79"), None, Decimal("37.55"))
    assert (line.top5_error, line.iou) == (None, Decimal("12.20"))


def test_both_imagenet_tests_are_of_one_network() -> None:
    names = [line.zoo for line in published_figures() if line.model == "R-PMG-30-SEG"]
    assert names == ["imagenet/r-pmg-30-seg"] * 2


def test_every_difference_has_its_remark_and_nothing_else_has_one(comparisons: tuple[Comparison, ...]) -> None:
    differing = {
        (comparison.published.zoo, figure)
        for comparison in comparisons
        for figure in ("params", "macs")
        if getattr(comparison, f"{figure}_difference")
    }
    assert differing == set(REMARKS)
    for comparison in comparisons:
        assert bool(comparison.remark) == (not comparison.agrees)
        assert comparison.unexplained == ()


def test_which_networks_differ(comparisons: tuple[Comparison, ...]) -> None:
    assert list(dict.fromkeys(each.published.zoo for each in comparisons if not each.agrees)) == [
        "cifar100/vgg-6",
        *(f"cifar100/mg-{n}" for n in (6, 11, 16, 21)),
        "cifar100/res-12",
        *(f"cifar100/r-mg-{n}" for n in (12, 22, 32, 42)),
        *("imagenet/vgg-16", "imagenet/resnet-50", "imagenet/wrn-34-2.0", "imagenet/r-pmg-30-seg"),
        *("mnist-spatial/sg-11", "mnist-spatial/pmg-11"),
    ]


@pytest.mark.parametrize(
    ("zoo", "params", "macs"),
    [
        ("cifar100/res-12", "0", "0.04"),
        ("cifar100/r-mg-32", "0", "12.67"),
        ("imagenet/r-mg-34", "0", "0"),
        ("imagenet/wrn-34-2.0", "37.4", "0"),
        ("imagenet/r-pmg-30-seg", "0", "6750"),
        ("imagenet/resnet-50", "0", "-370"),
        ("mnist-spatial/sg-11", "-0.01", None),
    ],
)
def test_differences_are_taken_at_the_printed_digits(
    comparisons: tuple[Comparison, ...], zoo: str, params: str, macs: str | None
) -> None:
    comparison = of(comparisons, zoo)
    assert comparison.params_difference == Decimal(params)
    assert comparison.macs_difference == (None if macs is None else Decimal(macs))


def test_one_more_than_what_rounds_to_the_printed_digits_differs() -> None:
    just = {"cifar100/vgg-11": audit(params=9_464_999, macs=228_314_999)}
    assert compare_published(just)[0].agrees
    more = {"cifar100/vgg-11": audit(params=9_465_000, macs=228_315_000)}
    (comparison,) = compare_published(more)
    assert (comparison.params_difference, comparison.macs_difference) == (Decimal("0.01"), Decimal("0.01"))


def test_giga_figures_were_printed_with_two_digits() -> None:
    for macs, agrees in ((3_664_999_999, True), (3_665_000_000, False), (3_654_999_999, False)):
        (comparison, _) = compare_published({"imagenet/resnet-34-c": audit(21_800_000, macs)})
        assert comparison.agrees is agrees


def test_a_difference_that_nobody_knows_is_said_to_be_unexplained() -> None:
    changed: Mapping[str, Audit] = {"imagenet/vgg-16": replace(counted()["imagenet/vgg-16"], macs=1)}
    comparison = compare_published(changed)[0]
    assert comparison.unexplained == ("macs",)
    assert "138.4 M" in comparison.remark
    assert "macs differ from what is published, and no reason is known" in as_table([comparison], width=200)


def test_table(comparisons: tuple[Comparison, ...]) -> None:
    chosen = [of(comparisons, zoo) for zoo in ("cifar100/pmg-9", "cifar100/mg-6", "imagenet/r-pmg-30-seg")]
    table = as_table(chosen).splitlines()
    assert [line.split() for line in table[2:5]] == [
        ["cifar100", "PMG-9", "8.46", "8.46", "0", "186.21", "186.21", "0", "30.61", "-", "-"],
        ["cifar100", "MG-6", "8.34", "8.34", "0", "116.63", "116.75", "+0.12", "32.08", "-", "-"],
        ["imagenet-10crop", "R-PMG-30-SEG", "31.9", "31.9", "0", "2770", "9520", "+6750", "23.60", "6.89", "-"],
    ]
    assert table[5].startswith("cifar100/mg-6: the paper's MACs are those of a variant")


def test_one_remark_for_all_that_share_it(comparisons: tuple[Comparison, ...]) -> None:
    text = as_markdown(comparisons)
    assert text.count("fifth block") == 2
    assert "- mnist-spatial/sg-11, mnist-spatial/pmg-11: the paper repeats the count" in text


def test_csv(comparisons: tuple[Comparison, ...]) -> None:
    assert as_csv([of(comparisons, "imagenet/r-mg-34")]) == (
        "task,model,network,published_params_m,params,params_difference_m,published_macs_m,macs,macs_difference_m,"
        "error,top5_error,iou,remark\n"
        "imagenet-10crop,R-MG-34,imagenet/r-mg-34,32.9,32899176,0.0,5760,5760277760,0,22.42,6.12,,\n"
    )


def test_json(comparisons: tuple[Comparison, ...]) -> None:
    (record,) = json.loads(as_json([of(comparisons, "mnist-seg/pmg-11")]))["comparisons"]
    assert record == {
        "task": "mnist-seg",
        "model": "PMG-11",
        "network": "mnist-seg/pmg-11",
        "published_params_m": 0.61,
        "params": 605718,
        "params_difference_m": 0.0,
        "published_macs_m": None,
        "macs": 1606537728,
        "macs_difference_m": None,
        "error": 14.75,
        "top5_error": None,
        "iou": 61.88,
        "remark": "",
        "agrees": True,
    }
