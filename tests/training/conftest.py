"""What the tests of trainings share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.made import mnist


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MNIST's files, of a few made-up digits. Not to be written in."""
    return mnist(tmp_path_factory.mktemp("digits"))
