"""Folders of pictures: every picture is found, what is passed over is counted, and no link leads round in circles."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mgcompile.training.files import DataError
from mgcompile.training.folders import ImageFolder, read_image_folder
from mgcompile.training.pictures import SUFFIXES

PICTURE = b"not looked at"


def laid(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PICTURE)
    return root


def names(folder: ImageFolder) -> list[str]:
    return [name for name, _, _ in folder.files()]


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    laid(tmp_path, "b/2.jpeg", "b/10.JPEG", "a/x.png", "c/deep/deeper/y.JfIf", "c/y.webp", "b/inner/z.png")
    laid(tmp_path, "readme.txt", ".hidden/z.png", "b/notes.txt", "b/.x.png", "a/Thumbs.db", "__MACOSX/a/x.png")
    laid(tmp_path, "b/x.heic", "b/y.heic", "b/z.heic")
    (tmp_path / "none").mkdir()
    (tmp_path / "c" / "deep" / "nothing").mkdir()
    folder = read_image_folder(tmp_path)
    assert folder.classes == ("a", "b", "c")
    assert names(folder) == ["a/x.png", "b/10.JPEG", "b/2.jpeg", "b/inner/z.png", "c/deep/deeper/y.JfIf", "c/y.webp"]
    assert folder.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert folder.labels.dtype == np.int64
    assert folder.sizes.tolist() == [len(PICTURE)] * len(folder)
    assert str(folder) == (
        f"{tmp_path}: 6 pictures of 3 classes; passed over: 4 files that are no pictures by their suffixes "
        "(b/notes.txt, b/x.heic, b/y.heic, ...), 1 file in no class (readme.txt), 1 empty folder (none), "
        "4 hidden files and folders (.hidden, __MACOSX, a/Thumbs.db, ...)"
    )
    (tmp_path / "b" / "x.heic").unlink()
    assert str(read_image_folder(laid(tmp_path / "all", "a/x.png"))) == f"{tmp_path}/all: 1 picture of 1 class"


SEGMENT = st.sampled_from(["a", "B", "é", "c d", "x.y"])
FILE = st.tuples(st.sampled_from(["1", "p", ".h"]), st.sampled_from([*sorted(SUFFIXES), ".JPG", ".txt", ""])).map(
    "".join
)


@given(files=st.sets(st.tuples(st.lists(SEGMENT, max_size=3), FILE).map(lambda each: "/".join([*each[0], each[1]]))))
@settings(max_examples=60, deadline=None)
def test_each_file_is_found_or_counted(tmp_path_factory: pytest.TempPathFactory, files: set[str]) -> None:
    root = laid(tmp_path_factory.mktemp("any"), *(f"{number}/{name}" for number in "01" for name in files))
    laid(root, "0/always.png", "1/always.png")
    folder = read_image_folder(root)
    passed = folder.passed.counts
    assert len(folder) + passed.get("other", 0) + passed.get("hidden", 0) == 2 * len(files) + 2
    assert names(folder) == sorted(names(folder), key=lambda name: name.split("/"))
    assert all(os.path.splitext(name)[1].lower() in SUFFIXES for name in names(folder))
    assert folder.classes == ("0", "1")


def test_links_are_followed_and_not_round_in_circles(tmp_path: Path) -> None:
    outside = laid(tmp_path / "outside", "x.png", "sub/y.png")
    root = laid(tmp_path / "root", "a/one.png", "b/one.png")
    (root / "a" / "file.png").symlink_to(outside / "x.png")
    (root / "a" / "folder").symlink_to(outside)
    (root / "a" / "folder2").symlink_to(outside)
    (root / "a" / "up").symlink_to(root / "a")
    (root / "a" / "gone.png").symlink_to(root / "nowhere")
    (root / "a" / "loop.png").symlink_to(root / "a" / "loop.png")
    os.mkfifo(root / "a" / "pipe.png")
    (root / "a" / "null.png").symlink_to("/dev/zero")
    (root / "a" / "all").symlink_to("/")
    (root / "c").symlink_to(outside)
    folder = read_image_folder(root)
    assert [name for name in names(folder) if "folder" not in name] == [
        "a/file.png", "a/one.png", "b/one.png", "c/sub/y.png", "c/x.png"
    ]  # fmt: skip
    assert len(folder) == 7  # what is linked twice in a class is there once
    assert folder.passed.counts == {"again": 3, "special": 4}


def test_links_that_branch_do_not_multiply(tmp_path: Path) -> None:
    for number in range(24):
        laid(tmp_path / str(number), "x.png")
        for way in "ab":
            (tmp_path / str(number) / way).symlink_to(tmp_path / str(number + 1))
    root = laid(tmp_path / "root", "class/x.png")
    (root / "class" / "all").symlink_to(tmp_path / "0")
    assert len(read_image_folder(root)) == 25


def test_folders_that_are_none(tmp_path: Path) -> None:
    assert refusal(lambda: read_image_folder(tmp_path / "none")) == f"{tmp_path / 'none'}: missing: it does not exist"
    assert refusal(lambda: read_image_folder(tmp_path)) == (
        f"{tmp_path}: no folder in it; expected one a class, with its pictures"
    )
    (tmp_path / "empty").mkdir()
    assert "only empty folders in it" in refusal(lambda: read_image_folder(tmp_path))
    laid(tmp_path, "a/x.txt")
    message = refusal(lambda: read_image_folder(tmp_path))
    assert re.match(re.escape(f"{tmp_path}/a: no picture in it; expected some (.avif, .bmp, .gif, "), message)
    assert message.endswith("it has 1 other file, a/x.txt; remove the folder if it is no class")
    with pytest.raises(DataError, match="cannot be read: Not a directory"):
        read_image_folder(tmp_path / "a" / "x.txt")


def test_names_of_classes_that_are_no_text_or_not_told_apart(tmp_path: Path) -> None:
    apart = laid(tmp_path / "apart", unicodedata.normalize("NFD", "é") + "/x.png")
    assert read_image_folder(apart).classes == ("é",)
    laid(apart, "é/x.png")
    assert "two folders are named é, written in two ways; rename one" in refusal(lambda: read_image_folder(apart))
    os.makedirs(os.fsencode(tmp_path) + b"/bytes/\xff")
    assert r"the name of the folder '\udcff' is not UTF-8" in refusal(lambda: read_image_folder(tmp_path / "bytes"))


def test_what_is_said_has_no_control_characters(tmp_path: Path) -> None:
    laid(tmp_path, "a/x.png", "a/\x1b[2Jx.txt")
    assert str(read_image_folder(tmp_path)).isprintable()


def test_pictures_that_are_links_to_others_open(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "x.png")
    (tmp_path / "a" / "x.jpe").symlink_to(tmp_path / "x.png")
    assert read_image_folder(tmp_path).open(0).size == (3, 2)
