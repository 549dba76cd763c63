"""The campaign of `benchmarks/campaign.py`: a few specs without a difference, and one that was planted."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def campaign(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, which stands in no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("campaign")


def call(campaign: ModuleType, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["campaign.py", "--cases", "generated", "--threads", "1", *options])
    status: int = campaign.main()
    return status


def test_a_few_specs(
    campaign: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    assert call(campaign, monkeypatch, "--specs", "5", "--seed", "3") == 0, capsys.readouterr().out


def test_a_planted_difference_is_found(
    campaign: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    one_thread: None,
) -> None:
    made = campaign.Trial.of

    def lying(*given: object) -> object:
        trial = made(*given)
        for parameter in trial.models["inference"].parameters():
            parameter.data.mul_(1.01)
        return trial

    monkeypatch.setattr(campaign.Trial, "of", lying)
    monkeypatch.setattr(campaign, "least", lambda spec, *_: spec)
    file = tmp_path / "found.json"
    assert call(campaign, monkeypatch, "--specs", "1", "--seed", "7", "--json", str(file)) == 1
    assert "seed 7: outputs, inference, planned call" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert {"outputs", "gradients"} <= {each["check"] for each in found["differences"]}
    assert {each["case"] for each in found["differences"]} == {"seed 7"}
