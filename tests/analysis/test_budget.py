"""Budgets: how they are written, and whether a network keeps them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from mgcompile.analysis import audit_graph, tables
from mgcompile.analysis.budget import (
    FIGURE_WORDS,
    FIGURES,
    Budget,
    Kept,
    budget_record,
    budget_sheet,
    check_budgets,
    figure_of,
    figures_of,
    parse_budget,
    percent,
)
from mgcompile.analysis.memory import memory
from mgcompile.errors import ShapeError
from mgcompile.spec import load, zoo_names

PAPER = [name for name in zoo_names() if not name.startswith("beyond/")]


@pytest.mark.parametrize(
    ("text", "figure", "limit"),
    [
        ("params=9M", "params", 9_000_000),
        ("params=9000000", "params", 9_000_000),
        ("macs=200M", "macs", 200_000_000),
        ("macs=1.5G", "macs", 1_500_000_000),
        ("flops=0.25T", "flops", 250_000_000_000),
        ("params=12k", "params", 12_000),
        ("params=1.0005k", "params", 1_000),
        ("memory=2GiB", "memory", 2 * 2**30),
        ("memory=2.5GiB", "memory", 5 * 2**29),
        ("memory=2GB", "memory", 2 * 10**9),
        ("activations=1.5kB", "activations", 1_500),
        ("activations=1.5KiB", "activations", 1_536),
        ("training-memory=1TiB", "training-memory", 2**40),
        ("training-memory=77B", "training-memory", 77),
        ("memory=0.1MiB", "memory", 104_857),  # 104857.6, rounded down
        (" params = 9 M ", "params", 9_000_000),
        ("params=123456789012345678901234567890", "params", 123456789012345678901234567890),
    ],
)
def test_budgets_are_read_exactly(text: str, figure: str, limit: int) -> None:
    budget = parse_budget(text)
    assert (budget.figure, budget.limit) == (figure, limit)
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("9M", "expected FIGURE=LIMIT such as params=9M"),
        ("parms=9M", "no figure is called 'parms'; did you mean params?"),
        ("MACs=9M", "did you mean macs?"),
        ("training_memory=1GiB", "did you mean training-memory?"),
        ("time=9", "there are params, macs, flops, activations, memory, training-memory"),
        ("params=", "'' is no limit; expected a number with a unit, such as 9M"),
        ("params=many", "'many' is no limit"),
        ("params=-9M", "'-9M' is no limit"),
        ("params=1e9", "'1e9' is no limit"),
        ("params=9,5M", "'9,5M' is no limit"),
        ("params=٩M", "is no limit"),
        ("memory=", "such as 2.5GiB"),
        ("params=9m", "'m' is no unit of params; did you mean M?"),
        ("params=9K", "did you mean k?"),
        ("params=9MB", "'MB' is no unit of params; expected one of k, M, G, T"),
        ("memory=2gib", "did you mean GiB?"),
        ("memory=2G", "'G' is no unit of memory; did you mean GB or GiB?"),
        ("memory=2", "memory is in bytes, and the limit has no unit; expected one of B, kB, MB"),
        ("params=0", "a limit of less than one"),
        ("memory=0.4B", "a limit of less than one"),
    ],
)
def test_what_is_no_budget_says_what_was_expected(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"budget|figure|limit|unit") as caught:
        parse_budget(text)
    assert said in str(caught.value)
    assert repr(text) in str(caught.value)


def test_every_figure_has_words_and_is_written_as_it_is_read() -> None:
    assert FIGURE_WORDS.keys() == set(FIGURES)
    for figure in FIGURES:
        for limit in (1, 999, 1000, 1024, 1500, 2**20, 10**6, 3 * 2**29, 10**12, 2**40 + 1):
            budget = Budget(figure, limit)
            assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize("name", PAPER)
def test_figures_are_those_of_the_audit_and_of_the_memory(name: str) -> None:
    graph = load(name).graph
    audit, taken = audit_graph(graph), memory(graph, batch=3)
    assert figures_of(graph, FIGURES, batch=3) == {
        "params": audit.params,
        "macs": audit.macs,
        "flops": audit.flops,
        "activations": audit.activation_bytes,
        "memory": taken.inference_total,
        "training-memory": taken.training_total,
    }


def test_the_batch_is_of_memories_alone_and_the_size_of_all_but_parameters() -> None:
    graph = load("cifar100/mg-6").graph
    once, often = figures_of(graph, FIGURES), figures_of(graph, FIGURES, batch=8)
    changed = {figure for figure in FIGURES if once[figure] != often[figure]}
    assert changed == {"memory", "training-memory"}
    large = figures_of(graph, FIGURES, (64, 48))
    assert {figure for figure in FIGURES if once[figure] != large[figure]} == set(FIGURES) - {"params"}
    half = figures_of(graph, FIGURES, bytes_per_element=2, optimizer="none")
    assert {figure for figure in FIGURES if once[figure] == half[figure]} == {"params", "macs", "flops"}
    assert half["activations"] * 2 == once["activations"]
    assert figure_of(graph, "memory", batch=8) == often["memory"]
    assert list(figures_of(graph, ("macs", "params"))) == ["macs", "params"]


def test_a_size_at_which_a_grid_vanishes_is_refused() -> None:
    graph = load(
        {"input": {"size": 32}, "layers": [{"conv": {"channels": 8, "kernel": 5, "padding": 0}}]},
    ).graph
    for figure in FIGURES:
        with pytest.raises(ShapeError, match="too small"):
            figure_of(graph, figure, (4, 4))


def test_a_budget_is_kept_up_to_its_limit() -> None:
    graph = load("imagenet/r-mg-34").graph
    params = audit_graph(graph).params
    exact, less = check_budgets(graph, [Budget("params", params), Budget("params", params - 1)])
    assert exact.ok
    assert not less.ok
    assert exact.message == "R-MG-34: 32,899,176 parameters are within the budget of 32,899,176 (params=32899176)"
    (over,) = check_budgets(graph, [parse_budget("params=9M")])
    assert over.message == "R-MG-34: 32,899,176 parameters are over the budget of 9,000,000 (params=9M)"
    assert check_budgets(graph, []) == ()


def test_percent_says_all_only_of_what_is_all() -> None:
    for limit in (1, 7, 1000, 10**6 + 3):
        for found in (1, limit - 1, limit, limit + 1, 3 * limit + 1):
            shown = Fraction(percent(found, limit))
            assert (shown <= 100) == (found <= limit)
            assert (shown == 100) <= (found == limit)
            assert abs(shown - Fraction(100 * found, limit)) < Fraction(1, 10)


def test_budgets_as_a_table_and_as_a_record() -> None:
    kept = (
        Kept("R-MG-34", Budget("params", 9_000_000), 32_899_176),
        Kept("R-MG-34", Budget("memory", 2**30), 2**30),
    )
    sheet = budget_sheet(kept)
    assert sheet.rows == (
        ("R-MG-34", "params", 9_000_000, 32_899_176, "365.6 %", "OVER"),
        ("R-MG-34", "memory (bytes)", 2**30, 2**30, "100.0 %", "yes"),
    )
    words = ["R-MG-34", "memory", "(bytes)", "1,073,741,824", "1,073,741,824", "100.0", "%", "yes"]
    assert tables.as_text([sheet]).splitlines()[-1].split() == words
    assert budget_record(kept) == [
        {"network": "R-MG-34", "figure": "params", "limit": 9_000_000, "found": 32_899_176, "ok": False},
        {"network": "R-MG-34", "figure": "memory", "limit": 2**30, "found": 2**30, "ok": True},
    ]
