// Which cells stand for which: a closed layer is one for each level, of a folded run the first repeat stands for all.

// `open` and `spread` are sets of layers: those that show their parts, and the runs that show all of their repeats.
function visibleItems(model, open, spread) {
  const items = [];
  const shown = new Int32Array(model.count).fill(-1);
  const add = (layer, cells, times, single) => {
    for (const cell of cells) shown[cell] = items.length;
    items.push(new Item(items.length, layer, model.level[cells[0]], cells, times, single));
  };
  const walk = (layer, times) => {
    if (!open.has(layer) || !layer.opens) {
      const levels = new Map();
      for (const cell of layer.cells) {
        const level = model.level[cell];
        if (levels.has(level)) levels.get(level).push(cell);
        else levels.set(level, [cell]);
      }
      for (const cells of levels.values()) add(layer, cells, times, cells.length === 1 && !layer.opens);
      return;
    }
    for (const cell of layer.own) add(layer, [cell], times, true);
    if (layer.repeats === 1 || spread.has(layer)) {
      for (const child of layer.children) walk(child, times);
      return;
    }
    walk(layer.children[0], times * layer.repeats);
    for (const twins of layer.twins) for (const [cell, twin] of twins) shown[cell] = shown[twin];
  };
  for (const layer of model.roots) walk(layer, 1);
  orderByGraph(items, shown);
  addHidden(items, shown);
  for (const item of items) describe(model, item);
  return { items, shown, edges: visibleEdges(model, items, shown, open, spread) };
}

const NOTHING = [];

// What is drawn as one cell, with all fields that it will ever have: objects that grow are slow. `cells` are its own
// operations, `all` those of the repeats that it stands for too; `single` says that it is one operation.
class Item {
  constructor(number, layer, level, cells, times, single) {
    this.number = number;
    this.layer = layer;
    this.level = level;
    this.cells = this.all = cells;
    this.times = times;
    this.single = single;
    this.kind = this.symbol = this.name = "";
    this.shape = this.outputs = this.texts = NOTHING;
    this.opens = this.minor = this.round = false;
    this.repeats = 1;
    this.value = null;
    this.team = this.column = this.lane = 0;
    this.x = this.y = this.width = this.height = this.depth = this.lift = 0.5; // not whole: stored as such from the first
    this.rise = this.above = this.below = 0.5;
  }
}

class Edge {
  constructor(source, target, adds, onTop) {
    this.source = source;
    this.target = target;
    this.adds = adds;
    this.onTop = onTop;
    this.kind = "";
    this.inside = this.free = false;
    this.arc = this.way = this.tip = null;
    this.left = this.right = this.top = this.bottom = 0.5;
  }
}

// Items in the order of the graph, whatever is open: what is drawn keeps its place among the others.
function orderByGraph(items, shown) {
  items.sort((one, other) => one.cells[0] - other.cells[0]);
  const places = new Int32Array(items.length);
  items.forEach((item, place) => {
    places[item.number] = place;
    item.number = place;
  });
  for (let cell = 0; cell < shown.length; cell++) shown[cell] = places[shown[cell]];
}

// With its own cells, an item stands for those of the further repeats.
function addHidden(items, shown) {
  for (const item of items) if (item.times > 1) item.all = [];
  for (let cell = 0; cell < shown.length; cell++) {
    const item = items[shown[cell]];
    if (item.times > 1) item.all.push(cell);
  }
}

const QUIET = new Set(["norm", "act", "shape"]);

// What an item looks like: the kind of its heaviest work (in an exchange, what brings its grids together), its symbol,
// the shape that leaves it.
function describe(model, item) {
  const { cells } = item;
  let end = cells[cells.length - 1];
  let out = end;
  if (cells.length > 1) {
    const fusions = cells.filter((cell) => model.kind[cell] === "fuse");
    const onEdges = cells.every((cell) => model.minor[cell]);
    const telling = onEdges && fusions.length ? fusions : cells.filter((cell) => !QUIET.has(model.kind[cell]));
    end = telling[telling.length - 1] ?? end;
    if (telling === fusions) out = end;
    item.minor = onEdges && !fusions.length;
    const work = cells.filter((cell) => !model.minor[cell] || item.minor).map((cell) => model.kind[cell]);
    item.kind = ["conv", "linear", "custom"].find((kind) => work.includes(kind)) ?? model.kind[end];
  } else {
    item.kind = model.kind[end];
    item.minor = Boolean(model.minor[end]) && item.kind !== "fuse";
  }
  item.symbol = item.kind === "fuse" ? model.symbol[end] : "";
  item.shape = model.shape[out];
  item.opens = item.layer.opens && !item.single;
  item.repeats = item.opens && item.layer.repeats > 1 ? item.layer.repeats : 1;
  const named = item.all.filter((cell) => model.outputs.has(cell));
  if (named.length) item.outputs = named.flatMap((cell) => model.outputs.get(cell));
  item.name = item.single ? model.names[cells[0]] : item.layer.path;
}

// An edge between two items where a cell of one reads a cell of the other, once. What one repeat of a folded run reads
// from another is not drawn: the first stands for all of them.
function visibleEdges(model, items, shown, open, spread) {
  const edges = new Map();
  for (let target = 0; target < model.count; target++) {
    const reader = shown[target];
    for (const source of model.inputs[target]) {
      const from = shown[source];
      if (from === reader || betweenRepeats(model, source, target, open, spread)) continue;
      const key = from * items.length + reader;
      const fuses = model.kind[target] === "fuse" && model.symbol[target] !== "C";
      const adds = fuses || model.added.has(source * model.count + target);
      const edge = edges.get(key);
      if (!edge) edges.set(key, new Edge(from, reader, adds, isOnTop(model, target)));
      else edge.adds &&= adds;
    }
  }
  return [...edges.values()];
}

function isOnTop(model, cell) {
  return !model.layer[cell] || model.layers[model.layer[cell]].parent === null;
}

function betweenRepeats(model, source, target, open, spread) {
  let one = model.layers[model.layer[source]];
  let other = model.layers[model.layer[target]];
  while (one !== other) {
    if (one === null || other === null) return false;
    if (one.depth >= other.depth) one = one.parent;
    else other = other.parent;
  }
  return one !== null && one.repeats > 1 && open.has(one) && !spread.has(one);
}
