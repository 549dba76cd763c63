"""Which data they are: the same wherever they lie and however they are packed, others where a sample differs."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgcompile.training.files import DataError
from mgcompile.training.identity import fingerprint_of_files
from tests.training.made import mnist, scenes


def test_scenes_are_known_by_their_digits(tmp_path: Path) -> None:
    one = scenes(mnist(tmp_path / "one")).identity
    packed = mnist(tmp_path / "packed")
    for file in list(packed.iterdir()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert scenes(packed, seed=3, samples=9).identity == one
    assert one.classes is None
    assert scenes(mnist(tmp_path / "two", test=13)).identity.fingerprint != one.fingerprint


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=200), changed=st.integers(0, 199))
@settings(max_examples=40, deadline=None)
def test_a_fingerprint_tells_names_and_sizes_and_not_places(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], changed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "same"
    path.write_bytes(b"the same")
    files = [(f"a/{number}", str(path), size) for number, size in enumerate(sizes)]
    found = fingerprint_of_files(files)
    assert fingerprint_of_files(files[::-1]) == found
    name, place, size = files[changed % len(files)]
    for other in ((f"{name}x", place, size), (name, place, size + 1)):
        assert (
            fingerprint_of_files([*files[: changed % len(files)], other, *files[changed % len(files) + 1 :]]) != found
        )
    assert fingerprint_of_files(files[1:]) != found


def test_a_fingerprint_reads_what_a_few_files_hold(tmp_path: Path) -> None:
    files = [(f"{number:03}", str(tmp_path / f"{number:03}"), 4) for number in range(300)]
    for name, _, _ in files:
        (tmp_path / name).write_text("what", encoding="utf-8")
    before = fingerprint_of_files(files)
    (tmp_path / "000").write_text("that", encoding="utf-8")
    assert fingerprint_of_files(files) != before
    (tmp_path / "000").unlink()
    with pytest.raises(DataError, match="000: missing"):
        fingerprint_of_files(files)
