// Sizes and places in points, y downwards: how large each item is drawn, where each column and level lies.

const GAPS = [13, 25]; // between two columns, without and with edges that change the level there
const SIDES = [20, 34];
const CAPTION = 9;
const NAME_TIER = 17;
const RUN_TIER = 18;
const NAMES = 5; // one more than the closed layers of a column whose names stand below it
const NARROW = new Set(["norm", "act", "shape"]);

// The view that a choice of open layers gives: what stands in which column and lane.
function arrange(model, open, spread) {
  const view = visibleItems(model, open, spread);
  const order = placeItems(model, view.items, view.edges);
  view.columns = 1 + (view.items[order[order.length - 1]]?.column ?? -1);
  view.model = model;
  view.taken = takenLanes(view.items, order);
  const finest = Math.max(1, ...model.levels.map(({ size }) => Math.max(...size)));
  for (const item of view.items) measureItem(item, finest);
  classify(view);
  view.gaps = gapsBefore(view);
  addNames(view, open, spread);
  return view;
}

// Gives everything in a view its place. `measure` is null where cells are coloured by kind.
function settle(view, measure) {
  const { model } = view;
  const sizes = new Map(model.levels.map(({ level, size }) => [level, sizeText(size)]));
  const several = new Set([...model.outputs.values()].flat()).size > 1;
  for (const item of view.items) writeCaptions(item, sizes, measure, several);
  const rises = laneRises(view.items);
  for (const item of view.items) item.rise = rises.get(laneKey(item));
  placeColumns(view);
  placeRows(view, findArcs(view));
  boundEdges(view);
  for (const name of view.names) name.y = view.bottom + 6 + NAME_TIER * name.tier;
  view.box = boundsOf(view);
}

function measureItem(item, finest) {
  item.depth = 0;
  item.round = item.kind === "fuse";
  if (item.round) {
    item.width = item.height = item.opens ? 19 : 16;
  } else if (item.shape.length === 1) {
    item.width = NARROW.has(item.kind) ? 10 : 14;
    item.height = Math.min(46, 16 + 2.6 * Math.log2(Math.max(1, item.shape[0])));
  } else {
    const scale = item.minor ? 0.8 : 1;
    const side = (cells) =>
      scale * (SIDES[0] + (SIDES[1] - SIDES[0]) * Math.min(1, Math.log2(Math.max(1, cells)) / Math.max(1, Math.log2(finest))));
    item.height = side(item.shape[1]);
    item.width = NARROW.has(item.kind) ? 11 : Math.max(18, side(item.shape[2]));
    item.depth = NARROW.has(item.kind) ? 2 : (0.8 + 0.62 * Math.log2(Math.max(1, item.shape[0]))) * scale;
  }
  item.lift = item.depth * 0.55;
}

// What is written below an item: its channels, the size where the row's is another, its value, its names as an output.
function writeCaptions(item, sizes, measure, several) {
  const texts = (item.texts = []);
  if (item.kind !== "fuse" && !NARROW.has(item.kind)) texts.push(String(item.shape[0]));
  const size = item.shape.length === 3 ? sizeText(item.shape.slice(1)) : "";
  if (size && size !== sizes.get(item.level) && !NARROW.has(item.kind)) texts.push(size);
  item.value = measure ? figure(measure, item.cells) : null;
  if (measure) texts.push(figureText(measure, item.value, true));
  if (several) texts.push(...item.outputs);
}

function textWidth(text, size) {
  return text.length * size * 0.58;
}

function laneKey(item) {
  return item.level * 4096 + item.lane;
}

// How far above the middle of its row each lane lies.
function laneRises(items) {
  const heights = new Map();
  for (const item of items) {
    const key = laneKey(item);
    const [above, below] = heights.get(key) ?? [0, 0];
    item.above = item.height / 2 + item.lift + (item.opens ? 3 : 0);
    item.below = item.height / 2 + item.texts.length * (CAPTION + 1) + 5;
    heights.set(key, [Math.max(above, item.above), Math.max(below, item.below)]);
  }
  const rises = new Map();
  for (const key of [...heights.keys()].sort((one, other) => one - other)) {
    const under = heights.get(key - 1);
    rises.set(key, key % 4096 && under ? rises.get(key - 1) + under[0] + heights.get(key)[1] + 4 : 0);
  }
  return rises;
}

function placeColumns(view) {
  const halves = Array.from({ length: view.columns }, () => [5, 5]);
  for (const item of view.items) {
    const named = !item.single || !item.layer.opens;
    const name = named ? Math.min(48, textWidth(item.layer.name, 8.5)) / 2 - 3 : 0;
    const text = Math.max(name, ...item.texts.map((line) => textWidth(line, CAPTION) / 2));
    const half = halves[item.column];
    half[0] = Math.max(half[0], item.width / 2, text);
    half[1] = Math.max(half[1], item.width / 2 + item.depth, text);
  }
  let here = 0;
  view.spans = halves.map(([before, after], column) => {
    const left = column ? here + view.gaps[column] : 0;
    here = left + before + after;
    return { left, middle: left + before, right: here };
  });
  view.width = here;
  for (const item of view.items) item.x = view.spans[item.column].middle;
}

// How wide the gap before each column is.
function gapsBefore(view) {
  const gaps = new Array(view.columns).fill(GAPS[0]);
  for (const edge of view.edges) {
    const [source, target] = [view.items[edge.source], view.items[edge.target]];
    if (source.level === target.level && source.lane === target.lane) continue;
    gaps[target.column] = GAPS[1];
    if (source.column + 1 < view.columns) gaps[source.column + 1] = GAPS[1];
  }
  return [...gaps, GAPS[1]];
}

function takenLanes(items, order) {
  const taken = new Map();
  for (const place of order) {
    const item = items[place];
    const key = laneKey(item);
    if (!taken.has(key)) taken.set(key, []);
    taken.get(key).push(item.column);
  }
  return taken;
}

// The first place in ascending numbers whose number is at least `least`.
function lowerBound(numbers, least) {
  let [low, high] = [0, numbers.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < least) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Whether no item stands in the lane strictly between two columns.
function isFree(view, key, first, last) {
  const taken = view.taken.get(key) ?? [];
  return lowerBound(taken, first + 1) >= lowerBound(taken, last);
}

// Where an edge comes from, as in the other drawings.
function classify(view) {
  for (const edge of view.edges) {
    const [source, target] = [view.items[edge.source], view.items[edge.target]];
    const distance = target.column - source.column;
    edge.inside = source.team === target.team && distance === 0;
    edge.free = isFree(view, laneKey(source), source.column, target.column);
    if (source.level !== target.level) edge.kind = source.level < target.level ? "down" : "up";
    else if (edge.adds && distance > 1) edge.kind = !edge.onTop || distance <= 6 ? "shortcut" : "skip";
    else edge.kind = edge.free ? "same" : "skip";
    if (edge.kind === "same" && distance > 1 && source.lane === target.lane) edge.kind = "passing";
  }
}

// Edges that take a track above their row: short ones below long ones, none through another.
function findArcs(view) {
  const tracks = new Map();
  const tops = columnTops(view.items);
  const needing = view.edges.filter((edge) => takesTrack(view, edge));
  const span = (edge) => Math.abs(view.items[edge.target].column - view.items[edge.source].column);
  needing.sort((one, other) => span(one) - span(other) || view.items[one.source].column - view.items[other.source].column);
  for (const edge of needing) {
    const [source, target] = [view.items[edge.source], view.items[edge.target]];
    const [first, last] = [Math.min(source.column, target.column), Math.max(source.column, target.column)];
    if (!tracks.has(source.level)) tracks.set(source.level, []);
    const track = takeTrack(tracks.get(source.level), first, last, 14);
    edge.arc = skyline(tops, source.level, first, last) + 7 * (track + 1);
  }
  return needing;
}

function takesTrack(view, edge) {
  const [source, target] = [view.items[edge.source], view.items[edge.target]];
  const distance = target.column - source.column;
  if (edge.inside) return false;
  if (distance <= 0) return true;
  if (source.level === target.level) return edge.kind === "shortcut" ? distance > 1 : !edge.free;
  return distance > 1 && !edge.free && !isFree(view, laneKey(target), source.column, target.column);
}

// The number of the first track on which nothing meets the span; the last where all `most` are taken. Spans lie in
// order on their track, and may touch.
function takeTrack(tracks, first, last, most, least = 0) {
  for (let number = least; number + 1 < most; number++) {
    while (tracks.length <= number) tracks.push({ starts: [], ends: [] });
    const { starts, ends } = tracks[number];
    const place = lowerBound(starts, first);
    if ((place === 0 || ends[place - 1] <= first) && (place === starts.length || last <= starts[place])) {
      starts.splice(place, 0, first);
      ends.splice(place, 0, last);
      return number;
    }
  }
  return most - 1;
}

function columnTops(items) {
  const tops = new Map();
  for (const item of items) {
    if (!tops.has(item.level)) tops.set(item.level, { most: 0, columns: new Map() });
    const row = tops.get(item.level);
    const top = item.rise + item.above;
    row.most = Math.max(row.most, top);
    row.columns.set(item.column, Math.max(row.columns.get(item.column) ?? 0, top));
  }
  return tops;
}

function skyline(tops, level, first, last) {
  const row = tops.get(level);
  if (last - first > 64) return row.most;
  let top = 0;
  for (let column = first; column <= last; column++) top = Math.max(top, row.columns.get(column) ?? 0);
  return top;
}

function placeRows(view, arcs) {
  const reach = new Map(view.model.levels.map(({ level }) => [level, { above: 14, below: 14 }]));
  for (const item of view.items) {
    const row = reach.get(item.level);
    row.above = Math.max(row.above, item.rise + item.above);
    row.below = Math.max(row.below, item.below - item.rise);
  }
  for (const edge of arcs) {
    const row = reach.get(view.items[edge.source].level);
    row.above = Math.max(row.above, edge.arc);
  }
  let here = 0;
  view.rows = view.model.levels.map(({ level, size }) => {
    const { above, below } = reach.get(level);
    const row = { level, size, top: here, middle: here + 8 + above, bottom: here + 8 + above + below + 6 };
    here = row.bottom;
    return row;
  });
  view.bottom = here;
  const middles = new Map(view.rows.map((row) => [row.level, row.middle]));
  view.middles = middles;
  for (const item of view.items) item.y = middles.get(item.level) - item.rise;
}

// Names below the columns: innermost first, each open layer a bracket under all that it holds. Runs of repeats have
// theirs above.
function addNames(view, open, spread) {
  view.names = [];
  view.runs = [];
  const extents = new Map();
  for (const item of view.items) {
    for (let layer = item.layer; layer !== null; layer = layer.parent) {
      const extent = extents.get(layer) ?? { layer, first: item.column, last: item.column, tier: 0 };
      extent.first = Math.min(extent.first, item.column);
      extent.last = Math.max(extent.last, item.column);
      extents.set(layer, extent);
    }
  }
  const ordered = [...extents.values()].sort((one, other) => other.layer.depth - one.layer.depth || one.first - other.first);
  const tracks = [];
  for (const extent of ordered) {
    const { layer, first, last } = extent;
    const isOpen = layer.opens && open.has(layer);
    const folded = layer.parent !== null && layer.parent.repeats > 1 && open.has(layer.parent) && !spread.has(layer.parent);
    const most = isOpen ? 24 : NAMES;
    const tier = isOpen && folded ? most - 1 : takeTrack(tracks, first, last + 1, most, extent.tier);
    if (tier < most - 1) {
      view.names.push({ layer, first, last, tier, name: folded ? partNames(layer) : layer.name, isOpen });
      extent.tier = tier + 1;
    }
    const above = extents.get(layer.parent);
    if (above) above.tier = Math.max(above.tier, extent.tier);
    if (layer.repeats > 1) view.runs.push({ layer, first, last, isOpen, isSpread: spread.has(layer) });
  }
  view.runs.sort((one, other) => one.last - one.first - (other.last - other.first) || one.first - other.first);
  const above = [];
  for (const run of view.runs) {
    run.tier = takeTrack(above, run.first, run.last + 1, 12);
    run.times = `×${run.layer.repeats}`;
    run.y = -6 - RUN_TIER * run.tier;
  }
  view.tiers = 1 + Math.max(-1, ...view.names.map(({ tier }) => tier));
}

function partNames(layer) {
  const parts = layer.parent.children;
  return `${parts[0].name}–${parts[parts.length - 1].name}`;
}

function boundsOf(view) {
  const tiers = 1 + Math.max(-1, ...view.runs.map(({ tier }) => tier));
  return { left: -10, top: -10 - RUN_TIER * tiers, right: view.width + 10, bottom: view.bottom + 10 + NAME_TIER * view.tiers };
}
