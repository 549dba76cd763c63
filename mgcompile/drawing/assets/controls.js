// Brings it together: the canvas with its zoom, what mouse and keys do, and the interface for scripts.

const state = new State(readModel(JSON.parse(byId("data").textContent)));
const { model } = state;
const canvas = byId("lattice");
const context = canvas.getContext("2d");
const over = byId("over").getContext("2d");
const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
const zoom = d3.zoom().on("zoom", (event) => moved(event.transform));
const pane = d3.select(canvas).call(zoom).on("dblclick.zoom", null);

let transform = d3.zoomIdentity;
let dark = systemDark.matches;
let palette = makePalette(model.look, dark);
let hovered = null;
let playing = null;
let chosen = -1; // which of the results Enter takes
let due = false;

// ---- drawing

function axisWidth() {
  const longest = Math.max(0, ...state.view.rows.map((row) => `${row.level} · ${sizeText(row.size)}`.length));
  return longest * axisSize() * 0.56 + 16;
}

function axisSize() {
  return canvas.clientWidth < 600 ? 10 : 12;
}

function lookNow() {
  const { view, measure } = state;
  const [left, top] = transform.invert([0, 0]);
  const [right, bottom] = transform.invert([canvas.clientWidth, canvas.clientHeight]);
  return {
    palette,
    measure,
    range: measure ? valueRange(view.items) : null,
    selected: state.item(),
    sees: state.seesItems,
    seen: state.seenItems,
    limit: state.limit,
    found: state.foundItems,
    scale: transform.k,
    signs: transform.k > SIGNS,
    area: { left: left + axisWidth() / transform.k, top, right, bottom },
  };
}

function draw() {
  due = false;
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.globalAlpha = 1;
  context.fillStyle = palette.paper;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.setTransform(ratio * transform.k, 0, 0, ratio * transform.k, ratio * transform.x, ratio * transform.y);
  const look = lookNow();
  drawView(new CanvasPen(context, transform.k, transform.k < 0.3), state.view, look);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.globalAlpha = 0.92;
  context.fillStyle = palette.paper;
  context.fillRect(0, 0, axisWidth(), height);
  context.globalAlpha = 1;
  drawAxis(new CanvasPen(context, 1), state.view, look, (y) => transform.applyY(y), axisWidth() - 8, axisSize());
  drawHover(width, height, ratio);
}

function drawHover(width, height, ratio) {
  over.setTransform(1, 0, 0, 1, 0, 0);
  over.clearRect(0, 0, width * ratio, height * ratio);
  if (hovered === null) return;
  over.setTransform(ratio * transform.k, 0, 0, ratio * transform.k, ratio * transform.x, ratio * transform.y);
  over.strokeStyle = palette.ink;
  over.lineWidth = Math.max(1.5, 1.5 / transform.k);
  const { x, y } = hovered;
  over.strokeRect(x - hovered.width / 2 - 3, y - hovered.height / 2 - 3, hovered.width + 6, hovered.height + 6);
}

function redraw() {
  if (due) return;
  due = true;
  requestAnimationFrame(draw);
}

function resize() {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  for (const each of [canvas, byId("over")]) [each.width, each.height] = [width * ratio, height * ratio];
  limitZoom();
  redraw();
}

// ---- moving

function moved(next) {
  transform = next;
  hideTip();
  redraw();
}

function fitScale() {
  const { box } = state.view;
  const wide = (canvas.clientWidth - axisWidth() - 12) / (box.right - box.left);
  return Math.min(1.7, wide, (canvas.clientHeight - 12) / (box.bottom - box.top));
}

function limitZoom() {
  zoom.scaleExtent([Math.min(0.5, fitScale() * 0.6), 6]);
}

// All of it in the middle; `readable` shows less of a long network, from its beginning.
function fit(readable = false) {
  const { box } = state.view;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const least = Math.min(0.62, (height - 12) / (box.bottom - box.top));
  const scale = readable ? Math.max(fitScale(), least) : fitScale();
  limitZoom();
  const free = width - axisWidth() - (box.right - box.left) * scale;
  const left = axisWidth() + Math.max(4, free / 2) - box.left * scale;
  const top = Math.max(4, (height - (box.bottom - box.top) * scale) / 2) - box.top * scale;
  pane.call(zoom.transform, d3.zoomIdentity.translate(left, top).scale(scale));
}

function zoomBy(factor) {
  pane.call(zoom.scaleBy, factor);
}

// Bring an item into sight, where it is not.
function bringIntoSight(item) {
  const [x, y] = transform.apply([item.x, item.y]);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const margin = 40;
  const dx = x < axisWidth() + margin ? axisWidth() + margin - x : x > width - margin ? width - margin - x : 0;
  const dy = y < margin ? margin - y : y > height - margin ? height - margin - y : 0;
  if (dx || dy) pane.call(zoom.translateBy, dx / transform.k, dy / transform.k);
}

// ---- changing what is shown

// After a change of the view, the cell `anchor` stays where it is on the screen.
function changed(change, anchor = state.selected) {
  const before = anchor === null ? null : state.item(anchor);
  const place = before && transform.apply([before.x, before.y]);
  change();
  hovered = null;
  hideTip();
  limitZoom();
  if (place) {
    const item = state.item(anchor);
    const now = transform.apply([item.x, item.y]);
    pane.call(zoom.translateBy, (place[0] - now[0]) / transform.k, (place[1] - now[1]) / transform.k);
  }
  updatePanels();
  redraw();
}

function updatePanels() {
  for (const button of byId("modes").children) button.setAttribute("aria-pressed", String(button.dataset.mode === state.mode));
  byId("every").checked = state.every;
  byId("measure").value = state.measure?.key ?? "kind";
  updateDepth();
  updateSelection();
}

function updateDepth() {
  const slider = byId("depth");
  slider.max = String(state.view.columns - 1);
  slider.value = String(state.limit);
  const text = captionText(state);
  byId("caption").textContent = text;
  slider.setAttribute("aria-valuetext", text);
}

function updateSelection() {
  const item = state.item();
  fillDetails(state, { open: openSelected, close: closeAround, clear });
  fillLegend(state, palette, state.measure ? valueRange(state.view.items) : null);
  say(item ? `${itemText(model, item)}; sees ${state.sees.size} operations; seen by ${state.seen.size}` : "");
  canvas.setAttribute("aria-label", `${model.name}: ${item ? item.name : "no cell selected; arrows select one"}`);
}

function selectCell(cell) {
  state.select(cell);
  updateSelection();
  redraw();
}

function clear() {
  state.search("");
  byId("search").value = "";
  byId("results").hidden = true;
  selectCell(null);
}

function openLayer(layer, anchor = layer.cells[0]) {
  changed(() => state.openLayer(layer), anchor);
}

function closeLayer(layer) {
  changed(() => state.closeLayer(layer), layer.cells[0]);
}

function openSelected() {
  const item = state.item();
  if (item?.opens) openLayer(item.layer, item.cells[0]);
}

function closeAround() {
  const layer = state.item() && state.around(state.item());
  if (layer) closeLayer(layer);
}

function showMode(mode, every) {
  changed(() => state.show(mode, every), null);
  fit(true);
}

function setDepth(column) {
  state.setLimit(column);
  updateDepth();
  redraw();
}

function setTheme(next) {
  dark = next;
  document.documentElement.classList.toggle("dark", dark);
  palette = makePalette(model.look, dark);
  byId("theme").setAttribute("aria-pressed", String(dark));
  updateSelection();
  redraw();
}

function play() {
  if (playing !== null) {
    stop();
    return;
  }
  if (state.limit >= state.view.columns - 1) setDepth(0);
  const pause = Math.max(90, Math.min(650, 16000 / state.view.columns));
  playing = setInterval(() => {
    setDepth(state.limit + 1);
    if (state.limit >= state.view.columns - 1) stop();
  }, pause);
  byId("play").textContent = "❚❚";
  byId("play").setAttribute("aria-label", "Stop");
}

function stop() {
  clearInterval(playing);
  playing = null;
  byId("play").textContent = "▶";
  byId("play").setAttribute("aria-label", "Play the growth");
}

function choose(place) {
  const found = state.found[place];
  if (!found) return;
  byId("results").hidden = true;
  changed(() => state.reveal(found), null);
  bringIntoSight(state.item());
  canvas.focus({ preventScroll: true });
}

// The view as an SVG document for print: light, whole, with title and levels.
function exportSvg() {
  const { view, measure } = state;
  const light = makePalette(model.look, false);
  const area = { left: -Infinity, top: -Infinity, right: Infinity, bottom: Infinity };
  const look = { ...lookNow(), palette: light, scale: 1, signs: false, area };
  const pen = new SvgPen();
  drawView(pen, view, look);
  drawAxis(pen, view, look, (y) => y, -14, 11);
  const [left, top] = [view.box.left - 105, view.box.top - 46];
  pen.text(left + 12, top + 22, model.name, 16, light.ink, "start", true);
  const facts = model.facts.map(([name, value]) => `${name}: ${value}`);
  if (measure) {
    const ends = [look.range.least, look.range.most].map((value) => figureText(measure, value, true));
    facts.push(`colour: ${measure.title} from ${ends.join(" (light) to ")} (dark), logarithmic`);
  }
  if (state.limit < view.columns - 1) facts.push(captionText(state));
  pen.text(left + 12, top + 38, facts.join(", "), 10, light.muted, "start");
  const entries = [...kindEntries(model, state, light), ...edgeEntries(model, view, light)];
  const width = Math.max(view.box.right - left + 10, 640);
  const foot = legendBelow(pen, entries, left + 12, view.box.bottom + 12, left + width - 10, light);
  return pen.document(left, top, width, foot - top + 8, model.name, light.paper);
}

// Legend pictures in lines; each is an SVG of its own, moved to its place.
function legendBelow(pen, entries, left, top, right, light) {
  let [x, y] = [left, top];
  for (const [picture, name] of entries) {
    const width = 36 + textWidth(name, 10) + 14;
    if (x > left && x + width > right) [x, y] = [left, y + 20];
    pen.parts.push(picture.replace("<svg ", `<svg x="${short(x)}" y="${short(y)}" `));
    pen.text(x + 36, y + 12.5, name, 10, light.muted, "start");
    x += width;
  }
  return y + 20;
}

function saveSvg() {
  const link = element("a", "", { download: `${model.name.replace(/[^\w.-]+/g, "-") || "network"}.svg` });
  link.href = URL.createObjectURL(new Blob([exportSvg()], { type: "image/svg+xml" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
