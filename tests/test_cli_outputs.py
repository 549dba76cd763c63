"""What is read is not written over, be it by a pattern, by another name or through `extends`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mgcompile.cli import main

BASE = "name: base\ninput: {size: 16}\nlayers: [{conv: {channels: 4}}]\n"


@pytest.mark.parametrize(
    "args",
    [
        ("draw", "base.yaml", "-o", "{name}.yaml", "--format", "svg"),
        ("draw", "base.yaml", "small.yaml", "-o", "./{name}.yaml", "--format", "svg"),
        ("draw", "below/base.yaml", "small.yaml", "-o", "{name}.yaml", "--format", "svg"),
        ("draw", "small.yaml", "-o", "base.yaml", "--format", "dot"),
        ("show", "small.yaml", "-o", "base.yaml"),
        ("audit", "small.yaml", "-o", "link.yaml"),
        ("compare", "small.yaml", "below/base.yaml", "-o", "base.yaml"),
    ],
)
def test_a_spec_is_not_written_over(args: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("below").mkdir()
    for name in ("base.yaml", "below/base.yaml"):
        Path(name).write_text(BASE)
    Path("small.yaml").write_text("extends: base.yaml\nname: small\n")
    Path("link.yaml").symlink_to("base.yaml")
    before = {path: path.read_text() for path in Path().rglob("*.yaml")}
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2, result.output
    assert "would take the place of" in result.stderr
    assert {path: path.read_text() for path in Path().rglob("*.yaml")} == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("n=5", "n=6"), "n is set twice"),
        (("n=5\rm: 3",), "expected name=value"),
        (("n=5\u2028m: 3",), "expected name=value"),
        (("n=5\rextends: base.yaml",), "expected name=value"),
        (("n=" + "9" * 10_000,), "at most 30 digits"),
        (("n=*" + "x" * 10_000,), "no anchor"),
        (("n=!!" + "x" * 10_000,), "a spec has no tags"),
    ],
)
def test_all_that_is_set_is_read(given: tuple[str, ...], said: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text('params: {n: 4}\ninput: {size: 16}\nlayers: [{conv: {channels: "${n}"}}]\n')
    result = CliRunner().invoke(main, ["check", str(path), *(word for text in given for word in ("--set", text))])
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert len(result.stderr) < 1000


@pytest.mark.parametrize("format", ["table", "json"])
def test_a_fitted_spec_is_not_written_over_what_its_spec_extends(format: str, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE.replace("4", "'${w}'") + "params: {w: 4}\n")
    (tmp_path / "small.yaml").write_text("extends: base.yaml\nname: small\n")
    base, small = str(tmp_path / "base.yaml"), str(tmp_path / "small.yaml")
    args = ("fit", small, "--vary", "w", "--params", "2k", "--format", format, "-o", base)
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2, result.output
    assert "would take the place of" in result.stderr
    assert "w: 4" in (tmp_path / "base.yaml").read_text()
