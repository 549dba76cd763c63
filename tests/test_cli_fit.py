"""`mgcompile fit`: the params that meet a budget, what it refuses, what it writes."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mgcompile
from mgcompile.analysis.budget import FIGURES, Figure, figure_of, figures_of
from mgcompile.analysis.fitting import Axis
from mgcompile.analysis.fitting import fit as search
from mgcompile.cli.fit import BUDGETS, fit
from mgcompile.spec import load, zoo_names

SMALL = """\
name: small
input: {channels: 3, size: 32}
params:
  width: {default: 8, min: 2, max: 64, help: channels}
  n: {default: 1, min: 1}
  act: relu
  rate: 0.5
  bias: true
  unused: 3
  groups: {default: 4, choices: [1, 2, 4, 8]}
layers:
  - conv: {channels: "${width}"}
    repeat: "${n}"
  - classify: 10
"""

FAMILIES = [
    *("cifar100/mg-6", "cifar100/r-mg-12", "cifar100/pmg-9", "cifar100/r-pmg-16", "cifar100/vgg-6", "cifar100/res-12"),
    *("mnist-seg/pmg-11", "mnist-seg/r-pmg-20", "mnist-seg/sg-11", "mnist-spatial/r-sg-20"),
    *("mnist-seg/u-mg-11", "mnist-spatial/u-net-11"),
    *("imagenet/r-mg-34", "imagenet/r-pmg-30-seg", "imagenet/resnet-34-c", "imagenet/resnet-50"),
    *("imagenet/vgg-16", "imagenet/wrn-34-2.0"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    return tmp_path


def run(*args: str, input: str | None = None) -> Result:
    from mgcompile.cli.console import Commands

    group = Commands("mgcompile", commands={"fit": fit})
    result = CliRunner().invoke(group, ["fit", *args], input=input, prog_name="mgcompile")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def found(*args: str) -> dict[str, Any]:
    result = run(*args, "--format", "json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_an_option_for_each_figure() -> None:
    assert set(BUDGETS) == set(FIGURES)
    text = run("--help").stdout
    for figure, example in BUDGETS.items():
        assert f"--{figure} N" in text
        assert f"such as {example}." in " ".join(text.split())


# --- the networks that ship


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_meets_budgets(name: str) -> None:
    spec = load(name)
    param = spec.document.params["width"]
    axis = Axis("width", range(int(param.min or 1), 1_000_001), 64)

    @cache
    def figures(width: int) -> dict[Figure, int]:
        return figures_of(load(spec, params={"width": width}).graph, ("macs", "params"))

    for figure in ("macs", "params"):
        usual = figures(64)[figure]
        for percent in (30, 70, 100, 200):
            limit = usual * percent // 100
            result = search([axis], lambda values, figure=figure: (figures(*values)[figure],), [limit])
            ((width,), (reached,)), (more,) = (result.chosen.values, result.chosen.found), result.beyond
            assert more is not None
            assert reached <= limit < more.found[0]
            assert more.values == (width + 1,)
            # A step of the width is 2 / width of the figure; where all divisions come out even, up to twice that.
            assert limit - reached < limit * min(4 / width, 0.06)
            assert result.measured < 24
            if percent == 100:
                assert (width, reached) == (64, usual)


def test_what_is_found_is_what_the_network_takes() -> None:
    usual = figure_of(load("imagenet/r-mg-34").graph, "macs")
    result = found("imagenet/r-mg-34", "--vary", "width", "--macs", str(usual * 7 // 10))
    reached = figure_of(load("imagenet/r-mg-34", params=result["params"]).graph, "macs")
    assert result["figures"]["macs"] == reached <= usual * 7 // 10
    (more,) = result["one_step_more"]
    assert more["figures"]["macs"] == figure_of(load("imagenet/r-mg-34", params=more["params"]).graph, "macs")
    assert result["way"] == "bisection"


def test_several_params_meet_a_budget_together() -> None:
    usual = figure_of(load("cifar100/r-mg-12").graph, "macs")
    result = found("cifar100/r-mg-12", "--vary", "n", "--vary", "width", "--macs", str(2 * usual))
    reached = result["figures"]["macs"]
    assert 0.99 * 2 * usual < reached <= 2 * usual
    assert reached == figure_of(load("cifar100/r-mg-12", params=result["params"]).graph, "macs")
    assert [more["params"] for more in result["one_step_more"]] == [
        result["params"] | {"n": result["params"]["n"] + 1},
        result["params"] | {"width": result["params"]["width"] + 1},
    ]
    assert all(more["figures"]["macs"] > 2 * usual for more in result["one_step_more"])
    assert [other["figures"]["macs"] for other in result["next_best"]] == sorted(
        [other["figures"]["macs"] for other in result["next_best"]], reverse=True
    )
    same = found("cifar100/r-mg-12", "--vary", "n", "--vary", "width", "--macs", str(usual))
    assert same["params"] == {"n": 1, "width": 64}


def test_all_budgets_are_kept(folder: Path) -> None:
    graph = load("small.yaml", params={"width": 20}).graph
    params, memory = figure_of(graph, "params"), figure_of(graph, "memory", (48, 64), batch=4)
    limits = ("--params", str(params), "--memory", f"{memory}B")
    result = found("small.yaml", "--vary", "width", *limits, "--size", "48x64", "--batch", "4")
    assert result["params"] == {"width": 20}
    assert result["size"] == [48, 64]
    assert [budget["limit"] for budget in result["budgets"]] == [params, memory]
    fewer = found("small.yaml", "--vary", "width", *limits, "--size", "48x64", "--batch", "5")
    assert fewer["params"]["width"] < 20


def test_ranges_steps_and_choices_are_respected(folder: Path) -> None:
    assert found("small.yaml", "--vary", "width", "--macs", "1T")["params"] == {"width": 64}
    assert found("small.yaml", "--vary", "width", "--macs", "1T")["one_step_more"] == [None]
    limit = str(figure_of(load("small.yaml", params={"width": 23}).graph, "macs"))
    assert found("small.yaml", "--vary", "width", "--macs", limit)["params"] == {"width": 23}
    stepped = found("small.yaml", "--vary", "width", "--macs", limit, "--step", "width=8")
    assert stepped["params"] == {"width": 16}
    assert stepped["one_step_more"][0]["params"] == {"width": 24}
    for bounds, width in (("width=4:20", 20), ("width=:9", 9), ("width=21:", 23)):
        assert found("small.yaml", "--vary", "width", "--macs", limit, "--range", bounds)["params"] == {"width": width}
    text = SMALL.replace('"${width}"}', '"${16 * groups}"}')
    (folder / "choices.yaml").write_text(text, encoding="utf-8")
    limit = str(figure_of(load("choices.yaml", params={"groups": 4}).graph, "params") + 1)
    chosen = found("choices.yaml", "--vary", "groups", "--params", limit)
    assert chosen["params"] == {"groups": 4}
    assert chosen["one_step_more"][0]["params"] == {"groups": 8}


# --- what it refuses


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ("--vary", "widht", "--macs", "1M"),
            "--vary widht: small has no such param; did you mean width? it has width",
        ),
        (("--vary", "act", "--macs", "1M"), '--vary act: expected a param that is an integer; it is "relu"'),
        (("--vary", "rate", "--macs", "1M"), "it is 0.5"),
        (("--vary", "bias", "--macs", "1M"), "it is true"),
        (("--vary", "unused", "--macs", "1M"), "small.yaml: no figure depends on unused: all are equal at 1, 3, 6"),
        (("--vary", "width", "--vary", "unused", "--macs", "1M"), "leave --vary unused away"),
        (("--vary", "width", "--set", "width=3", "--macs", "1M"), "a param is chosen or set; leave one away"),
        (("--vary", "width"), "there is no budget; expected one of --params, --macs"),
        (("--macs", "1M"), "Missing option '--vary'"),
        (("--vary", "width", "--macs", "many"), "'many' is no limit; expected a number with a unit, such as 9M"),
        (("--vary", "width", "--memory", "3G"), "did you mean GB or GiB?"),
        (("--vary", "width", "--macs", "1M", "--range", "8:9"), "expected NAME=LOW:HIGH such as width=8:256"),
        (("--vary", "width", "--macs", "1M", "--range", "width=9:8"), "9 is more than 8"),
        (("--vary", "width", "--macs", "1M", "--range", "width=1:8"), "1 is not allowed; the spec says at least 2"),
        (("--vary", "width", "--macs", "1M", "--range", "width=3:65"), "65 is not allowed"),
        (("--vary", "width", "--macs", "1M", "--range", "n=1:2"), "--range n: it does not vary; expected one of width"),
        (("--vary", "width", "--macs", "1M", "--step", "width"), "expected NAME=N such as width=8"),
        (("--vary", "width", "--macs", "1M", "--step", "width=100"), "no value from 2 to 64 is a multiple of 100"),
        (("--vary", "width", "--macs", "1M", "-o", "fitted.txt"), "expected .yaml, .yml or .json"),
        (("--vary", "width", "--macs", "1M", "-o", "no/fitted.yaml"), "there is no folder no"),
        (
            ("--vary", "width", "--macs", "1M", "-o", "./small.yaml"),
            "it would take the place of small.yaml, which is read",
        ),
        (("--vary", "width", "--macs", "1M", "--set", "n=0"), "at least 1"),
        (("--vary", "width", "--macs", "1M", "--batch", "2"), "--batch goes with --memory"),
        (("--vary", "width", "--macs", "1M", "--batch", "0"), "0 is not in the range"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, args: tuple[str, ...], said: str) -> None:
    result = run("small.yaml", *args)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_budget_out_of_reach_names_the_nearest(folder: Path) -> None:
    least = figure_of(load("small.yaml", params={"width": 2}).graph, "params")
    result = run("small.yaml", "--vary", "width", "--params", str(least - 1), "--macs", "1G")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"small.yaml: no width from 2 to 64 is within the budgets; the nearest is width=2: {least:,} parameters are "
        f"over the budget of {least - 1:,} (params={least - 1})\n"
    )
    assert run("small.yaml", "--vary", "width", "--params", str(least)).exit_code == 0
    several = run("small.yaml", "--vary", "n", "--vary", "width", "--params", "1", "-o", "fitted.yaml")
    assert several.exit_code == 1
    assert "the nearest is n=1 width=2: " in several.stderr
    assert "--range looks further" in several.stderr
    assert not (folder / "fitted.yaml").exists()


# --- what it says and writes


def test_it_says_what_it_chose(folder: Path) -> None:
    text = run("small.yaml", "--vary", "width", "--params", "500", "--macs", "1M").stdout
    lines = [line.split() for line in text.splitlines()]
    graph = load("small.yaml", params={"width": 12}).graph
    params, macs = figure_of(graph, "params"), figure_of(graph, "macs")
    assert ["small,", "input", "32x32"] in lines
    assert ["width", "8", "12", "2", "to", "64"] in lines
    assert ["small", "params", "500", str(params), f"{params / 5:.1f}", "%", "yes"] in lines
    assert ["small", "macs", "1,000,000", f"{macs:,}"] == next(line for line in lines if "macs" in line[1:2])[:4]
    assert any(line[:1] == ["width=13"] for line in lines)
    assert "networks were looked at; among them all figures grow with width" in text
    marked = run("small.yaml", "--vary", "width", "--params", "500", "--format", "markdown").stdout
    assert "| width | 8 | 12 | 2 to 64 |" in marked
    assert "### one step more" in marked


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
def test_the_fitted_spec_works_where_it_lies(folder: Path, suffix: str) -> None:
    (folder / "far" / "away").mkdir(parents=True)
    os.symlink(folder / "far" / "away", folder / "link")
    for target in (f"fitted.{suffix}", f"far/away/fitted.{suffix}", f"link/linked.{suffix}"):
        result = run("small.yaml", "--vary", "width", "--set", "n=2", "--params", "2k", "--size", "24x40", "-o", target)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.splitlines()[-1].startswith(f"wrote {target} (")
        spec = load(target)
        width = spec.params["width"]
        assert spec.graph.nodes == load("small.yaml", params={"width": width, "n": 2}).graph.nodes
        assert spec.graph.size == (24, 40)
        assert figure_of(spec.graph, "params") <= 2000
        assert figure_of(load("small.yaml", params={"width": width + 1, "n": 2}).graph, "params") > 2000
        assert spec.name == f"small width={width}"
        assert load(target, params={"width": 9}).name == "small width=9"
        with pytest.raises(mgcompile.SpecError, match="at most 64"):
            load(target, params={"width": 65})  # the bounds are still there
    assert {path.name for path in folder.iterdir()} == {"small.yaml", "far", "link", f"fitted.{suffix}"}


def test_names_of_the_zoo_are_extended_by_name(folder: Path) -> None:
    limits = ("--vary", "width", "--macs", "500M")
    result = run("imagenet/r-mg-34", *limits, "--format", "json", "-o", "fitted.yaml")
    assert json.loads(result.stdout)["name"] == "R-MG-34"  # nothing else is on standard output
    assert result.stderr == "wrote fitted.yaml\n"
    text = (folder / "fitted.yaml").read_text(encoding="utf-8")
    assert "\nextends: imagenet/r-mg-34\n" in text
    spec = load("fitted.yaml")
    assert figure_of(spec.graph, "macs") <= 500_000_000
    again = found("fitted.yaml", *limits)
    assert again["params"] == {"width": spec.params["width"]}
    assert again["name"] == spec.name
    (folder / "sub").mkdir()
    run("imagenet/r-mg-34", *limits, "-o", "sub/fitted.yaml")
    assert (folder / "sub" / "fitted.yaml").read_text(encoding="utf-8") == text
    run("fitted.yaml", "--vary", "width", "--macs", "400M", "-o", "less.yaml")
    assert load("less.yaml").name == f"R-MG-34 width={load('less.yaml').params['width']}"


def test_a_name_that_follows_its_params_is_left_to_itself(folder: Path) -> None:
    (folder / "named.yaml").write_text(SMALL.replace("name: small", "name: net-${n}-${width}"), encoding="utf-8")
    run("named.yaml", "--vary", "width", "--params", "500", "-o", "fitted.yaml")
    assert load("fitted.yaml").name == "net-1-12"


def test_standard_input_is_written_whole(folder: Path) -> None:
    result = run("-", "--vary", "width", "--params", "500", "-o", "fitted.yaml", input=SMALL)
    assert result.exit_code == 0, result.stderr
    assert "extends" not in (folder / "fitted.yaml").read_text(encoding="utf-8")
    assert load("fitted.yaml").params["width"] == 12


def test_a_circle_is_refused_and_nothing_is_written(folder: Path) -> None:
    (folder / "child.yaml").write_text("extends: small.yaml\n", encoding="utf-8")
    result = run("child.yaml", "--vary", "width", "--params", "500", "-o", "small.yaml")
    assert result.exit_code == 2
    assert "it would take the place of small.yaml, which is read" in result.stderr
    assert (folder / "small.yaml").read_text(encoding="utf-8") == SMALL


def test_every_network_of_the_paper_has_a_width() -> None:
    for name in zoo_names():
        if not name.startswith("beyond/"):
            spec = load(name)
            assert spec.params["width"] == 64
            assert (spec.document.params["width"].min or 0) >= 1
