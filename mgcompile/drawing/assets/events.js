// Mouse, touch and keys, the wiring of the buttons, and the interface for scripts.

// ---- what lies under the pointer

function pointAt(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function hits({ x, y, radius }, point) {
  return Math.hypot(point[0] - x, point[1] - y) <= Math.max(radius + 2, 9 / transform.k);
}

// The item at a point of the screen, or null.
function itemAt(screen) {
  if (screen[0] < axisWidth()) return null;
  const [x, y] = transform.invert(screen);
  const { items, spans } = state.view;
  const slack = 2 / transform.k;
  for (const item of items) {
    if (x < spans[item.column].left - slack || x > spans[item.column].right + slack) continue;
    const right = item.x + item.width / 2 + item.depth;
    if (x < item.x - item.width / 2 - slack || x > right + slack) continue;
    if (y >= item.y - item.height / 2 - item.lift - slack && y <= item.y + item.height / 2 + slack) return item;
  }
  return null;
}

// The sign at a point: of a closed layer (open), of a bracket (close), of repeats (spread or fold).
function signAt(screen) {
  if (transform.k <= SIGNS || screen[0] < axisWidth()) return null;
  const point = transform.invert(screen);
  const { items, names, runs } = state.view;
  const item = items.find((each) => each.opens && hits(badgeOf(each), point));
  if (item) return () => openLayer(item.layer, item.cells[0]);
  const name = names.find((each) => each.isOpen && each.badge && hits(each.badge, point));
  if (name) return () => closeLayer(name.layer);
  const run = runs.find((each) => each.badge && hits(each.badge, point));
  return run ? () => changed(() => state.toggleRun(run.layer), run.layer.cells[0]) : null;
}

function hideTip() {
  byId("tip").hidden = true;
}

function showTip(item, [x, y]) {
  const tip = byId("tip");
  fillCard(tip, model, item);
  tip.hidden = false;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const left = x + 16 + tip.offsetWidth > width ? x - tip.offsetWidth - 12 : x + 16;
  const top = y + 16 + tip.offsetHeight > height ? y - tip.offsetHeight - 12 : y + 16;
  tip.style.left = `${Math.max(2, left)}px`;
  tip.style.top = `${Math.max(2, top)}px`;
}

function hover(event) {
  if (event.buttons || event.pointerType === "touch") return;
  const point = pointAt(event);
  const sign = signAt(point);
  const item = itemAt(point);
  canvas.classList.toggle("pointing", sign !== null || item !== null);
  if (item) showTip(item, point);
  else hideTip();
  if (item === hovered) return;
  hovered = item;
  drawHover(canvas.clientWidth, canvas.clientHeight, window.devicePixelRatio || 1);
}

function click(event) {
  const point = pointAt(event);
  const sign = signAt(point);
  if (sign) {
    sign();
    return;
  }
  const item = itemAt(point);
  selectCell(item ? item.cells[0] : null);
}

function doubleClick(event) {
  const item = signAt(pointAt(event)) ? null : itemAt(pointAt(event));
  if (item?.opens) openLayer(item.layer, item.cells[0]);
}

// ---- keys

const ARROWS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };

const KEYS = {
  Enter: (event) => (event.shiftKey ? closeAround() : openSelected()),
  "+": () => zoomBy(1.3),
  "=": () => zoomBy(1.3),
  "-": () => zoomBy(1 / 1.3),
  0: () => fit(),
  " ": () => play(),
};
const ANYWHERE = {
  "/": () => byId("search").focus(),
  "?": () => byId("keys").showModal(),
  "[": () => setDepth(state.limit - 1),
  "]": () => setDepth(state.limit + 1),
  Escape: () => clear(),
};

function moveSelection(direction) {
  const item = state.item();
  const next = item === null ? state.view.items[0] : state.neighbour(item, direction);
  if (!next) return;
  selectCell(next.cells[0]);
  bringIntoSight(next);
}

function latticeKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (ARROWS[event.key]) moveSelection(ARROWS[event.key]);
  else if (KEYS[event.key]) KEYS[event.key](event);
  else return;
  event.preventDefault();
}

function pageKey(event) {
  const typing = event.target.matches("input[type=search], select");
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || byId("keys").open) return;
  if ((typing && event.key !== "Escape") || !ANYWHERE[event.key]) return;
  event.preventDefault();
  ANYWHERE[event.key](event);
}

function searchKey(event) {
  const lines = byId("results").querySelectorAll("[role=option]");
  if (event.key === "Enter") choose(Math.max(0, chosen));
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    chosen = Math.max(0, Math.min(lines.length - 1, chosen + (event.key === "ArrowDown" ? 1 : -1)));
    lines.forEach((line, place) => line.setAttribute("aria-selected", String(place === chosen)));
    lines[chosen]?.scrollIntoView({ block: "nearest" });
  } else return;
  event.preventDefault();
}

function searchFor(text) {
  chosen = -1;
  const found = state.search(text);
  fillResults(state, choose);
  if (text) say(`${found.length} found`);
  redraw();
}

// ---- wiring

function wire() {
  const onLattice = { click, dblclick: doubleClick, pointermove: hover, keydown: latticeKey };
  for (const [name, act] of Object.entries(onLattice)) canvas.addEventListener(name, act);
  canvas.addEventListener("pointerleave", () => {
    hovered = null;
    hideTip();
    redraw();
  });
  for (const [mode, { title }] of Object.entries(MODES)) {
    const button = element("button", title, { "data-mode": mode });
    button.addEventListener("click", () => showMode(mode));
    byId("modes").append(button);
  }
  byId("every").addEventListener("change", (event) => showMode(state.mode || "convolutions", event.target.checked));
  byId("measure").append(new Option("kind", "kind"), ...model.measures.map(({ key, title }) => new Option(title, key)));
  byId("measure").addEventListener("change", (event) => changed(() => state.setMeasure(event.target.value)));
  const buttons = { "zoom-in": () => zoomBy(1.3), "zoom-out": () => zoomBy(1 / 1.3), fit: () => fit(), play, save: saveSvg };
  for (const [id, act] of Object.entries(buttons)) byId(id).addEventListener("click", act);
  byId("theme").addEventListener("click", () => setTheme(!dark));
  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("depth").addEventListener("input", (event) => {
    stop();
    setDepth(Number(event.target.value));
  });
  byId("search").addEventListener("input", (event) => searchFor(event.target.value));
  byId("search").addEventListener("keydown", searchKey);
  byId("search").addEventListener("blur", () => (byId("results").hidden = true));
  byId("search").addEventListener("focus", () => state.query && fillResults(state, choose));
  document.addEventListener("keydown", pageKey);
  systemDark.addEventListener("change", (event) => setTheme(event.matches));
  new ResizeObserver(resize).observe(canvas);
}

// For scripts. Names are those of operations, paths those of layers; all act at once, the picture follows in the next
// frame.
window.mgcompile = {
  // What is chosen; `selected` is the name of a cell, `operation` its first operation.
  state: () => ({
    open: [...state.open].map((layer) => layer.path),
    selected: state.item()?.name ?? null,
    operation: state.selected === null ? null : model.names[state.selected],
    sees: [...state.sees].map((cell) => model.names[cell]),
    seen: [...state.seen].map((cell) => model.names[cell]),
    measure: state.measure?.key ?? "kind",
    depth: state.limit,
    columns: state.view.columns,
    caption: byId("caption").textContent,
    found: state.found.map(({ name }) => name),
    dark,
    transform: { x: transform.x, y: transform.y, k: transform.k },
  }),
  // Select the cell that shows an operation; null selects nothing. False where there is none of this name.
  select: (name) => {
    if (name !== null && !model.byName.has(name)) return false;
    selectCell(name === null ? null : model.byName.get(name));
    return true;
  },
  // Open or close a layer, with what is around it or in it; `show` opens all of one of MODES, with every repeat or each
  // run once.
  open: (path) => model.byPath.has(path) && (openLayer(model.byPath.get(path)), true),
  close: (path) => model.byPath.has(path) && (closeLayer(model.byPath.get(path)), true),
  show: showMode,
  // Show all repeats of a run of layers, or again the first for all.
  spread: (path) => model.byPath.has(path) && (changed(() => state.toggleRun(model.byPath.get(path)), null), true),
  // Colour by the figure of this key, or by "kind".
  setMeasure: (key) => changed(() => state.setMeasure(key)),
  // The last column that is not pale, from 0.
  setDepth,
  // The names of operations and layers that hold these words.
  search: (text) => (searchFor(text), state.found.map(({ name }) => name)),
  fit: () => fit(),
  setDark: setTheme,
  exportSvg,
  // The visible cells and edges, with places in pixels of the lattice.
  layout: (look = lookNow()) => ({
    columns: state.view.columns,
    cells: state.view.items.map((item) => {
      const [x, y] = transform.apply([item.x, item.y]);
      const badge = item.opens ? transform.apply([badgeOf(item).x, badgeOf(item).y]) : null;
      const cells = item.all.map((cell) => model.names[cell]);
      return {
        name: item.name, layer: item.layer.path, level: item.level, column: item.column, lane: item.lane,
        kind: item.kind, opens: item.opens, times: item.times * item.repeats, cells, texts: item.texts, x, y, badge,
        width: item.width * transform.k, height: item.height * transform.k,
        role: isFaded(item, look) ? "faded" : "shown",
      };
    }),
    edges: state.view.edges.map(({ source, target, kind }) => ({ source, target, kind })),
    brackets: state.view.names.filter((name) => name.isOpen).map(({ layer, badge }) => ({
      layer: layer.path, badge: badge && transform.apply([badge.x, badge.y]),
    })),
    runs: state.view.runs.map(({ layer, badge, times, isSpread }) => ({
      layer: layer.path, times, isSpread, badge: badge && transform.apply([badge.x, badge.y]),
    })),
  }),
};

fillFacts(model);
wire();
setTheme(dark);
updatePanels();
resize();
fit(true);
