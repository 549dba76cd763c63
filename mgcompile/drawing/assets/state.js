// What is chosen, and the view that follows: which layers are open, what is selected, how far the network is shown.

const MOST_ITEMS = 700;
const MODES = {
  fold: { title: "Fold all", height: Infinity },
  units: { title: "Units", height: 2 },
  convolutions: { title: "Convolutions", height: 1 },
  operations: { title: "Operations", height: 0 },
};

class State {
  constructor(model) {
    this.model = model;
    this.open = new Set();
    this.spread = new Set();
    this.every = false;
    this.measure = null;
    this.selected = null; // the first cell of the selected item
    this.inside = null; // the cells up to the depth that is shown; null where all are
    this.query = "";
    this.found = [];
    this.showFirst();
  }

  // What was asked for; else the most that is readable at once: convolutions inside units, as the other drawings have it,
  // or less.
  showFirst() {
    const { mode: asked, every } = this.model.start;
    this.every = every;
    for (const mode of asked ? [asked] : ["convolutions", "units", "fold"]) {
      this.show(mode);
      if (every || this.view.items.length <= MOST_ITEMS) break;
    }
  }

  relayout() {
    this.view = arrange(this.model, this.open, this.spread);
    settle(this.view, this.measure);
    this.limit = this.limitOf(this.inside);
    this.pickFound();
    this.select(this.selected);
  }

  // Open every layer that is at least so high; `operations` opens all. Repeats are drawn once unless `every` says else.
  show(mode, every = this.every) {
    const { height } = MODES[mode];
    this.mode = mode;
    this.every = every;
    this.spread = new Set(every ? this.model.layers.filter((layer) => layer.repeats > 1) : []);
    this.open = new Set(this.model.layers.filter((layer) => layer.opens && layer.height >= height));
    // Where a layer is shown, so are those around it.
    for (const layer of [...this.open]) for (let above = layer.parent; above; above = above.parent) this.open.add(above);
    this.relayout();
  }

  // Show the parts of a layer. Where that would be a single cell again, the parts of it.
  openLayer(layer) {
    if (!layer.opens) return false;
    this.mode = "";
    for (let above = layer.parent; above; above = above.parent) this.open.add(above);
    let here = layer;
    this.open.add(here);
    while (here.opens && !here.own.length && (here.children.length === 1 || here.repeats > 1)) {
      [here] = here.children;
      if (here.opens) this.open.add(here);
    }
    this.relayout();
    return true;
  }

  closeLayer(layer) {
    if (!this.open.has(layer)) return false;
    this.mode = "";
    const close = (each) => {
      this.open.delete(each);
      this.spread.delete(each);
      each.children.forEach(close);
    };
    close(layer);
    this.relayout();
    return true;
  }

  // Show all repeats of a run, or the first for all.
  toggleRun(layer) {
    this.mode = "";
    this.open.add(layer);
    if (this.spread.has(layer)) {
      this.spread.delete(layer);
    } else {
      this.spread.add(layer);
      // The others are open as the first is.
      const [first, ...others] = layer.children;
      const copy = (from, to) => {
        if (this.open.has(from)) this.open.add(to);
        from.children.forEach((child, place) => to.children[place] && copy(child, to.children[place]));
      };
      others.forEach((other) => copy(first, other));
    }
    this.relayout();
  }

  // The innermost open layer around an item that has a bracket of its own.
  around(item) {
    let layer = this.open.has(item.layer) && item.layer.opens ? item.layer : item.layer.parent;
    const folded = (each) => each.parent && each.parent.repeats > 1 && !this.spread.has(each.parent);
    while (layer && (!this.open.has(layer) || folded(layer))) layer = layer.parent;
    return layer;
  }

  setMeasure(key) {
    this.measure = this.model.measures.find((measure) => measure.key === key) ?? null;
    settle(this.view, this.measure);
  }

  item(cell = this.selected) {
    return cell === null ? null : this.view.items[this.view.shown[cell]];
  }

  // Select the item that shows a cell; null selects nothing. What it sees follows from the graph, cell by cell.
  select(cell) {
    this.selected = cell;
    this.sees = new Set();
    this.seen = new Set();
    this.seesItems = new Set();
    this.seenItems = new Set();
    if (cell === null) return;
    const item = this.item();
    this.selected = item.cells[0];
    this.sees = reach(this.model.inputs, item.cells);
    this.seen = reach(this.model.readers, item.cells);
    this.seesItems = this.itemsOf(this.sees);
    this.seenItems = this.itemsOf(this.seen);
    this.seesItems.delete(item);
    this.seenItems.delete(item);
  }

  // The items that have some of the cells as their own; what a hidden repeat has is not shown.
  itemsOf(cells) {
    const { items, shown } = this.view;
    const found = new Set();
    for (const cell of cells) {
      const item = items[shown[cell]];
      if (item.times === 1 || item.cells.includes(cell)) found.add(item);
    }
    return found;
  }

  // The last column of which, and of all before it, nothing lies beyond these cells.
  limitOf(inside) {
    let limit = this.view.columns - 1;
    if (inside === null) return limit;
    for (const item of this.view.items) {
      if (!item.cells.every((cell) => inside.has(cell))) limit = Math.min(limit, item.column - 1);
    }
    return Math.max(0, limit);
  }

  setLimit(column) {
    const last = this.view.columns - 1;
    this.limit = Math.max(0, Math.min(last, column));
    this.inside = this.limit === last ? null : new Set(this.cellsShown());
  }

  cellsShown() {
    return this.view.items.filter((item) => item.column <= this.limit).flatMap((item) => item.all);
  }

  // What the network has up to the limit: the levels whose grids live there, and the figures so far.
  soFar() {
    const { items, edges } = this.view;
    const levels = new Set();
    for (const item of items) if (item.column === this.limit) levels.add(item.level);
    for (const { source, target } of edges) {
      const [from, to] = [items[source].column, items[target].column];
      if (from < this.limit && to > this.limit) levels.add(items[source].level);
    }
    const cells = this.cellsShown();
    const figures = this.model.measures.map((measure) => [measure, figure(measure, cells)]);
    return { levels: [...levels].sort((one, other) => one - other), figures };
  }

  // Cells and layers whose name holds the text; every word of it where it has several.
  search(text) {
    this.query = text.trim();
    const words = this.query.toLowerCase().split(/\s+/).filter(Boolean);
    const holds = (name) => words.every((word) => name.includes(word));
    this.found = [];
    if (words.length) {
      for (const layer of this.model.layers) {
        if (layer.opens && holds(layer.path.toLowerCase())) this.found.push({ layer, name: layer.path });
      }
      this.model.names.forEach((name, cell) => {
        if (holds(`${name} ${this.model.label[cell]}`.toLowerCase())) this.found.push({ cell, name });
      });
    }
    this.pickFound();
    return this.found;
  }

  pickFound() {
    this.foundItems = new Set();
    for (const { cell } of this.found) if (cell !== undefined) this.foundItems.add(this.item(cell));
  }

  // Open what hides a cell or layer, and select it.
  reveal({ cell, layer }) {
    const target = layer ?? this.model.layers[this.model.layer[cell]];
    let opened = false;
    for (let [below, above] = [target, target.parent]; above; [below, above] = [above, above.parent]) {
      opened = opened || !this.open.has(above);
      this.open.add(above);
      if (above.repeats > 1 && above.children.indexOf(below) > 0 && !this.spread.has(above)) {
        this.spread.add(above);
        opened = true;
      }
    }
    if (cell !== undefined && target.opens && !this.open.has(target)) {
      this.open.add(target);
      opened = true;
    }
    if (opened) {
      this.mode = "";
      this.relayout();
    }
    this.select(cell ?? layer.cells[0]);
  }

  // The nearest item in a direction: along depth in the row, or in another level.
  neighbour(item, direction) {
    const { items } = this.view;
    const aside = direction === "left" || direction === "right";
    const sign = direction === "left" || direction === "up" ? -1 : 1;
    let [best, least] = [null, Infinity];
    for (const other of items) {
      const [dx, dy] = [other.column - item.column, other.y - item.y];
      if ((aside ? dx : dy) * sign <= (aside ? 0 : 1)) continue;
      // Along depth the own row comes first, then the nearest row; across levels the own column, then the nearest.
      const cost = aside
        ? Math.abs(dx) + (other.level === item.level ? 0 : 1e4) + Math.abs(dy)
        : Math.abs(dy) + Math.abs(dx) * 1e3;
      if (cost < least) [best, least] = [other, cost];
    }
    return best;
  }
}
