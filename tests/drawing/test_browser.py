"""The interactive page in a browser: what it shows, what mouse and keys do, how fast it answers.

Skipped where no Chromium is found, but not in CI; `make browser` installs it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import mgcompile
from mgcompile.analysis import audit_graph, receptive_field
from mgcompile.analysis.tables import human
from mgcompile.drawing import draw_graph
from mgcompile.drawing.contraction import contract, operands
from mgcompile.drawing.page import Measure
from mgcompile.graph import Graph
from mgcompile.spec import load
from tests.drawing import networks
from tests.drawing.test_page import HOSTILE, SOME, chain

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="no Chromium on PATH; `make browser` installs it"
)

Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "no Chromium on PATH; `make browser` installs it"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | Graph], Path]:
    """The page of a spec or graph, made once."""
    folder = tmp_path_factory.mktemp("pages")
    made: dict[str, Path] = {}

    def file(source: str | Graph) -> Path:
        name = source if isinstance(source, str) else source.name
        if name not in made:
            made[name] = folder / f"{len(made)}.html"
            if isinstance(source, str):
                mgcompile.draw(source, made[name])
            else:
                ones = Measure("ones", "ones", "", dict.fromkeys(source.nodes, 1))
                draw_graph(source, made[name], measures=[ones])
        return made[name]

    return file


@pytest.fixture
def opened(browser: Browser, files: Callable[[str | Graph], Path]) -> Iterator[Opened]:
    """Opens the page of a spec or graph. At the end nothing but files was asked for, and nothing was complained of."""
    contexts, said, asked = [], [], []

    def open_page(source: str | Graph, width: int = 1440, height: int = 900, scheme: str = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(files(source).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:,"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == len(contexts)


def draw_page(graph: Graph, path: Path, **options: Any) -> str:
    draw_graph(graph, path, **options)
    return path.as_uri()


def state(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("mgcompile.state()")
    return found


def layout(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("mgcompile.layout()")
    return found


def wait_until(page: Page, expression: str, seconds: float = 20) -> None:
    """Ask again until it is true; the page's policy forbids what Playwright waits with."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(30)


def cell_of(page: Page, name: str) -> dict[str, Any]:
    """The visible cell that shows an operation."""
    (found,) = (cell for cell in layout(page)["cells"] if name in cell["cells"])
    return dict(found)


def on_screen(page: Page, x: float, y: float) -> tuple[float, float]:
    box = page.locator("#lattice").bounding_box()
    assert box
    return box["x"] + x, box["y"] + y


def click(page: Page, place: tuple[float, float] | list[float]) -> None:
    page.mouse.click(*on_screen(page, *place))


def click_cell(page: Page, name: str) -> None:
    cell = cell_of(page, name)
    click(page, (cell["x"], cell["y"]))


def data_graph(graph: Graph) -> nx.DiGraph[str]:
    """Which drawn node reads which, through what is not drawn."""
    drawn = {piece.nodes[0] for piece in contract(graph, every_node=True).pieces}
    result: nx.DiGraph[str] = nx.DiGraph()
    result.add_nodes_from(drawn)
    ends: dict[str, set[str]] = {}
    for node in graph:
        read = set().union(*(ends[source] for source in operands(node)))
        ends[node.name] = {node.name} if node.name in drawn else read
        if node.name in drawn:
            result.add_edges_from((source, node.name) for source in read)
    return result


# --- what is shown

EVERY = [("convolutions", True), ("operations", True)]


@pytest.mark.parametrize("name", SOME)
def test_opens_quietly_in_every_mode(name: str, opened: Opened) -> None:
    graph = load(name).graph
    data = data_graph(graph)
    page = opened(name)
    for mode, every in [("fold", False), ("units", False), ("convolutions", False), ("operations", False), *EVERY]:
        page.evaluate("([mode, every]) => mgcompile.show(mode, every)", [mode, every])
        found = layout(page)
        cells = found["cells"]
        assert sorted(name for cell in cells for name in cell["cells"]) == sorted(data)
        places = [(cell["column"], cell["level"], cell["lane"]) for cell in cells]
        assert len(set(places)) == len(places)
        for edge in found["edges"]:
            source, target = cells[edge["source"]], cells[edge["target"]]
            inner = source["layer"] == target["layer"] and source["column"] == target["column"]
            assert source["column"] < target["column"] or inner
        shown = {name: place for place, cell in enumerate(cells) for name in cell["cells"]}
        wanted = {(shown[source], shown[target]) for source, target in data.edges}
        edges = {(edge["source"], edge["target"]) for edge in found["edges"]}
        if every:
            assert edges == {(source, target) for source, target in wanted if source != target}
        else:
            assert edges <= wanted  # what one repeat reads from another is not drawn
    assert all(len(cell["cells"]) == 1 for cell in cells)
    assert [cell["name"] for cell in sorted(cells, key=lambda cell: cell["name"])] == sorted(data)


def test_begins_as_the_drawing_does(opened: Opened) -> None:
    page = opened("imagenet/r-mg-34")
    found = layout(page)
    times = {"stage1": "×3", "stage2": "×4", "stage3": "×6", "stage4": "×3"}
    assert {run["layer"]: run["times"] for run in found["runs"]} == times
    names = {cell["layer"] for cell in found["cells"]}
    assert {"image", "stem", "stage1.0.conv1", "stage1.0.conv2", "stage1.0.add"} <= names
    assert not any(name.startswith("stage1.1") for name in names)
    assert page.locator("#title").inner_text() == "R-MG-34"
    assert "32.90 M" in page.locator("#facts").inner_text()


def test_begins_as_it_was_asked_to(browser: Browser, tmp_path: Path) -> None:
    graph = load("cifar100/r-mg-12").graph
    page = browser.new_page()
    page.goto(draw_page(graph, tmp_path / "x.html", fold=False, detail="op"))
    assert all(len(cell["cells"]) == 1 for cell in layout(page)["cells"])
    page.goto(draw_page(graph, tmp_path / "x.html", fold=False))
    assert {run["isSpread"] for run in layout(page)["runs"]} <= {True}
    assert any(cell["opens"] for cell in layout(page)["cells"])
    page.close()


def test_order_is_kept_when_a_layer_is_opened(opened: Opened) -> None:
    page = opened("beyond/hrnet-w18")
    page.evaluate("mgcompile.show('fold')")
    before = [cell["name"] for cell in sorted(layout(page)["cells"], key=lambda cell: (cell["column"], cell["level"]))]
    page.evaluate("mgcompile.open('stage3')")
    after = [cell["name"] for cell in sorted(layout(page)["cells"], key=lambda cell: (cell["column"], cell["level"]))]
    assert [name for name in after if name in before] == [name for name in before if name in after]


# --- folding


def test_signs_open_down_to_single_operations_and_close_again(opened: Opened) -> None:
    page = opened("imagenet/r-mg-34")
    name = "stage1.0.conv1.conv.level3"
    assert len(cell_of(page, name)["cells"]) > 3
    click(page, cell_of(page, name)["badge"])
    cell = cell_of(page, name)
    assert cell["name"] == name
    assert not cell["opens"]
    page.evaluate("mgcompile.fit()")
    click(page, cell_of(page, "stage1.0.conv1.exchange.level3.fuse")["badge"])
    assert cell_of(page, "stage1.0.conv1.exchange.level3.from2")["name"] == "stage1.0.conv1.exchange.level3.from2"
    page.evaluate("mgcompile.fit()")
    wait_until(page, "mgcompile.layout().brackets.every((each) => each.badge)")
    (bracket,) = (each for each in layout(page)["brackets"] if each["layer"] == "stage1.0.conv1")
    click(page, bracket["badge"])
    assert cell_of(page, name)["layer"] == "stage1.0.conv1"


def test_repeats_are_shown_and_folded_by_their_sign(opened: Opened) -> None:
    page = opened("imagenet/r-mg-34")

    def run() -> dict[str, Any]:
        wait_until(page, "mgcompile.layout().runs.every((each) => each.badge)")
        (found,) = (each for each in layout(page)["runs"] if each["layer"] == "stage1")
        return dict(found)

    few = layout(page)["columns"]
    click(page, run()["badge"])
    page.evaluate("mgcompile.fit()")
    assert run()["isSpread"]
    assert cell_of(page, "stage1.2.conv1.conv.level2")["layer"] == "stage1.2.conv1"
    assert layout(page)["columns"] > few
    click(page, run()["badge"])
    assert layout(page)["columns"] == few
    assert cell_of(page, "stage1.2.conv1.conv.level2")["layer"] == "stage1.0.conv1"


def test_double_click_opens(opened: Opened) -> None:
    page = opened("mnist-seg/u-mg-11")
    cell = next(cell for cell in layout(page)["cells"] if cell["opens"])
    page.mouse.dblclick(*on_screen(page, cell["x"], cell["y"]))
    assert cell["layer"] in state(page)["open"]
    assert all(cell_of(page, name)["cells"] != cell["cells"] for name in cell["cells"])


# --- what is known of a cell


def test_hover_says_what_a_cell_is(opened: Opened) -> None:
    graph = load("imagenet/r-mg-34").graph
    row = next(row for row in audit_graph(graph).rows if row.node == "stage1.0.conv1.conv.level3")
    field = next(row for row in receptive_field(graph).rows if row.node == "stage1.0.conv1.conv.level3")
    page = opened("imagenet/r-mg-34")
    page.evaluate("mgcompile.open('stage1.0.conv1')")
    cell = cell_of(page, row.node)
    page.mouse.move(*on_screen(page, cell["x"], cell["y"]))
    text = page.locator("#tip").inner_text()
    line = graph.layers["stage1.0.conv1.conv"].origin.rpartition("/")[2]
    for wanted in (row.node, "conv 3x3", "32 × 28×28", human(row.macs), human(row.params), "98.00 KiB", line):
        assert wanted in text
    assert f"{max(field.size)} px" in text
    page.mouse.move(*on_screen(page, 5, 5))
    assert page.locator("#tip").is_hidden()


@pytest.mark.parametrize("name", ["imagenet/r-mg-34", "mnist-seg/u-mg-11", "beyond/lapsrn"])
def test_a_click_shows_what_a_cell_sees_and_what_sees_it(name: str, opened: Opened) -> None:
    data = data_graph(load(name).graph)
    page = opened(name)
    page.evaluate("mgcompile.show('operations', true)")
    page.evaluate("mgcompile.fit()")
    chosen = sorted(data)[:: max(1, len(data) // 4)]
    for node in chosen:
        assert page.evaluate("(name) => mgcompile.select(name)", node)
        found = state(page)
        assert found["selected"] == node
        assert set(found["sees"]) == nx.ancestors(data, node)
        assert set(found["seen"]) == nx.descendants(data, node)
        lit = {cell["name"] for cell in layout(page)["cells"] if cell["role"] == "shown"}
        assert lit == {node, *found["sees"], *found["seen"]}
    # A closed layer: what any of its operations at this level sees.
    page.evaluate("mgcompile.show('fold', false)")
    page.evaluate("mgcompile.fit()")
    cell = layout(page)["cells"][len(layout(page)["cells"]) // 2]
    click(page, (cell["x"], cell["y"]))
    found = state(page)
    assert found["selected"] == cell["name"]
    own = set(cell["cells"])
    assert set(found["sees"]) == set().union(*(nx.ancestors(data, node) for node in own)) - own
    assert set(found["seen"]) == set().union(*(nx.descendants(data, node) for node in own)) - own
    click(page, (layout(page)["cells"][0]["x"], 3))
    assert state(page)["selected"] is None


def test_what_is_selected_is_said_to_screen_readers(opened: Opened) -> None:
    page = opened("mnist-seg/u-mg-11")
    assert page.locator("#live").get_attribute("aria-live") == "polite"
    page.evaluate("mgcompile.select('down0.conv.level0')")
    said = page.locator("#live").inner_text()
    assert "level 0" in said
    assert "64 × 64×64" in said
    assert "seen by" in said


# --- depth, search, colour


def test_the_slider_steps_through_the_growth(opened: Opened) -> None:
    graph = load("cifar100/r-pmg-30").graph
    audit = audit_graph(graph)
    rows = {row.node: row for row in audit.rows}
    field = {row.node: max(row.size) for row in receptive_field(graph).rows}
    page = opened("cifar100/r-pmg-30")
    columns = state(page)["columns"]
    assert human(audit.macs) in state(page)["caption"]
    assert human(audit.params) in state(page)["caption"]
    levels = set()
    for column in range(0, columns - 1, 5):
        page.evaluate("(column) => mgcompile.setDepth(column)", column)
        found = state(page)
        cells = layout(page)["cells"]
        inside = [name for cell in cells if cell["column"] <= column for name in cell["cells"]]
        macs = sum(rows[name].macs for name in inside)
        assert f" {human(macs)} MACs" in found["caption"].replace("·", "")
        assert f"{human(sum(rows[name].params for name in inside))} parameters" in found["caption"]
        assert f"{max(field[name] for name in inside)} px largest receptive field" in found["caption"]
        assert {cell["role"] for cell in cells if cell["column"] > column} == {"faded"}
        assert {cell["role"] for cell in cells if cell["column"] <= column} == {"shown"}
        levels.add(found["caption"].split("·")[1].strip())
    assert "active: levels 0, 1, 2" in levels
    assert page.locator("#depth").input_value() == str(column)
    # Opening a layer keeps the depth.
    page.evaluate("mgcompile.setDepth(5)")
    inside = [cell["cells"] for cell in layout(page)["cells"] if cell["column"] <= 5]
    page.evaluate("mgcompile.show('operations')")
    again = [cell["cells"] for cell in layout(page)["cells"] if cell["role"] == "shown"]
    shown = {name for names in again for name in names}
    assert shown <= {name for names in inside for name in names}
    assert len(shown) > 3


def test_play_goes_to_the_end(opened: Opened) -> None:
    page = opened(chain(2))
    page.click("#play")
    assert state(page)["depth"] == 0
    wait_until(page, "mgcompile.state().depth === mgcompile.state().columns - 1")
    page.click("#play")
    page.click("#play")
    depth = state(page)["depth"]
    page.wait_for_timeout(900)
    assert state(page)["depth"] == depth


def test_search_finds_and_opens(opened: Opened) -> None:
    page = opened("imagenet/r-mg-34")
    assert page.evaluate("mgcompile.search('stage2.3 conv1 batch')") == [
        f"stage2.3.conv1.norm.level{level}" for level in (3, 4, 5)
    ]
    assert page.evaluate("mgcompile.search('nowhere')") == []
    page.keyboard.press("/")
    page.keyboard.type("stage2.3.conv1.norm.level4")
    assert page.locator("#results li").all_inner_texts() == ["stage2.3.conv1.norm.level4"]
    page.keyboard.press("Enter")
    assert state(page)["selected"] == "stage2.3.conv1.norm.level4"
    cell = cell_of(page, "stage2.3.conv1.norm.level4")
    assert cell["cells"] == ["stage2.3.conv1.norm.level4"]
    assert 0 < cell["x"] < 1440
    page.keyboard.press("Escape")
    assert state(page)["found"] == []
    assert state(page)["selected"] is None


def test_colours_by_figures(opened: Opened) -> None:
    page = opened("imagenet/r-mg-34")
    pictures = {page.locator("#lattice").screenshot()}
    for key, text in [
        ("macs", "MACs"),
        ("params", "parameters"),
        ("bytes", "activations"),
        ("field", "receptive field"),
    ]:
        page.select_option("#measure", key)
        assert state(page)["measure"] == key
        assert text in page.locator("#legend").inner_text()
        pictures.add(page.locator("#lattice").screenshot())
    assert len(pictures) == 5
    page.evaluate("mgcompile.show('operations', true)")
    page.evaluate("mgcompile.setMeasure('macs')")
    row = next(row for row in audit_graph(load("imagenet/r-mg-34").graph).rows if row.node == "stem.conv.level1")
    assert row.macs == 118013952
    assert cell_of(page, "stem.conv.level1")["texts"] == ["64", "118M"]
    page.select_option("#measure", "kind")
    assert cell_of(page, "stem.conv.level1")["texts"] == ["64"]


# --- keys, themes, files


def test_keys_reach_everything(opened: Opened) -> None:
    page = opened("imagenet/r-mg-34")
    page.locator("#help").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "lattice"
    page.keyboard.press("ArrowRight")
    assert state(page)["selected"] == "input"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    first = cell_of(page, state(page)["operation"])
    assert first["level"] > 0
    page.keyboard.press("ArrowLeft")
    assert cell_of(page, state(page)["operation"])["column"] < first["column"]
    page.evaluate("mgcompile.select('stage1.0.conv1.conv.level3')")
    page.keyboard.press("Enter")
    assert "stage1.0.conv1" in state(page)["open"]
    assert cell_of(page, state(page)["operation"])["layer"].startswith("stage1.0.conv1.")
    page.keyboard.press("ArrowUp")
    assert cell_of(page, state(page)["operation"])["level"] == 2
    page.keyboard.press("Shift+Enter")
    assert "stage1.0.conv1" not in state(page)["open"]
    assert state(page)["selected"] == "stage1.0.conv1"
    scale = state(page)["transform"]["k"]
    page.keyboard.press("+")
    assert state(page)["transform"]["k"] == pytest.approx(1.3 * scale)
    page.keyboard.press("-")
    assert state(page)["transform"]["k"] == pytest.approx(scale)
    page.keyboard.press("0")
    last = state(page)["columns"] - 1
    page.keyboard.press("[")
    page.keyboard.press("[")
    page.keyboard.press("]")
    assert state(page)["depth"] == last - 1
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#keys").is_hidden()
    assert state(page)["selected"] is not None
    page.keyboard.press("Escape")
    assert state(page)["selected"] is None
    # Typing in the search is no command.
    page.keyboard.press("/")
    page.keyboard.type("[?+0")
    assert page.locator("#search").input_value() == "[?+0"
    assert page.locator("#keys").is_hidden()


def test_light_and_dark(opened: Opened) -> None:
    page = opened("cifar100/r-pmg-30", scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert state(page)["dark"] is True
    assert page.evaluate(ground) == "rgb(21, 24, 27)"
    page.emulate_media(color_scheme="light")
    wait_until(page, "!mgcompile.state().dark")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.click("#theme")
    assert state(page)["dark"] is True


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768), (390, 844)])
def test_fits_the_screen(width: int, height: int, opened: Opened) -> None:
    page = opened("cifar100/r-pmg-30", width, height)
    assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
        width,
        height,
    ]
    box = page.locator("#lattice").bounding_box()
    assert box
    assert box["height"] > 0.35 * height
    page.evaluate("mgcompile.fit()")
    for cell in layout(page)["cells"]:
        assert 0 < cell["x"] < box["width"]
        assert 0 < cell["y"] < box["height"]


def test_saves_what_is_shown(opened: Opened, tmp_path: Path) -> None:
    page = opened("imagenet/r-mg-34", scheme="dark")
    page.evaluate("mgcompile.open('stage2.0.conv1')")
    page.evaluate("mgcompile.select('stage2.0.conv1.conv.level3')")
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "x.svg")
    assert download.value.suggested_filename == "R-MG-34.svg"
    root = ElementTree.parse(tmp_path / "x.svg").getroot()
    svg = "{http://www.w3.org/2000/svg}"
    cells = [group for group in root.iter(f"{svg}g") if group.get("class") == "cell"]
    assert sorted((cell.get("data-name"), int(cell.get("data-level", ""))) for cell in cells) == sorted(
        (cell["name"], cell["level"]) for cell in layout(page)["cells"]
    )
    assert root.find(f"{svg}rect").get("fill") == "#ffffff"  # type: ignore[union-attr]
    texts = {text.text for text in root.iter(f"{svg}text")}
    assert {"R-MG-34", "×3", "×6", "stage1", "2 · 56×56"} <= texts


def test_names_are_text_not_markup(opened: Opened) -> None:
    page = opened(chain(3, HOSTILE))
    assert page.locator("#title").inner_text().split() == HOSTILE.split()
    ElementTree.fromstring(page.evaluate("mgcompile.exportSvg()"))


# --- speed

TURN = """async (turn) => {
  const prepared = (() => { PREPARE })();
  await new Promise(requestAnimationFrame);
  await new Promise((resolve) => setTimeout(resolve, 30));
  window.given = prepared;
}"""
ACTION = """async () => {
  const run = (given) => { ACT };
  const start = performance.now();
  run(window.given);
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""
CANVAS = "document.querySelector('#lattice')"
BOX = f"const box = {CANVAS}.getBoundingClientRect();"
PLACE = f"{BOX} const cells = mgcompile.layout().cells; const [x, y] = "
ACTIONS = {
    "pan": (
        f"{BOX} const [x, y] = [box.x + 700, box.y + 300 + 9 * turn];"
        f"const event = (name, target, dx) => target.dispatchEvent(new MouseEvent(name, {{clientX: x + dx, clientY: y,"
        "view: window, bubbles: true}));"
        f"event('mousedown', {CANVAS}, 0); return [event, window]",
        "given[0]('mousemove', given[1], 40); given[0]('mouseup', given[1], 40)",
    ),
    "zoom": (
        f"{BOX} const [x, y] = [box.x + 700, box.y + 300];"
        "return new WheelEvent('wheel', {deltaY: -40, clientX: x, clientY: y})",
        f"{CANVAS}.dispatchEvent(given)",
    ),
    "hover": (
        f"{PLACE} [box.x + cells[2000 + turn].x, box.y + cells[2000 + turn].y];"
        "return new PointerEvent('pointermove', {clientX: x, clientY: y, pointerType: 'mouse'})",
        f"{CANVAS}.dispatchEvent(given)",
    ),
    "click": (
        f"{PLACE} [box.x + cells[2000 + turn].x, box.y + cells[2000 + turn].y];"
        "return new MouseEvent('click', {clientX: x, clientY: y})",
        f"{CANVAS}.dispatchEvent(given)",
    ),
    "close": ("mgcompile.open('unit2.5.conv1')", "mgcompile.close('unit2.5.conv1')"),
    "open": ("mgcompile.close('unit2.5.conv1')", "mgcompile.open('unit2.5.conv1')"),
    "measure": ("return ['ones', 'kind'][turn % 2]", "mgcompile.setMeasure(given)"),
    "depth": ("return 100 * turn", "mgcompile.setDepth(given)"),
}


def test_five_thousand_operations_answer_at_once(opened: Opened) -> None:
    graph = networks.r_pmg(26)
    assert len(graph) > 5000
    page = opened(graph)
    page.evaluate("mgcompile.show('operations', true)")
    assert len(layout(page)["cells"]) == len(graph)
    session = page.context.new_cdp_session(page)
    # In ticks of the page's own thread: what else runs on the machine does not count.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return 1000 * float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    slow = {}
    for whole in (True, False):  # all of it in sight, and a part at a scale at which all is written
        page.evaluate("mgcompile.setDepth(1e9)")
        page.evaluate("mgcompile.fit()")
        if not whole:
            page.evaluate("mgcompile.search('unit2.5.conv1.conv.level3')")
            page.keyboard.press("/")
            page.keyboard.press("Enter")
        for name, (prepare, act) in ACTIONS.items():
            works, waits = [], []
            for turn in range(3):
                page.evaluate(TURN.replace("PREPARE", prepare), turn)
                before = busy()
                waits.append(page.evaluate(ACTION.replace("ACT", act)))
                works.append(busy() - before)
            print(f"{name}, {'all' if whole else 'a part'}: {median(works):.0f} ms of work, {median(waits):.0f} ms")
            if min(works) >= 100 or min(waits) >= 1000:  # a busy machine makes them longer, never shorter
                slow[name, whole] = works, waits
    assert slow == {}
