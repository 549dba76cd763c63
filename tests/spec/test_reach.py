"""What a spec may read: other specs below its folder and in the zoo; and what is told of a file that is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mgcompile import SpecError, load
from mgcompile.spec import parse_spec
from mgcompile.spec.source import read_source

SPEC = "input: {size: 8}\nlayers: [pool]\n"
SECRET = "hunter2"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the specs, as the current one; beside it lies what they may not read."""
    (tmp_path / "specs" / "sub").mkdir(parents=True)
    (tmp_path / "outside.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path / "specs")
    return tmp_path / "specs"


def refusal(text: str, **options: bool) -> str:
    """What is said of a spec in a file of the folder."""
    Path("net.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load("net.yaml", **options)
    return str(caught.value)


def test_specs_below_the_folder_and_of_the_zoo_are_read(folder: Path) -> None:
    Path("base.yaml").write_text("extends: sub/deep.yml\n")
    Path("sub/deep.yml").write_text("extends: ../top.json\n")
    Path("top.json").write_text('{"input": {"size": 8}, "layers": ["pool"]}')
    Path("net.yaml").write_text("extends: base.yaml\n")
    assert load("net.yaml").graph == load(folder / "net.yaml").graph == load({"extends": "base.yaml"}).graph
    assert load({"extends": "cifar100/vgg-6"}).name == "VGG-6"


@pytest.mark.parametrize(
    "name", ["../outside.yaml", "ABSOLUTE", "sub/../../outside.yaml", "link.yaml", "linked/outside.yaml"]
)
def test_specs_elsewhere_are_read_where_that_is_allowed(folder: Path, name: str) -> None:
    Path("link.yaml").symlink_to(folder.parent / "outside.yaml")
    Path("linked").symlink_to(folder.parent)
    text = f"extends: {folder.parent / 'outside.yaml' if name == 'ABSOLUTE' else name}\n"
    assert "lies outside of the folder of net.yaml" in refusal(text)
    assert "--allow-outside" in refusal(text)
    assert load("net.yaml", allow_outside=True).graph
    with pytest.raises(SpecError, match="lies outside"):
        parse_spec(text, "<stdin>")
    assert parse_spec(text, "<stdin>", allow_outside=True).graph


@pytest.mark.usefixtures("folder")
def test_what_lies_outside_is_not_told() -> None:
    there, not_there = refusal("extends: ../outside.yaml\n"), refusal("extends: ../nothing.yaml\n")
    assert there.replace("outside.yaml", "nothing.yaml") == not_there


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "/dev/zero", "/proc/self/environ", "creds", "pipe.yaml", "sub", "a\\0b.yaml"]
)
@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.usefixtures("folder")
def test_what_is_no_file_of_a_spec_is_never_read(name: str, outside: bool) -> None:
    Path("creds").write_text(f"{SECRET}: x\n")
    os.mkfifo("pipe.yaml")
    assert refusal(f'extends: "{name}"\n', allow_outside=outside).startswith("net.yaml:1:10: extends: ")


@pytest.mark.parametrize(
    "text",
    [
        f"{SECRET}: x\n",
        f"input: {SECRET}\nlayers: {SECRET}\n",
        f"layers: [{SECRET}, {{{SECRET}: 1}}, {{conv: {{{SECRET}: 1}}}}, {{conv: {SECRET}}}]\n",
        f"layers: [{{pool: {{kernel: {SECRET}}}}}, 3, {{conv: {{act: '${{{SECRET}'}}}}]\n",
        f"a: 1\na: {SECRET}\n{SECRET}: 1\n{SECRET}: 2\n",
        f"a: *{SECRET}\n",
        f"a: !{SECRET} b\n",
        f"{SECRET}: {{b: [\n",
        f"params: {{'{SECRET}!': 1, {SECRET}: {{x: 1}}}}\noutputs: {{'{SECRET}!': x, {SECRET}: [1]}}\n",
        f"blocks: {{'{SECRET}!': {{}}, {SECRET}: {{layers: [{SECRET}]}}}}\n",
        f"defaults: {{{SECRET}: 1}}\nblocks: {SECRET}\n",
        f"{SECRET}\n",
    ],
)
@pytest.mark.usefixtures("folder")
def test_nothing_of_another_file_is_told_that_is_no_spec(text: str) -> None:
    Path("other.yaml").write_text(text)
    found = refusal("extends: other.yaml\n")
    assert SECRET not in found
    assert "other.yaml:" in found
    Path("other.yaml").rename("net2.yaml")
    with pytest.raises(SpecError):
        load("net2.yaml")


@pytest.mark.usefixtures("folder")
def test_the_text_of_a_checkpoint_reads_no_file() -> None:
    Path("base.yaml").write_text(SPEC)
    assert parse_spec("extends: base.yaml\n", "model.safetensors").graph
    with pytest.raises(SpecError, match="extends no other"):
        parse_spec("extends: base.yaml\n", "model.safetensors", extends=False)


@pytest.mark.usefixtures("folder")
def test_a_pipe_or_a_device_does_not_hang() -> None:
    os.mkfifo("pipe.yaml")
    for name in ("pipe.yaml", "/dev/zero", "/dev/tty0"):
        with pytest.raises(SpecError):
            read_source(name)


@pytest.mark.usefixtures("folder")
def test_a_file_that_is_open_already_is_read() -> None:
    command = f"{sys.executable} -m mgcompile.cli check"
    for line in (
        f"printf '{SPEC}' | {command} /dev/stdin",
        f"{command} <(printf '{SPEC}')",
        f"{command} - <<< '{SPEC}'",
    ):
        done = subprocess.run(["bash", "-c", line.replace("\n", "\\n")], capture_output=True, text=True, check=False)
        if "<<<" not in line:
            assert done.stdout.startswith("ok "), done.stderr


@pytest.mark.usefixtures("folder")
def test_the_command_line_takes_the_option() -> None:
    Path("net.yaml").write_text("extends: ../outside.yaml\n")
    command = [sys.executable, "-m", "mgcompile.cli", "check", "net.yaml"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
    assert subprocess.run([*command, "--allow-outside"], capture_output=True, check=False).returncode == 0
