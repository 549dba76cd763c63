"""Reports: one page that holds everything, parses, asks for nothing, and says each thing once."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mgcompile
from mgcompile.analysis.tables import Sheet
from mgcompile.cli import main
from mgcompile.reporting import Chapter, Network, Section, chapters_of, format_report
from mgcompile.spec import load, zoo_names

VOID = {"meta", "br", "link", "hr", "img"}
SPECS = ("cifar100/vgg-6", "cifar100/mg-6", "mnist-seg/u-mg-11")


class Page(HTMLParser):
    """Its elements, in which all tags close as they should, and its visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MGCOMPILE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run(*args: str) -> Result:
    result = CliRunner().invoke(main, ["report", *args], prog_name="mgcompile")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def network(name: str) -> Network:
    spec = load(name)
    return Network(spec.graph.name, spec.graph, spec.document.description, spec.to_yaml())


def test_several_networks() -> None:
    done = run(*SPECS, "--title", "A & B", "-o", "report.html")
    assert (done.exit_code, done.stderr) == (0, "")
    page = Page(Path("report.html").read_text())
    for name in SPECS:
        figures = mgcompile.audit(name)
        assert figures.name in page.text
        assert f"{figures.params:,}" in page.text
        assert f"{figures.macs:,}" in page.text
    for title in ("Comparison", "Topology", "Cost by layer", "Memory", "Receptive field", "Roofline", "Spec"):
        assert title in page.text
    assert page.text.startswith("A & B")
    assert sum(tag == "svg" for tag, _ in page.elements) == 1 + 2 * len(SPECS)


def test_links_lead_somewhere_and_nothing_is_asked_for() -> None:
    run(*SPECS, "-o", "report.html")
    text = Path("report.html").read_text()
    page = Page(text)
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = [attributes["href"] or "" for tag, attributes in page.elements if tag == "a"]
    assert len(links) == 1 + len(SPECS)
    assert {link.removeprefix("#") for link in links} <= ids
    assert not [tag for tag, _ in page.elements if tag in ("script", "img", "link", "iframe")]
    assert not re.search(r"url\((?!#)|@import|src=", text)


def test_what_pictures_refer_to_is_the_same_wherever_it_stands() -> None:
    run(*SPECS, "-o", "report.html")
    text = Path("report.html").read_text()
    used = {name for pair in re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', text) for name in pair if name}
    assert used
    for name in used:
        found = re.findall(rf'<(\w+)([^>]*)id="{name}"([^>]*)>(.*?)(?:</\1>|<)', text, re.DOTALL)
        assert len(set(found)) == 1, name


def test_each_note_is_said_once() -> None:
    chapters = chapters_of([network(name) for name in SPECS])
    notes = [note for chapter in chapters for section in chapter.sections for s in section.sheets for note in s.notes]
    assert len(notes) == len(set(notes)) > 10


def test_one_network_needs_no_comparison() -> None:
    (chapter,) = chapters_of([network("cifar100/mg-6")], (40, 24), batch=4)
    assert chapter.title == "MG-6"
    memory = next(section for section in chapter.sections if section.title == "Memory")
    assert "40x24, batch 4" in memory.sheets[0].title
    assert "<nav>" not in format_report("x", [chapter])


@pytest.mark.slow
def test_all_networks() -> None:
    chapters = chapters_of([network(name) for name in zoo_names()])
    Page(format_report("all", chapters))
    assert len(chapters) == 1 + len(zoo_names())


def test_titles_may_be_anything() -> None:
    sheet = Sheet("</style><script>", ("<",), (("&",),))
    text = format_report("<h1>", [Chapter("a b", "<", (Section("s", sheets=(sheet,), code="<pre>"),))] * 2)
    page = Page(text)
    assert {"a-b", "a-b-2"} <= {attributes.get("id") for _, attributes in page.elements}
    assert "script" not in dict(page.elements)


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (
            ("cifar100/mg-6", "-o", "report.pdf"),
            2,
            "report.pdf: a report is a page; expected a name that ends in .html",
        ),
        (("cifar100/mg-6",), 2, "Missing option '-o'"),
        (("cifar100/mg-6", "cifar100/nothing", "-o", "r.html"), 2, "no spec of the zoo has this name"),
        (("mnist-seg/u-mg-11", "--size", "0", "-o", "r.html"), 2, "'0' is no size"),
        (("cifar100/mg-6", "--batch", "0", "-o", "r.html"), 2, "--batch"),
        (("cifar100/mg-6", "--machine", "none.json", "-o", "r.html"), 2, "none.json"),
    ],
)
def test_what_is_refused(args: tuple[str, ...], status: int, message: str) -> None:
    done = run(*args)
    assert done.exit_code == status, done.stderr
    assert message in done.stderr
    assert not list(Path().glob("*.html"))
    assert not list(Path().glob(".*"))
